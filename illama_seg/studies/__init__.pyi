from .ablations.roadmap import (
    run_roadmap as run_roadmap,
)
from .ablations.soft_mask import (
    run_soft_mask_ablation as run_soft_mask_ablation,
)
from .attention_rank.measure import (
    measure_attention_rank as measure_attention_rank,
)
from .benchmark import (
    run_benchmark as run_benchmark,
)
from .calibration.measure import (
    measure_calibration as measure_calibration,
)
from .comparison.curves import (
    compare_runs as compare_runs,
)
from .comparison.images import (
    compare_images as compare_images,
)
from .complexity.measure import (
    compare_complexity as compare_complexity,
)
from .loss_landscape.measure import (
    measure_loss_landscape as measure_loss_landscape,
)
from .precision import (
    compare_precisions as compare_precisions,
)
from .shape_bias.measure import (
    measure_shape_bias as measure_shape_bias,
)
from .subjects import (
    build_classifier as build_classifier,
)
