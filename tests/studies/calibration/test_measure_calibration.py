import csv
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmseg.apis import inference_model
from sklearn.metrics import log_loss
from tiny_classifier import CONFIG, OPTIONS, build, save
from torchmetrics.classification import MulticlassCalibrationError

from illama_seg.apis import load_config, load_segmentor
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.studies import build_classifier, measure_calibration
from illama_seg.studies.calibration.measure import FILES


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Checkpoint, folder, numbers and table of a random classifier of digits."""
    folder = tmp_path_factory.mktemp('calibration')
    model = build()
    model.head.fc.weight.data.normal_(std=0.4)
    checkpoint = save(model, folder / 'run' / 'digits.pth')
    numbers, table = measure_calibration(
        CONFIG, [checkpoint], out=folder / 'out', num_bins=10, cfg_options=OPTIONS
    )
    return checkpoint, folder / 'out', numbers, table


def test_a_classifiers_figures_are_those_of_torchmetrics(measured):
    checkpoint, _, numbers, _ = measured
    cfg = load_config(CONFIG, OPTIONS)
    classifier = build_classifier(cfg, checkpoint, 'cpu')
    data = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=[]))
    infos = [data.get_data_info(index) for index in range(50)]
    logits = classifier.logits([classifier.load(info) for info in infos])
    labels = torch.tensor([info['gt_label'] for info in infos])
    probabilities = logits.softmax(1)
    metric = MulticlassCalibrationError(10, 10)
    found = numbers['models'][0]['all']
    assert found['samples'] == 50
    assert found['ece'] == pytest.approx(float(metric(probabilities, labels)), abs=1e-5)
    nll = log_loss(labels, probabilities.double(), labels=range(10))
    assert found['nll'] == pytest.approx(nll, rel=1e-4)


def test_the_temperature_is_judged_on_images_it_was_not_fitted_to(measured):
    (model,) = measured[2]['models']
    assert model['images'] == 50 and model['held_out'] == 25
    assert model['before']['samples'] == model['after']['samples'] == 25
    # Random and sharp: far too sure. A temperature corrects it and changes no guess.
    assert model['temperature'] > 2
    assert model['after']['accuracy'] == model['before']['accuracy']
    assert model['after']['nll'] < model['before']['nll']
    assert model['after']['ece'] < model['before']['ece']


def test_files_and_table_hold_the_same_numbers(measured):
    _, folder, numbers, table = measured
    assert json.loads((folder / 'calibration.json').read_text()) == numbers
    (model,) = numbers['models']
    assert (model['name'], model['kind']) == ('run/digits', 'classification')
    with (folder / 'calibration_per_class.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['class'] for row in rows] == list('0123456789')
    assert sum(int(row['samples']) for row in rows) == 50
    assert f'{model["all"]["ece"]:.4f}' in table and 'after, T' in table
    image = cv2.imread(str(folder / FILES[1]))
    assert image.shape[0] > image.shape[1] > 400


def test_earlier_results_are_shown_beside(measured, tmp_path):
    checkpoint, folder, numbers, _ = measured
    both, table = measure_calibration(
        CONFIG,
        [checkpoint],
        out=tmp_path,
        beside=[folder / 'calibration.json'],
        num_bins=10,
        cfg_options=OPTIONS,
    )
    assert both['models'] == 2 * numbers['models'] and table.count('after, T') == 2
    wide, narrow = (
        cv2.imread(str(path / 'calibration.png')).shape[1]
        for path in (tmp_path, folder)
    )
    assert wide > narrow


def test_another_seed_holds_other_images_out(measured, tmp_path):
    checkpoint, *_ = measured
    numbers, _ = measure_calibration(
        CONFIG, [checkpoint], out=tmp_path, num_bins=10, seed=1, cfg_options=OPTIONS
    )
    (one,), (other,) = measured[2]['models'], numbers['models']
    assert one['all']['ece'] == pytest.approx(other['all']['ece'])
    assert one['before']['nll'] != other['before']['nll']


def test_class_255_of_a_classification_is_counted(monkeypatch, tmp_path):
    labels = torch.tensor([255, 3])

    class Data:
        metainfo = dict(classes=range(300))

        def __len__(self):
            return 2

        def get_data_info(self, index):
            return dict(img=np.zeros((8, 8), np.uint8), gt_label=labels[index])

    options = OPTIONS | {'model.head.num_classes': 300}
    checkpoint = save(build(options), tmp_path / 'a.pth')
    monkeypatch.setattr(DATASETS, 'build', lambda settings: Data())
    numbers, _ = measure_calibration(
        CONFIG, [checkpoint], out=tmp_path, cfg_options=options
    )
    assert numbers['models'][0]['all']['samples'] == 2


# Segmentation


def test_a_segmentors_pixels_are_counted_but_for_those_not_annotated(run, tmp_path):
    options = {'test_dataloader.dataset.data_root': str(run.data)}
    numbers, _ = measure_calibration(
        run.config, [run.checkpoint], out=tmp_path, cfg_options=options
    )
    (model,) = numbers['models']
    assert model['kind'] == 'segmentation' and model['images'] == 2
    segmentor = load_segmentor(run.config, run.checkpoint, 'cpu')
    rows, labels = [], []
    for image, label, _ in LabelledImages(load_config(run.config), 'test'):
        logits = inference_model(segmentor, image).seg_logits.data
        rows.append(logits.flatten(1).T[label.flatten() != 255])
        labels.append(label[label != 255])
    probabilities = torch.cat(rows).softmax(1)
    labels = torch.from_numpy(np.concatenate(labels)).long()
    assert model['all']['samples'] == len(labels) < 2 * label.size
    metric = MulticlassCalibrationError(150, 15)
    expected = float(metric(probabilities, labels))
    assert model['all']['ece'] == pytest.approx(expected, abs=1e-4)
    hits = (probabilities.argmax(1) == labels).float().mean()
    assert model['all']['accuracy'] == pytest.approx(float(hits), abs=1e-3)
    assert len(model['per_class']) == 150


# Mistakes


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_bins=0), 'num_bins=0: expected at least 1'),
        (dict(batch_size=0), 'batch_size=0'),
        (dict(held_out=1.0), 'held_out=1.0: expected a share between 0 and 1'),
        (dict(seed=-1), 'seed.-1: expected a number from 0 on'),
        (dict(beside=['none.json']), "beside='none.json': no such file"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, text, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        measure_calibration(CONFIG, ['a.pth'], out=tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


def test_a_folder_that_cannot_be_written_is_met_before_anything_is_measured():
    with pytest.raises(ValueError, match=r'/proc/none.: cannot be written'):
        measure_calibration(CONFIG, ['a.pth'], out='/proc/none')


@pytest.mark.parametrize('text', ['{', '[]', '{"models": [{"name": "a"}]}'])
def test_a_file_of_another_kind_beside_is_refused(text, tmp_path):
    (tmp_path / 'other.json').write_text(text)
    with pytest.raises(ValueError, match=r'other\.json.: expected the calibr'):
        measure_calibration(
            CONFIG, ['a'], out=tmp_path, beside=[tmp_path / 'other.json']
        )


def test_a_file_that_lacks_a_figure_of_the_table_is_met_first(measured, tmp_path):
    numbers = json.loads((measured[1] / 'calibration.json').read_text())
    del numbers['models'][0]['all']['nll']
    (tmp_path / 'other.json').write_text(json.dumps(numbers))
    with pytest.raises(ValueError, match=r'other\.json.: expected .*KeyError: .nll'):
        measure_calibration(
            CONFIG, ['a'], out=tmp_path, beside=[tmp_path / 'other.json']
        )


def test_a_model_that_fails_does_not_cost_the_one_before(measured, tmp_path):
    checkpoint, _, numbers, _ = measured
    sources = [checkpoint, tmp_path / 'none.pth']
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        measure_calibration(
            CONFIG, sources, out=tmp_path, num_bins=10, cfg_options=OPTIONS
        )
    kept = json.loads((tmp_path / 'calibration.json').read_text())
    assert kept['models'] == numbers['models']
    assert all((tmp_path / name).is_file() for name in FILES)


def test_one_image_and_other_classes_are_refused(measured, tmp_path):
    checkpoint, *_ = measured
    one = OPTIONS | {'test_dataloader.dataset.indices': 1}
    with pytest.raises(ValueError, match=r'1 image in the test data .* at least 2'):
        measure_calibration(CONFIG, [checkpoint], out=tmp_path, cfg_options=one)
    options = OPTIONS | {'model.head.num_classes': 12}
    other = save(build(options), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'has 12 classes, the test data .* 10'):
        measure_calibration(CONFIG, [other], out=tmp_path, cfg_options=options)
