import json
from types import SimpleNamespace
from unittest import mock

import pytest

from illama_seg.engine import SafeLoggerHook


@pytest.mark.parametrize('rank', [0, 1])
def test_one_process_of_a_test_writes_the_metrics(rank, tmp_path):
    """Of two that write one file the longer's end may stay behind the shorter's."""
    hook = SafeLoggerHook()
    hook.json_log_path = 'metrics.json'
    found = {'accuracy/top1': 50.0}, 'top-1 50'
    runner = SimpleNamespace(
        log_processor=mock.Mock(get_log_after_epoch=mock.Mock(return_value=found)),
        test_dataloader=[0],
        logger=mock.Mock(),
        log_dir=str(tmp_path),
    )
    with mock.patch('mmengine.dist.utils.get_rank', return_value=rank):
        hook.after_test_epoch(runner)
    files = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert files == ([{'accuracy/top1': 50.0}] if rank == 0 else [])
