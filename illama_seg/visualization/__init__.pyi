from .confusion import (
    draw_confusion as draw_confusion,
)
from .curves import (
    draw_curves as draw_curves,
)
from .curves import (
    read_scalars as read_scalars,
)
from .overlay import (
    add_legend as add_legend,
)
from .overlay import (
    colourise as colourise,
)
from .overlay import (
    overlay as overlay,
)
from .overlay import (
    side_by_side as side_by_side,
)
from .sheets import (
    draw_rows as draw_rows,
)
from .sheets import (
    draw_sheet as draw_sheet,
)
