from .confusion import (
    draw_confusion as draw_confusion,
)
from .curves import (
    draw_curves as draw_curves,
)
from .curves import (
    read_scalars as read_scalars,
)
from .overlays import (
    add_legend as add_legend,
)
from .overlays import (
    colourise as colourise,
)
from .overlays import (
    overlay as overlay,
)
from .overlays import (
    side_by_side as side_by_side,
)
from .sheets import (
    draw_rows as draw_rows,
)
from .sheets import (
    draw_sheet as draw_sheet,
)
