from .configs import (
    get_config as get_config,
)
from .configs import (
    list_models as list_models,
)
from .configs import (
    load_config as load_config,
)
from .configs import (
    parse_cfg_options as parse_cfg_options,
)
from .evaluate_files import (
    evaluate_predictions as evaluate_predictions,
)
from .images import (
    find_images as find_images,
)
from .images import (
    read_image as read_image,
)
from .infer import (
    segment_files as segment_files,
)
from .models import (
    get_model as get_model,
)
from .models import (
    load_segmentor as load_segmentor,
)
from .prediction import (
    predict as predict,
)
from .quantize import (
    export_quantized as export_quantized,
)
from .quantize import (
    quantize_after_training as quantize_after_training,
)
from .runs.loggers import (
    add_tensorboard as add_tensorboard,
)
from .runs.loggers import (
    add_wandb as add_wandb,
)
from .scores import (
    write_scores as write_scores,
)
from .sliding import (
    sliding_logits as sliding_logits,
)
from .testing import (
    build_tester as build_tester,
)
from .training import (
    build_trainer as build_trainer,
)
