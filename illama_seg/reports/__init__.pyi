from .data_check import browse_dataset as browse_dataset, check_dataset as check_dataset
from .page import write_board_page as write_board_page, write_page as write_page
from .run import report_run as report_run
