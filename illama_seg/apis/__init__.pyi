from .asking import (
    ask_files as ask_files,
)
from .configs import (
    get_config as get_config,
    list_models as list_models,
    load_config as load_config,
    parse_cfg_options as parse_cfg_options,
)
from .evaluate_files import (
    evaluate_predictions as evaluate_predictions,
)
from .export import (
    export_model as export_model,
)
from .images import (
    find_images as find_images,
    read_image as read_image,
)
from .infer import (
    segment_files as segment_files,
)
from .models import (
    get_model as get_model,
    load_segmentor as load_segmentor,
)
from .prediction import (
    predict as predict,
)
from .quantize import (
    quantize_after_training as quantize_after_training,
)
from .runs.loggers import (
    add_tensorboard as add_tensorboard,
    add_wandb as add_wandb,
)
from .scores import (
    write_scores as write_scores,
)
from .sliding import (
    sliding_logits as sliding_logits,
)
from .stream_files import (
    stream_file as stream_file,
)
from .streaming import (
    StreamSegmentor as StreamSegmentor,
)
from .testing import (
    build_tester as build_tester,
)
from .training import (
    build_trainer as build_trainer,
)
