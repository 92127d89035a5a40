import json

import cv2
import numpy as np
import pytest

from illama_seg.visualization import add_legend, draw_curves, draw_rows, overlay
from illama_seg.visualization.curves import read_scalars
from illama_seg.visualization.overlays import side_by_side
from illama_seg.visualization.sheets import draw_sheet

CLASSES = ('sky', 'road', 'car')
PALETTE = [[6, 230, 230], [140, 140, 140], [0, 102, 200]]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def labels():
    labels = np.zeros((40, 60), np.uint8)
    labels[20:] = 2
    labels[:5] = 255
    return labels


def test_full_opacity_shows_the_palette_and_none_the_image(image, labels):
    painted = overlay(image, labels, PALETTE, 1.0)
    assert painted[30, 30].tolist() == PALETTE[2][::-1]  # the picture is BGR
    assert painted[10, 30].tolist() == PALETTE[0][::-1]
    np.testing.assert_array_equal(overlay(image, labels, PALETTE, 0.0), image)


def test_half_opacity_is_the_mean(image, labels):
    painted = overlay(image, labels, PALETTE, 0.5)[30, 30].astype(int)
    mean = (image[30, 30] + np.array(PALETTE[2][::-1])) / 2
    assert np.all(abs(painted - mean) <= 1)


def test_ignored_pixels_stay_unpainted(image, labels):
    np.testing.assert_array_equal(overlay(image, labels, PALETTE, 1.0)[:5], image[:5])


def test_the_legend_shows_the_colours_of_the_classes_present_only(image, labels):
    named = add_legend(image, labels, CLASSES, PALETTE)
    np.testing.assert_array_equal(named[:40], image)
    strip = named[40:].reshape(-1, 3).tolist()
    assert PALETTE[0][::-1] in strip and PALETTE[2][::-1] in strip
    assert PALETTE[1][::-1] not in strip


def test_a_narrow_image_gets_a_higher_legend(image, labels):
    wide = add_legend(np.zeros((40, 600, 3), np.uint8), labels, CLASSES, PALETTE)
    assert len(add_legend(image, labels, CLASSES, PALETTE)) > len(wide)


def test_a_large_picture_gets_a_legend_that_can_be_read(image, labels):
    large = np.zeros((80, 4000, 3), np.uint8)
    labels = np.resize(labels, (80, 4000))
    assert len(add_legend(large, labels, CLASSES, PALETTE)) == 80 + 4 * 22


def test_no_name_is_cut_off_at_the_edge_of_a_small_picture():
    labels, name = np.zeros((8, 60), np.uint8), 'television receiver'
    named = add_legend(np.zeros((8, 60, 3), np.uint8), labels, [name], PALETTE)
    assert np.all(named[8:, -2:] == 255) and np.any(named[8:, -16:-2] < 128)


def test_nothing_annotated_makes_an_empty_legend(image):
    named = add_legend(image, np.full((40, 60), 255, np.uint8), CLASSES, PALETTE)
    assert np.all(named[40:] == 255)


def test_rows_show_image_truth_and_prediction(image, labels, tmp_path):
    other = image[:, :50], labels[:, :50], labels[:, :50], 'another size'
    rows = [(image, labels, np.full((40, 60), 1, np.uint8), 'first'), other]
    draw_rows(rows, CLASSES, PALETTE, tmp_path / 'rows.png')
    picture = cv2.imread(str(tmp_path / 'rows.png'))
    # The truth has no road, so its colour comes from the prediction.
    near = np.abs(picture.astype(int) - PALETTE[1][::-1]).max(-1) < 3
    assert near.sum() > 10_000


def test_a_prediction_is_not_shown_where_nothing_is_annotated(image, tmp_path):
    nothing = np.full((40, 60), 255, np.uint8)
    guess = np.zeros((40, 60), np.uint8)
    draw_rows([(image, nothing, guess, '')], CLASSES, PALETTE, tmp_path / 'rows.png')
    picture = cv2.imread(str(tmp_path / 'rows.png')).astype(int)
    assert (picture.max(-1) < 3).sum() > 20_000  # both panels are black


def test_curves_are_read_from_the_log_and_drawn(tmp_path):
    lines = [dict(loss=2.0, step=1), dict(loss=1.0, step=2), dict(mIoU=30.0, step=2)]
    log = tmp_path / 'scalars.json'
    log.write_text('\n'.join(map(json.dumps, lines)))
    curves = draw_curves([log], tmp_path / 'curves.png')
    assert curves == dict(loss=[[1, 2.0], [2, 1.0]], mIoU=[[2, 30.0]])
    assert cv2.imread(str(tmp_path / 'curves.png')) is not None


def test_a_line_that_a_kill_cut_off_is_passed_over(tmp_path):
    log = tmp_path / 'scalars.json'
    log.write_text('{"loss": 2.0, "step": 1}\n{"loss": 1.5, "st')
    assert read_scalars([log]) == {'loss': [[1, 2.0]]}


def test_a_run_that_was_never_validated_can_be_drawn(tmp_path):
    log = tmp_path / 'scalars.json'
    log.write_text(json.dumps(dict(loss=2.0, step=1)))
    assert draw_curves([log], tmp_path / 'curves.png')['mIoU'] == []


def test_side_by_side_keeps_the_image_and_darkens_what_is_ignored(image, labels):
    picture = side_by_side(image, labels, PALETTE)
    np.testing.assert_array_equal(picture[:, :60], image[..., ::-1])  # RGB
    np.testing.assert_array_equal(picture[:5, -60:], image[:5, :, ::-1] // 4)
    painted = overlay(image, labels, PALETTE, 0.6)[5:, :, ::-1]
    np.testing.assert_array_equal(picture[5:, -60:], painted)


def test_a_sheet_takes_short_rows_other_sizes_and_a_long_legend(image, tmp_path):
    rows = [[(image, 'a'), (image[:, :30], 'b')], [(image[:10], 'c')]]
    entries = [(f'a class with a long name {n}', (n, 2 * n, 9)) for n in range(100)]
    heights = []
    for count in (1, 100):
        path = tmp_path / f'{count}.png'
        draw_sheet(rows, entries[:count], path, 'title')
        picture = cv2.imread(str(path)).astype(int)
        heights.append(len(picture))
        assert picture.shape[1] == 1600
        last = np.abs(picture - entries[count - 1][1][::-1]).max(-1) < 3
        assert last.sum() > 50  # it is not cut off
    assert heights[1] > heights[0] + 300


def test_captions_can_be_read_where_the_reports_page_shows_them(
    image, labels, tmp_path
):
    def drawn(caption):
        path = tmp_path / 'rows.png'
        draw_rows([(image, labels, labels, caption)], CLASSES, PALETTE, path)
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        return picture, picture.shape[1] / 960  # pixels of the page's column

    with_letter, scale = drawn('H')
    without, _ = drawn(' ')
    dark = np.flatnonzero((abs(with_letter.astype(int) - without) > 128).any(1))
    # A capital is 0.73 of the letters' size.
    assert (dark[-1] - dark[0] + 1) / 0.73 / scale == pytest.approx(13, abs=1.5)


def test_long_captions_and_legends_stay_inside_the_sheet(image, tmp_path):
    name = 'frankfurt_000000_000294_leftImg8bit.png, 1024x2048, 3 % ignored'
    rows = [[(image, name)] * columns for columns in (5, 5)]
    entries = [(f'a long name {number}', PALETTE[number % 3]) for number in range(40)]
    for title in (name * 3, ''):
        draw_sheet(rows, entries, tmp_path / 'sheet.png', title)
        picture = cv2.imread(str(tmp_path / 'sheet.png'), cv2.IMREAD_GRAYSCALE)
        frame = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
        assert min(side.min() for side in frame) > 200  # nothing reaches the edge
    # Captions of neighbours do not touch: a white column between two cells.
    text, cell = picture[: picture.shape[0] // 4], picture.shape[1] // 5
    for border in range(cell, 5 * cell, cell):
        assert (text[:, border - 12 : border + 12].min(0) > 200).any()
