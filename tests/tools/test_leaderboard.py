"""The leaderboard's tool: what is finished is kept, what is missing is trained."""

import json

import pytest
from tiny_run import (
    CONFIG,
    data_options,
    fails,
    make_ade20k,
    model_options,
    run_options,
    run_tool,
)

from illama_seg.apis import load_config, parse_cfg_options

pytestmark = pytest.mark.slow


def test_models_are_trained_once_and_compared(tmp_path, capsys):
    data, configs = make_ade20k(tmp_path / 'data'), []
    for name, mask in (('causal', 'soft'), ('open', 'bidirectional')):
        options = [*data_options(data), *model_options(), *run_options()]
        options.append(f'model.backbone.attn_mask={mask}')
        cfg = load_config(CONFIG, parse_cfg_options(options))
        cfg.dump(tmp_path / f'{name}.py')
        configs.append(tmp_path / f'{name}.py')
    out = tmp_path / 'board'
    board = *configs, '--out', out, '--workers', 2
    run_tool('analysis/leaderboard', *board, '--seeds', 1)
    first = sorted(out.glob('*/0/iter_2.pth'))
    assert [path.parent.parent.name for path in first] == ['causal', 'open']
    times = [path.stat().st_mtime_ns for path in first]
    run_tool('analysis/leaderboard', *board, '--seeds', 2)
    text = capsys.readouterr().out
    assert 'minus the first, 95 %' in text and 'leaderboard.html' in text
    assert [path.stat().st_mtime_ns for path in first] == times
    numbers = json.loads((out / 'leaderboard.json').read_text())
    for row in numbers['models']:
        scores = [
            json.loads((out / row['name'] / seed / 'test/scores.json').read_text())
            for seed in '01'
        ]
        assert row['mIoU'] == [found['mIoU'] for found in scores]
        assert row['milliseconds'] > 0 and row['parameters'] > 0
    causal, open_ = (row['mIoU'] for row in numbers['models'])
    each = numbers['models'][1]['difference']['each']
    assert each == [b - a for a, b in zip(causal, open_, strict=True)]
    for name in ('leaderboard', 'compare', 'classes'):
        assert (out / f'{name}.png').is_file()
    changed = fails(
        'analysis/leaderboard', *board, '--cfg-options', 'train_cfg.max_iters=3'
    )
    assert (
        'trained with other settings (train_cfg.max_iters=3, and 2 before)' in changed
    )
