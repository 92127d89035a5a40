"""The report's page: what it gathers, and how it is in a browser."""

import html
import json
import re
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from pages import ROOT
from tiny_run import run_tool

from illama_seg.apis import load_config
from illama_seg.reports import write_page
from illama_seg.studies.tables import Table

CONFIGS = ROOT / 'configs'
HOSTILE = '<script>document.title = "run"</script>'


def write(path, numbers, image=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers))
    if image:
        pixels = np.full((40, 1600, 3), 200, np.uint8)
        cv2.imwrite(str(path.with_suffix('.png')), pixels)


def make_run(folder, config='pretrain/illama_micro_digits.py'):
    """What the page reads of a finished run, without the training."""
    log = folder / '20260101_000000' / '20260101_000000.log'
    (log.parent / 'vis_data').mkdir(parents=True)
    load_config(CONFIGS / config).dump(folder / Path(config).name)
    (folder / 'epoch_30.pth').touch()
    (folder / 'last_checkpoint').write_text('elsewhere/epoch_30.pth')
    log.write_text('System environment:\n    PyTorch: 2.6.0 (x)\n    GCC: gcc 12\n')
    rows = [{'loss': 2.0, 'step': 1}, {'accuracy/top1': 72.74, 'step': 1}]
    scalars = log.parent / 'vis_data' / 'scalars.json'
    scalars.write_text('\n'.join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run with measurements, declared and others; the page is written."""
    folder = make_run(tmp_path_factory.mktemp('page') / 'a run & more')
    table = Table(['model', 'ECE'], [[HOSTILE, '0.04125']])
    write(folder / 'calibration' / 'calibration.json', dict(tables=[asdict(table)]))
    layers = {str(layer): [layer, 17, 18] for layer in range(1, 25)}
    rows = [dict(model='a', maps='softmax', tokens=50, layers=layers)]
    write(folder / 'attention_rank' / 'attention_rank.json', dict(summary=rows))
    write(folder / 'sub' / 'my_measure.json', dict(answer=42, versions=dict(x='1.2')))
    write(folder / 'settings.json', dict(answer=43), image=False)
    (folder / 'benchmark.json').write_text('{"timings": [')
    run_tool('analysis/report', folder)
    return folder


@pytest.fixture(scope='module')
def page(run):
    return (run / 'report.html').read_text()


def headings(page):
    return re.findall('<h2>(.*?)</h2>', page)


def test_a_classification_is_reported_by_its_log(run, page):
    result = json.loads((run / 'result.json').read_text())
    assert result['accuracy/top1'] == 72.74
    assert result['curves'] == {'loss': [[1, 2.0]], 'accuracy/top1': [[1, 72.74]]}
    assert headings(page)[0] == 'Training and validation' and '72.74' in page


def test_declared_measurements_come_in_order_and_others_after_them(page):
    assert headings(page) == [
        'Training and validation',
        'Calibration',
        'Rank of the attention maps',
        'Speed and memory',
        'My measure',
        'Not measured',
        'Versions',
        'Configuration',
    ]
    assert '0.04125' in page and '>ECE<' in page
    assert '>42<' in page and '>43<' not in page


def test_images_are_in_the_page_and_described(run, page):
    images = re.findall('<img src="(.*?)" alt="(.*?)">', page)
    assert len(images) == 4
    assert all(source.startswith('data:image/png;base64,iVBOR') for source, _ in images)
    assert all(len(said) > 10 for _, said in images)


def test_what_lacks_is_listed_with_its_command_quoted_for_the_shell(run, page):
    missing = page.partition('id="missing"')[2].partition('</section>')[0]
    titles = re.findall('<h3.*?>(.*?)</h3>', missing)
    assert titles == [
        'Scores',
        'Shape or texture',
        '8 bits',
        'Loss landscape',
        'Beside other runs',
    ]
    command = f"shape_bias.py '{run}/illama_micro_digits.py' '{run}/epoch_30.pth'"
    assert command in html.unescape(missing)


def test_text_of_a_file_is_not_read_as_html(page):
    assert '<script' not in page and '&lt;script&gt;' in page


def test_a_damaged_file_is_named_and_the_rest_is_shown(run, page):
    assert f'{run}/benchmark.json cannot be read: ' in html.unescape(page)


def test_versions_of_the_page_and_of_the_training_are_shown(page):
    versions = page.partition('id="versions"')[2].partition('</section>')[0]
    for name in ('illama_seg', 'torch', 'mmengine', 'mmseg', 'Python'):
        assert f'>{name}<' in versions
    assert '>2.6.0<' in versions and 'gcc' not in versions


def test_further_folders_are_gathered_and_equal_titles_told_apart(tmp_path):
    run = make_run(tmp_path / 'run')
    for folder in ('one', 'two'):
        write(
            tmp_path / folder / 'compare.json',
            {'summary': {'a': {'loss': {'mean': 1}}}},
        )
    page = write_page(run, [tmp_path / 'one', tmp_path / 'two']).read_text()
    found = headings(page)
    assert found[:2] == ['Beside other runs, one', 'Beside other runs, two']
    with pytest.raises(FileNotFoundError, match='no such folder'):
        write_page(run, [tmp_path / 'three'])


def test_a_segmentation_lacks_other_measurements(tmp_path):
    run = make_run(tmp_path / 'run', 'upernet_illama_demo.py')
    run_tool('analysis/report', run, '--gather')
    page = (run / 'report.html').read_text()
    missing = page.partition('id="missing"')[2]
    assert 'Shape or texture' not in missing and 'Calibration' in missing
    assert not (run / 'result.json').exists()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not the work dir of a run'):
        write_page(tmp_path)


# In a browser


@pytest.mark.parametrize('width', [400, 1280])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_browser_shows_it_without_errors_requests_and_overflow(
    browser, run, width, scheme
):
    view = browser.new_page(viewport=dict(width=width, height=800), color_scheme=scheme)
    said, asked = [], []
    view.on('console', lambda message: said.append(message.text))
    view.on('pageerror', lambda error: said.append(str(error)))
    view.on('request', lambda request: asked.append(request.url))
    view.goto((run / 'report.html').as_uri())
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert said == []
    assert [url for url in asked if not url.startswith('data:')] == [view.url]
    assert view.title() == 'a run & more: classification'
    assert view.evaluate('document.documentElement.scrollWidth') <= width
    shown = '[...document.images].every(i => i.naturalWidth && i.alt)'
    assert view.evaluate(shown)
    # A wide table scrolls in a box of its own.
    boxes = "[...document.querySelectorAll('.scroll')]"
    assert view.evaluate(f'{boxes}.some(box => box.scrollWidth > box.clientWidth)')
    background = view.evaluate('getComputedStyle(document.body).backgroundColor')
    bright = sum(map(int, re.findall(r'\d+', background)[:3])) > 384
    assert bright == (scheme == 'light')
    view.close()
