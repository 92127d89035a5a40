import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_classifier import CONFIG

from illama_seg.studies import measure_shape_bias
from illama_seg.studies.shape_bias import measure as shape_bias
from illama_seg.studies.shape_bias.decisions import (
    Decision,
    read_decisions,
    write_decisions,
)
from illama_seg.studies.subjects import Classifier

CATEGORIES = ('bear', 'cat', 'dog', 'oven')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Every pair of shape and texture: a grey left half, a grey right half."""
    folder = tmp_path_factory.mktemp('conflicts')
    for shape, one in enumerate(CATEGORIES):
        (folder / one).mkdir()
        for texture, other in enumerate(CATEGORIES):
            image = np.zeros((8, 8, 3), np.uint8)
            image[:, :4], image[:, 4:] = 10 * shape, 10 * texture
            Image.fromarray(image).save(folder / one / f'{one}{shape}-{other}1.png')
    return folder


def reads(half):
    """A model that sees only the shape, only the texture, or neither."""

    def model(batch):
        logits = torch.zeros(len(batch), 4)
        halves = dict(shape=batch[:, 0, 0, 0], texture=batch[:, 0, 0, 7])
        if half in halves:
            numbers = (halves[half] / 10).long()
            logits[torch.arange(len(batch)), numbers] = 9.0
        else:  # what is neither
            for row, numbers in enumerate(zip(*halves.values(), strict=True)):
                taken = {int(number) // 10 for number in numbers}
                logits[row, min({0, 1, 2, 3} - taken)] = 9.0
        return logits

    def load(info):
        image = np.asarray(Image.open(info['img_path']))
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float()

    return Classifier(half, model, load, 4, CATEGORIES, 'cpu')


@pytest.fixture
def measure(images, tmp_path, monkeypatch):
    """Measure models that are known by construction; the numbers, table and folder."""
    monkeypatch.setattr(
        shape_bias, 'build_classifier', lambda cfg, source, device: reads(source)
    )

    def call(*sources, folder=images, **options):
        measured = measure_shape_bias(
            CONFIG, sources, images=folder, out=tmp_path, **options
        )
        return *measured, tmp_path

    return call


def test_models_whose_preference_is_known_are_told_apart(measure):
    numbers, table, folder = measure('shape', 'texture', 'neither', batch_size=5)
    shape, texture, neither = numbers['models']
    assert (shape['shape'], shape['texture'], shape['other']) == (12, 0, 0)
    assert (texture['shape'], texture['texture'], texture['other']) == (0, 12, 0)
    assert neither['other'] == 12 and neither['shape_bias'] is None
    assert shape['shape_bias'] == 1 and texture['shape_bias'] == 0
    assert all(row['no_conflict'] == 4 for row in numbers['models'])
    assert json.loads((folder / 'shape_bias.json').read_text()) == numbers
    assert 'shape: shape bias 100.0 %' in table and '| oven ' in table
    assert 'neither: shape bias - %' in table
    with (folder / 'shape_bias.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['category'] for row in rows[:5]] == [*CATEGORIES, 'all']
    assert [row['shape_bias'] for row in rows[3:8:4]] == ['1.0', '0.0']
    assert cv2.imread(str(folder / 'shape_bias.png')) is not None


def test_decisions_written_are_counted_alike_when_read(measure, tmp_path):
    numbers, *_ = measure('shape')
    made = tmp_path / 'cue-conflict_shape_session-1.csv'
    assert len(read_decisions(made)) == 16
    again, _ = measure_shape_bias(decisions=[made], out=tmp_path / 'again')
    (first,), (second,) = numbers['models'], again['models']
    assert {key: first[key] for key in second} == second


def test_published_decisions_stand_beside_and_people_are_one_subject(measure, tmp_path):
    folder = tmp_path / 'raw-data'
    folder.mkdir()
    for name, response in (
        ('subject-01', 'cat'),
        ('subject-02', 'dog'),
        ('resnet50', 'dog'),
    ):
        decision = Decision(name, response, 'cat1-dog1.png')
        write_decisions(folder / f'{name}.csv', [decision])
    numbers, *_ = measure('shape', decisions=[folder])
    rows = {row['name']: row for row in numbers['models']}
    assert list(rows) == ['resnet50', 'people', 'shape']
    assert rows['people']['shape_bias'] == 0.5 and rows['people']['images'] == 2
    assert rows['resnet50']['shape_bias'] == 0


def test_images_of_categories_that_a_model_has_no_class_of_are_left_out(
    measure, tmp_path, monkeypatch
):
    mapping = tmp_path / 'categories.json'
    mapping.write_text(json.dumps({'cat': [1], 'dog': ['dog']}))
    numbers, table, _ = measure('shape', categories=mapping)
    (row,) = numbers['models']
    assert row['images'] == 4 and row['left_out'] == 12 and row['shape'] == 2
    assert row['among'] == ['cat', 'dog'] and '12 left out' in table
    mapping.write_text(json.dumps({'lion': [1], 'tiger': [2]}))
    with pytest.raises(ValueError, match=r'no image of the categories .* lion, tiger'):
        measure('shape', categories=mapping)


def test_models_are_all_looked_at_before_the_first_one_runs(measure, tmp_path):
    with pytest.raises(ValueError, match='shape is there twice'):
        measure('shape', 'shape')
    assert not list(tmp_path.glob('*.csv'))


# Mistakes


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('dog/cat1-dog1.png', "the shape is 'cat' by its name; expected .* folder cat"),
        ('cat/cat.png', 'expected a file named SHAPE<n>-TEXTURE<n>'),
    ],
)
def test_an_image_named_otherwise_is_refused(name, text, measure, tmp_path):
    folder = tmp_path / 'images'
    path = folder / name
    path.parent.mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(path)
    with pytest.raises(ValueError, match=text):
        measure('shape', folder=folder)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(), 'nothing to count: expected a config, a checkpoint'),
        (
            dict(config=CONFIG, sources=['a.pth']),
            r'a\.pth: a model needs a',
        ),
        (dict(decisions=['none.csv']), 'no file of decisions none.csv'),
        (dict(decisions=[Path(__file__).parent / 'none']), 'no file of decisions'),
        (
            dict(config=CONFIG, sources=['a'], images='nowhere', batch_size=1),
            "images='nowhere': no such folder",
        ),
        (dict(decisions=['a.csv'], batch_size=0), 'batch_size=0'),
        (
            dict(decisions=['a.csv'], categories='none.json'),
            "'none.json': no such",
        ),
    ],
)
def test_what_is_missing_is_named(options, text, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        measure_shape_bias(out=tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('text', ['{', '[]', '{"cat": 3}'])
def test_categories_that_are_no_lists_are_refused(text, measure, tmp_path):
    (tmp_path / 'bad.json').write_text(text)
    with pytest.raises(ValueError, match=r'categories=.*bad\.json'):
        measure('shape', categories=tmp_path / 'bad.json')


def test_an_empty_folder_of_decisions_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'no \.csv file in the folder'):
        measure_shape_bias(decisions=[tmp_path])
