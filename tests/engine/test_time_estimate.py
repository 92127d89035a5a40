import re
from types import SimpleNamespace
from unittest import mock

import pytest
from mmengine.logging import MessageHub

from illama_seg.engine import TimeEstimateHook


@pytest.fixture
def runner():
    """At iteration 7 of 100, as if resumed."""
    hub = MessageHub('test_time_estimate')
    return SimpleNamespace(
        iter=7, max_iters=100, message_hub=hub, logger=mock.MagicMock()
    )


def iterate(hook, runner, times):
    hook.before_train(runner)
    for seconds in times:
        runner.message_hub.update_scalar('train/time', seconds)
        runner.message_hub.update_scalar('train/data_time', seconds / 4)
        hook.after_train_iter(runner, runner.iter)
        runner.iter += 1
    return [call.args[0] for call in runner.logger.info.call_args_list]


def test_one_line_after_the_iterations_without_the_first_fifth(runner):
    (line,) = iterate(TimeEstimateHook(10), runner, [60, 60] + [2] * 20)
    assert line.startswith('2 s to an iteration (0.5 s of it waiting for data)')
    assert 'the other 83 take about 0:02:46, until ' in line
    assert re.search(r'until \w{3} \d\d \w{3} \d\d:\d\d, without validation$', line)


def test_a_short_run_has_no_estimate(runner):
    runner.max_iters = 17
    assert not iterate(TimeEstimateHook(10), runner, [1] * 10)


def test_without_mmengines_timer_there_is_none(runner):
    hook = TimeEstimateHook(1)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    runner.logger.info.assert_not_called()


def test_it_looks_at_one_iteration_at_least():
    with pytest.raises(ValueError, match='after=0: expected at least 1'):
        TimeEstimateHook(0)
