import copy
from collections import Counter, OrderedDict
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from tiny_run import CONFIG, run_tool, tiny_options
from torch import nn

from illama_seg.checkpoints import read_checkpoint
from illama_seg.engine import PlainCheckpointHook


def read_bare(path):
    """What torch reads with nothing allowed, not even by torch itself."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        return torch.load(path, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(allowed)


def saved(content, path):
    """What torch reads, with nothing allowed, of what the hook leaves to be saved."""
    logger = mock.MagicMock()
    PlainCheckpointHook().before_save_checkpoint(
        SimpleNamespace(logger=logger), content
    )
    torch.save(content, path)
    return read_bare(path), logger


def train(data, work_dir, iterations, *arguments):
    options = tiny_options(data, iterations)
    command = ['--work-dir', work_dir, *arguments, '--cfg-options', *options]
    run_tool('train', CONFIG, *command)
    return work_dir / f'iter_{iterations}.pth'


@pytest.fixture(scope='module')
def trained(run, tmp_path_factory):
    """A checkpoint of tools/train.py, and the curves of the run it is of."""
    path = train(run.data, tmp_path_factory.mktemp('plain'), 2)
    scalars = MessageHub.get_current_instance().log_scalars.items()
    curves = {name: [part.copy() for part in curve.data] for name, curve in scalars}
    return SimpleNamespace(path=path, curves=curves)


def test_a_checkpoint_of_the_training_tool_is_read_with_nothing_allowed(trained):
    content = read_bare(trained.path)
    assert {'meta', 'state_dict', 'message_hub', 'optimizer', 'param_schedulers'} <= (
        content.keys()
    )
    assert content['state_dict']._metadata['backbone']['grid_size'] == (4, 4)
    curves = content['message_hub']['log_scalars']
    assert curves.keys() >= {'train/loss', 'train/lr'}
    for name, curve in curves.items():
        log, count = trained.curves[name]
        np.testing.assert_array_equal(curve['log_history'], log)
        np.testing.assert_array_equal(curve['count_history'], count)


@pytest.mark.parametrize('form', ['plain', 'with mmengine objects'])
def test_curves_go_on_after_resuming(form, trained, run, tmp_path):
    path = tmp_path / trained.path.name
    old = torch.load(trained.path, weights_only=True)
    if form != 'plain':  # as it was saved before
        scalars = old['message_hub']['log_scalars']
        for name, curve in scalars.items():
            log, count = (curve[f'{kind}_history'] for kind in ('log', 'count'))
            scalars[name] = HistoryBuffer(log.numpy(), count.numpy())
        old['message_hub']['runtime_info']['best'] = np.float64(0.5)
    torch.save(old, path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    new = read_bare(train(run.data, tmp_path, 3, '--resume'))
    loss = MessageHub.get_current_instance().get_scalar('train/loss')
    assert loss.mean() == loss.data[0].mean()
    before = read_checkpoint(path)['message_hub']['log_scalars']
    after = new['message_hub']['log_scalars']
    for name in ('train/loss', 'train/lr', 'train/decode.loss_ce'):
        assert len(after[name]['log_history']) == 3
        for kind in ('log_history', 'count_history'):
            assert torch.equal(after[name][kind][:2], before[name][kind])
            assert after[name][kind].dtype == before[name][kind].dtype
    if form != 'plain':
        assert MessageHub.get_current_instance().get_info('best') == 0.5


def test_numbers_containers_and_their_types(tmp_path):
    state = OrderedDict(nn.BatchNorm2d(2).state_dict())
    state._metadata = OrderedDict({'': {'version': 2, 'grid_size': (2, 3)}})
    content = dict(
        meta=dict(
            seed=np.int64(3),
            best=np.float32(0.5),
            palette=np.array([[1, 2, 3]]),
            path=Path('a/b'),
            config=ConfigDict(a=dict(b=1)),
            classes=('a', 'b'),
            nothing=None,
        ),
        param_schedulers=[dict(milestones=Counter([2, 2, 5]), factor=0.1)],
        optimizer=dict(state={0: dict(step=torch.tensor(1.0))}),
        state_dict=state,
    )
    before = copy.deepcopy(content)
    found, logger = saved(dict(content), tmp_path / 'x.pth')
    logger.log.assert_not_called()
    assert found['meta'] == dict(
        seed=3,
        best=0.5,
        palette=[[1, 2, 3]],
        path='a/b',
        config={'a': {'b': 1}},
        classes=('a', 'b'),
        nothing=None,
    )
    milestones = found['param_schedulers'][0]['milestones']
    assert type(milestones) is Counter and milestones == Counter([2, 2, 5])
    assert found['optimizer'] == content['optimizer']
    assert type(found['state_dict']) is OrderedDict
    assert found['state_dict']._metadata == state._metadata
    assert content['meta'].keys() == before['meta'].keys()
    assert type(content['meta']['seed']) is np.int64  # the run's own


def test_what_has_no_plain_form_is_left_out_with_a_warning(tmp_path):
    content = dict(meta=dict(hook=lambda: 0, kept=[1, object(), 2]), odd=object())
    found, logger = saved(content, tmp_path / 'x.pth')
    assert found == dict(meta=dict(kept=[1, 2]))
    said = ' '.join(map(str, logger.log.call_args.args))
    for place in ('meta.hook (builtins.function)', 'meta.kept.1', 'odd (builtins.obj'):
        assert place in said


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_plain_data_stays_what_it_is(tmp_path_factory, value):
    path = tmp_path_factory.mktemp('plain') / 'x.pth'
    found, logger = saved({'meta': value}, path)
    logger.log.assert_not_called()
    assert repr(found) == repr({'meta': value})  # nan is not equal to itself
