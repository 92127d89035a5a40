"""Sections of the report's page in their order."""

from dataclasses import replace

from illama_seg.studies import benchmark, precision
from illama_seg.studies.attention_rank import measure as attention_rank
from illama_seg.studies.calibration import measure as calibration
from illama_seg.studies.comparison import classes, curves, images
from illama_seg.studies.complexity import measure as complexity
from illama_seg.studies.leaderboard import board
from illama_seg.studies.loss_landscape import measure as loss_landscape
from illama_seg.studies.shape_bias import measure as shape_bias
from illama_seg.studies.tables import Section

_TEST = 'python tools/test.py {config} {checkpoint} --work-dir {run}/test'

SECTIONS = (
    Section(
        title='Training and validation',
        files='result.json',
        about='Logged curves and, for a segmentation, the scores of the last '
        'checkpoint on the validation set.',
        command='python tools/analysis/report.py {run}',
        images={
            'curves.png': 'Training loss and validation metric over the training',
            'predictions.png': 'Rows of image, ground truth and prediction, from the '
            'image predicted best to the worst',
        },
    ),
    Section(
        title='Scores',
        files='scores.json',
        about='Scores on the test data, in percent.',
        command=_TEST,
        kind='segmentation',
    ),
    Section(
        title='Scores',
        files='[0-9]*_[0-9]*.json',
        about='Scores on the test data, in percent.',
        command=_TEST,
        kind='classification',
    ),
    Section(
        title='Confusion',
        files='confusion.json',
        about='Pairs of classes that are confused most.',
        images={
            'confusion.png': 'Confusion matrix: share of each annotated class that is '
            'predicted as each class'
        },
    ),
    calibration.SECTION,
    shape_bias.SECTION,
    attention_rank.SECTION,
    precision.SECTION,
    loss_landscape.SECTION,
    complexity.SECTION,
    benchmark.SECTION,
    curves.SECTION,
    classes.SECTION,
    images.SECTION,
)

# A leaderboard's page has these.
BOARD_SECTIONS = (
    board.SECTION,
    replace(curves.SECTION, title='Curves'),
    replace(classes.SECTION, title='Classes'),
)
