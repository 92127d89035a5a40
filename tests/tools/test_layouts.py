"""Data listed in files, and names that end as Cityscapes' do, through the tools."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from test_binary import CONFIG
from tiny_run import ROOT, fails, make_ade20k, run_tool

CITIES = 'aachen', 'bonn'
IMAGE, LABELS = '_leftImg8bit.png', '_gtFine_labelTrainIds.png'


@pytest.fixture(scope='module')
def cities(tmp_path_factory):
    """Data in Cityscapes' layout: a city's folder, several files of an annotation."""
    folder = tmp_path_factory.mktemp('cities')
    source = make_ade20k(folder / 'source')
    for split in ('training', 'validation'):
        images = sorted((source / 'images' / split).iterdir())
        for index, path in enumerate(images):
            city = CITIES[index % 2]
            labels = np.asarray(
                Image.open(source / f'annotations/{split}/{path.stem}.png')
            )
            for kind, ending, array in (
                ('leftImg8bit', IMAGE, cv2.imread(str(path))),
                ('gtFine', LABELS, (labels == 3).astype(np.uint8)),
                (
                    'gtFine',
                    '_gtFine_color.png',
                    np.full((*labels.shape, 3), 9, np.uint8),
                ),
            ):
                target = (
                    folder / 'data' / kind / split / city / f'{city}_{index}{ending}'
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(target), array)
    return folder / 'data'


@pytest.fixture
def config(cities, tmp_path):
    """Write a config of this layout; ``lists`` are the texts of its lists."""

    def write(lists=(), kind='CheckedSegDataset', data=cities):
        text = CONFIG.format(root=ROOT, data=data)
        for old, new in (
            ('images/{split}', 'leftImg8bit/{split}'),
            ('annotations/{split}', 'gtFine/{split}'),
            ("img_suffix='.jpg'", f"img_suffix='{IMAGE}'"),
            ("seg_map_suffix='.png'", f"seg_map_suffix='{LABELS}'"),
            ("type='CheckedSegDataset'", f"type='{kind}'"),
        ):
            assert old in text
            text = text.replace(old, new)
        for split, content in lists:
            path = tmp_path / f'{split}.txt'
            path.write_bytes(content)
            part = dict(training='train', validation='val').get(split, 'test')
            text += f"{part}_dataloader['dataset']['ann_file'] = {str(path)!r}\n"
        if 'validation' in dict(lists):
            text += 'test_dataloader = val_dataloader\n'
        path = tmp_path / 'cities.py'
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope='module')
def checkpoint(cities, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    text = CONFIG.format(root=ROOT, data=cities)
    text = text.replace('images/', 'leftImg8bit/').replace('annotations/', 'gtFine/')
    text = text.replace("'.jpg'", f"'{IMAGE}'").replace(
        "suffix='.png'", f"suffix='{LABELS}'"
    )
    (folder / 'cities.py').write_text(text)
    run_tool('train', folder / 'cities.py', '--work-dir', folder / 'run')
    return folder / 'run' / 'iter_4.pth'


EVALUATE = 'analysis/evaluate_predictions'


def scores(folder):
    return json.loads((folder / 'scores.json').read_text())


def test_predictions_are_paired_with_annotations_by_the_configs_endings(
    cities, config, checkpoint, tmp_path
):
    out = tmp_path / 'out'
    run_tool('test', config(), checkpoint, '--work-dir', tmp_path, '--out', out)
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob('*.png'))
    assert written == [f'{city}/{city}_{i}{IMAGE}' for i, city in enumerate(CITIES)]
    arguments = [out, cities / 'gtFine' / 'validation', '--out', tmp_path / 'again']
    run_tool(EVALUATE, *arguments, '--config', config())
    expected = scores(tmp_path)
    expected.pop('precision')
    assert scores(tmp_path / 'again') == expected


def test_what_infer_writes_is_paired_too_and_endings_are_options(
    cities, config, checkpoint, tmp_path
):
    images = cities / 'leftImg8bit' / 'validation'
    run_tool('infer', config(), checkpoint, images, '--out', tmp_path)
    folders = [tmp_path / 'labels', cities / 'gtFine' / 'validation']
    run_tool(EVALUATE, *folders, '--config', config(), '--out', tmp_path / 'config')
    by_number = ['--num-classes', 2, '--from-zero', '--out', tmp_path / 'options']
    endings = ['--img-suffix', IMAGE, '--seg-map-suffix', LABELS]
    run_tool(EVALUATE, *folders, *by_number, *endings)
    assert scores(tmp_path / 'config')['images'] == 2
    assert scores(tmp_path / 'config')['mIoU'] == scores(tmp_path / 'options')['mIoU']


def test_without_endings_the_message_shows_both_names_and_the_ways_out(
    cities, config, checkpoint, tmp_path
):
    images = cities / 'leftImg8bit' / 'validation'
    run_tool('infer', config(), checkpoint, images, '--out', tmp_path)
    folders = [tmp_path / 'labels', cities / 'gtFine' / 'validation']
    message = fails(EVALUATE, *folders, '--num-classes', 2, '--from-zero')
    for text in (IMAGE, 'gtFine', 'name a config', 'img_suffix and seg_map_suffix'):
        assert text in message


def test_lists_choose_what_is_trained_tested_drawn_and_scored(
    cities, config, tmp_path, capsys
):
    train = '\ufeffaachen/aachen_0\r\n\r\nbonn/bonn_1_leftImg8bit.png\r\n'.encode()
    absolute = cities / 'leftImg8bit' / 'validation' / 'bonn' / 'bonn_1'
    listed = config([('training', train), ('validation', str(absolute).encode())])
    run_tool('train', listed, '--work-dir', tmp_path / 'run')
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'train data     2 images' in log.read_text()
    assert 'val data       1 images' in log.read_text()
    with pytest.raises(SystemExit) as end:
        run_tool('data/check_dataset', listed, '--out', tmp_path / 'check')
    assert not end.value.code
    found = json.loads((tmp_path / 'check' / 'report.json').read_text())['splits']
    assert [found[split]['images'] for split in ('train', 'val')] == [2, 1]
    run_tool('data/browse', listed, '--out', tmp_path / 'browse.png')
    assert (tmp_path / 'browse.png').is_file()
    out = tmp_path / 'labels'
    model = [listed, tmp_path / 'run' / 'iter_4.pth']
    run_tool('test', *model, '--work-dir', tmp_path / 'test', '--out', out)
    assert [path.name for path in out.rglob('*.png')] == [f'bonn_1{IMAGE}']
    annotations = cities / 'gtFine' / 'validation'
    arguments = ['--config', listed, '--out', tmp_path / 'again']
    run_tool(EVALUATE, out, annotations, *arguments)
    assert scores(tmp_path / 'again')['images'] == 1
    assert scores(tmp_path / 'again')['mIoU'] == scores(tmp_path / 'test')['mIoU']


def test_a_list_with_files_that_are_not_there_is_met_before_the_training(
    config, tmp_path, capsys
):
    listed = config([('training', b'aachen/aachen_0\nbonn/aachen_0\n')])
    message = fails('train', listed, '--work-dir', tmp_path / 'run')
    assert message.startswith(
        f'error: ann_file={str(tmp_path / "training.txt")!r}: 1 of 2'
    )
    assert 'line 2: no image' in message and f'bonn/aachen_0{IMAGE}' in message
    with pytest.raises(SystemExit) as end:
        run_tool('data/check_dataset', listed, '--out', tmp_path / 'check')
    assert end.value.code == 1
    assert 'fault: train: listed, but not there' in capsys.readouterr().out


def test_mmsegs_own_data_set_is_checked_as_it_reads_its_list(config, tmp_path, capsys):
    lists = [('training', b'aachen/aachen_0\n\nbonn/bonn_1\nbonn/bonn_1\n')]
    with pytest.raises(SystemExit) as end:
        check = [config(lists, 'BaseSegDataset'), '--out', tmp_path / 'check']
        run_tool('data/check_dataset', *check)
    assert end.value.code == 1
    text = capsys.readouterr().out
    assert 'line 2 is blank: BaseSegDataset takes it for a name' in text
    assert (
        'warning: train: listed again' in text
        and 'bonn_1_leftImg8bit.png 2 times' in text
    )
    assert '_leftImg8bit.png cannot be read: there is no such file' in text


def test_the_images_of_a_list_lack_annotations_in_another_folder(
    cities, config, checkpoint, tmp_path
):
    images = cities / 'leftImg8bit' / 'validation'
    listed = config([('validation', b'aachen/aachen_0\nbonn/bonn_1\n')])
    run_tool('infer', listed, checkpoint, images, '--out', tmp_path)
    other = shutil.copytree(cities / 'gtFine' / 'validation', tmp_path / 'other')
    shutil.rmtree(other / 'bonn')
    arguments = [
        tmp_path / 'labels',
        other,
        '--config',
        listed,
        '--out',
        tmp_path / 'e',
    ]
    message = fails(EVALUATE, *arguments)
    assert '1 of the 2 images listed have no annotation' in message
    assert 'bonn/bonn_1' in message
    run_tool(EVALUATE, *arguments, '--partial')
    assert scores(tmp_path / 'e')['images'] == 1
