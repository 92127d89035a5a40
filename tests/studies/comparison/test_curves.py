import json
import statistics

import cv2
import pytest

from illama_seg.studies import compare_runs


def write(folder, metric, values, losses, start='20260101_000000', first=1):
    """The scalars of a run, as mmengine logs them."""
    rows = [
        {'loss': loss, 'soft_mask_rate': 0.5, 'step': 10 * (first + i)}
        for i, loss in enumerate(losses)
    ]
    rows += [{metric: value, 'step': first + i} for i, value in enumerate(values)]
    path = folder / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, rows)))


def row(table, name):
    (line,) = (line for line in table.splitlines() if line.startswith(f'| {name} '))
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_seeds_become_one_line_with_mean_and_spread(tmp_path):
    for seed, last in enumerate((30.0, 34.0, 41.0)):
        values = [10.0, 50.0, last]
        write(tmp_path / 'scratch' / str(seed), 'mIoU', values, [2.0, 1.0 + seed])
    write(tmp_path / 'one', 'mIoU', [20.0, 25.0], [3.0, 0.5])
    out = tmp_path / 'out'
    table = compare_runs([tmp_path / 'scratch', tmp_path / 'one'], out)
    spread = statistics.stdev([30, 34, 41])
    assert row(table, 'scratch') == [
        'scratch',
        '3',
        '3',
        f'35.0 ± {spread:.1f}',
        '50.0',
        '2.000',
    ]
    assert row(table, 'one') == ['one', '1', '2', '25.0', '25.0', '0.500']
    numbers = json.loads((out / 'compare.json').read_text())
    assert numbers['summary']['scratch']['mIoU']['last'] == [30, 34, 41]
    assert numbers['curves']['one']['one']['mIoU'] == [[1, 20.0], [2, 25.0]]
    assert cv2.imread(str(out / 'compare.png')).shape[0] > 100


def test_a_resumed_run_is_one_curve(tmp_path):
    run = tmp_path / 'run'
    write(run, 'accuracy/top1', [10.0, 99.0], [2.0, 9.0])
    write(run, 'accuracy/top1', [20.0, 30.0], [1.5, 1.0], '20260101_000001', first=2)
    compare_runs([run], tmp_path / 'out')
    numbers = json.loads((tmp_path / 'out' / 'compare.json').read_text())
    curves = numbers['curves']['run']['run']
    assert curves['accuracy/top1'] == [[1, 10.0], [2, 20.0], [3, 30.0]]
    assert curves['loss'] == [[10, 2.0], [20, 1.5], [30, 1.0]]


def test_what_cannot_be_compared_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'no folder {tmp_path}/absent'):
        compare_runs([tmp_path / 'absent'], tmp_path / 'out')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty is no work dir and has none'):
        compare_runs([tmp_path / 'empty'], tmp_path / 'out')
    write(tmp_path / 'a', 'mIoU', [1.0], [1.0])
    write(tmp_path / 'b', 'accuracy/top1', [1.0], [1.0])
    with pytest.raises(ValueError, match='a, b: expected runs that were all evaluated'):
        compare_runs([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'out')
    with pytest.raises(ValueError, match='two runs of one name'):
        compare_runs([tmp_path / 'a', tmp_path / 'a'], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
