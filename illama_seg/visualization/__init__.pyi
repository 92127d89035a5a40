from .confusion import draw_confusion as draw_confusion
from .curves import draw_curves as draw_curves, read_scalars as read_scalars
from .overlays import (
    add_legend as add_legend,
    colourise as colourise,
    overlay as overlay,
    side_by_side as side_by_side,
)
from .sheets import draw_rows as draw_rows, draw_sheet as draw_sheet
