import shutil

import pytest
from tiny_run import CONFIG, data_options, make_ade20k, run_options, run_tool

from illama_seg.datasets.prepare import prepare_ade20k


@pytest.fixture
def data(tmp_path):
    return make_ade20k(tmp_path / 'ade20k')


def options(data):
    options = [o for o in run_options() if 'dataset.pipeline' in o]
    return ['--cfg-options', *data_options(data), *options]


def exits(capsys, tool, *arguments):
    """Exit status of a tool, and what it printed or ended with."""
    with pytest.raises(SystemExit) as error:
        run_tool(tool, *arguments)
    code, out = error.value.code, capsys.readouterr().out
    return (2, code) if isinstance(code, str) else (int(code), out)


def test_check_dataset_ends_well_where_there_is_no_fault(data, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = [CONFIG, '--out', out, '--num-images', '2', *options(data)]
    code, text = exits(capsys, 'data/check_dataset', *arguments)
    assert code == 0
    assert 'faults: 0' in text and 'contact_sheet.png, report.json' in text
    assert (out / 'contact_sheet.png').is_file()


def test_check_dataset_ends_with_1_and_names_the_faults(data, tmp_path, capsys):
    (data / 'annotations/training/training_1.png').unlink()
    file = data / 'images' / 'validation' / 'validation_0.jpg'
    file.write_bytes(file.read_bytes()[:-300])
    arguments = [CONFIG, '--out', tmp_path / 'out', *options(data)]
    code, text = exits(capsys, 'data/check_dataset', *arguments)
    assert code == 1
    assert 'fault: train: image without annotation' in text
    assert 'fault: val: image unreadable' in text and 'validation_0.jpg' in text


def test_check_dataset_names_a_missing_folder(data, tmp_path, capsys):
    shutil.rmtree(data / 'images' / 'training')
    arguments = [CONFIG, '--out', tmp_path / 'out', *options(data)]
    code, message = exits(capsys, 'data/check_dataset', *arguments)
    assert code == 2
    assert message.startswith('error: no folder') and 'prepare_ade20k.py' in message


def test_browse_prints_where_the_picture_is(data, tmp_path, capsys):
    out = tmp_path / 'browse.png'
    arguments = ['--num-images', '1', '--draws', '1', *options(data)]
    run_tool('data/browse', CONFIG, '--out', out, *arguments)
    assert capsys.readouterr().out.strip() == str(out)
    assert out.is_file()


def test_browse_augments_by_the_seed(data, tmp_path):
    pictures = []
    for seed in ('0', '0', '1'):
        out = tmp_path / 'browse.png'
        arguments = ['--num-images', '1', '--draws', '1', '--seed', seed]
        run_tool('data/browse', CONFIG, '--out', out, *arguments, *options(data))
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_folder_that_cannot_be_written_is_met_first(data, capsys):
    arguments = [CONFIG, '--out', '/proc/none', *options(data)]
    code, message = exits(capsys, 'data/check_dataset', *arguments)
    assert code == 2
    assert message.startswith('error: --out /proc/none: cannot be written')


def test_prepare_ade20k_says_what_is_there(data, tmp_path, capsys, monkeypatch):
    counts = dict(training=4, validation=2)
    monkeypatch.setattr(prepare_ade20k, '__defaults__', (None, counts, 1))
    out = tmp_path / 'ade'
    run_tool('data/prepare_ade20k', data, '--out', out, '--workers', '1')
    text = capsys.readouterr().out
    assert f'{out}: 4 training, 2 validation images\n' in text
    assert f'{out}_report.txt' in text
    run_tool('data/prepare_ade20k', '--out', out)
    assert 'there already' in capsys.readouterr().out


def test_prepare_ade20k_ends_with_a_message(data, tmp_path, capsys):
    arguments = [data, '--out', tmp_path / 'ade']
    code, message = exits(capsys, 'data/prepare_ade20k', *arguments)
    assert code == 2 and message.startswith('error: ')
    assert 'images/training has 4, expected 20,210' in message
