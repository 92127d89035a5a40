"""Errors of users: what Python shows, what a tool shows, what keeps its traceback."""

import pickle
from argparse import Namespace
from importlib import import_module
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from illama_seg.apis.command_line import COMMANDS, as_option, run
from illama_seg.datasets import CamVidDataset, CheckedADE20KDataset, ScenesDataset
from illama_seg.errors import MissingFileError, UserError

ROOT = Path(__file__).parents[2]


class Fails(Dataset):
    """A data set whose samples fail in the worker that loads them."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


def load(args):
    next(iter(DataLoader(Fails(args.error), num_workers=1)))


def fail(args):
    raise args.error


def arguments(error):
    """A tool's arguments: the error to raise, and two options."""
    return Namespace(error=error, num_images=0, tta=True)


@pytest.mark.parametrize(
    ('error', 'shown', 'printed'),
    [
        (UserError('too few'), 'too few', 'too few'),
        (UserError('too few', num_images=0), 'num_images=0: ', '--num-images 0: '),
        (UserError('no pipeline', tta=True), 'tta=True: ', '--tta: '),
        (UserError('too small', batch=1), 'batch=1: ', 'batch=1: too small'),
        (MissingFileError('no file a.pth'), 'no file', 'no file a.pth'),
        (ConnectionError('could not download a'), 'could', 'could not download a'),
        (FileNotFoundError(2, 'No such file', 'a'), '[Errno 2]', 'a: No such file'),
    ],
)
def test_what_a_user_can_fix_is_printed_in_one_line(error, shown, printed, capsys):
    assert str(error).startswith(shown)
    with pytest.raises(SystemExit) as end:
        run(fail, arguments(error))
    text = capsys.readouterr().err
    assert end.value.code == 2
    assert text.startswith(f'error: {printed}') and len(text.splitlines()) == 1


@pytest.mark.parametrize('error', [ValueError('bug'), OSError(28, 'No space')])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run(fail, arguments(error))


@pytest.mark.parametrize('kind', [UserError, MissingFileError])
def test_an_error_of_a_worker_process_is_printed_without_its_traceback(kind, capsys):
    with pytest.raises(SystemExit):
        run(load, arguments(kind('a.jpg is damaged')))
    assert capsys.readouterr().err == 'error: a.jpg is damaged\n'


def test_an_error_from_another_process_keeps_its_parameter():
    error = pickle.loads(pickle.dumps(UserError('too few', num_images=0)))
    assert as_option(error, 'num_images') == '--num-images 0: too few'


@pytest.mark.parametrize('call', COMMANDS)
def test_a_call_in_a_message_is_one_of_python_and_a_command_of_a_tool(call, capsys):
    module, _, name = call.partition('(')[0].rpartition('.')
    assert callable(getattr(import_module(module), name))
    assert (ROOT / COMMANDS[call].split()[1]).is_file()
    error = MissingFileError(f'no data. Get it: {call}')
    assert call in str(error)
    with pytest.raises(SystemExit):
        run(fail, arguments(error))
    assert capsys.readouterr().err == f'error: no data. Get it: {COMMANDS[call]}\n'


@pytest.mark.parametrize('kind', [CamVidDataset, CheckedADE20KDataset, ScenesDataset])
def test_data_sets_name_no_tool_but_a_call_that_the_tools_translate(kind):
    assert 'tools/' not in kind.HOW_TO_GET
    assert sum(call in kind.HOW_TO_GET for call in COMMANDS) == 1
