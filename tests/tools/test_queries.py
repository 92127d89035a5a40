"""A model of class tokens through training, test, inference, report and export."""

import json

import numpy as np
import pytest
from tiny_run import ROOT, data_options, make_ade20k, run_options, run_tool

from illama_seg.apis import load_config, load_segmentor, predict, read_image
from illama_seg.deploy import ExportedModel

CONFIG = ROOT / 'configs/queries/illama_tiny_queries_ade20k.py'
MODEL = [
    'model.backbone.arch._delete_=True',
    'model.backbone.arch.embed_dims=24',
    'model.backbone.arch.num_layers=2',
    'model.backbone.arch.num_heads=3',
    'model.backbone.out_indices=(1,)',
    'model.backbone.img_size=64',
    'model.backbone.init_cfg=None',
    'model.decode_head.in_channels=24',
    'model.decode_head.channels=16',
    'model.data_preprocessor.size=(64,64)',
    'model.test_cfg.crop_size=(64,64)',
    'model.test_cfg.stride=(43,43)',
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Data, config and checkpoint of a short training."""
    folder = tmp_path_factory.mktemp('queries')
    data = make_ade20k(folder / 'data')
    options = [*data_options(data), *MODEL, *run_options()]
    run_tool('train', CONFIG, '--work-dir', folder / 'run', '--cfg-options', *options)
    config = folder / 'run' / CONFIG.name
    return data, config, folder / 'run' / 'iter_2.pth'


def images(data):
    return data / 'images' / 'validation'


@pytest.mark.parametrize('options', [[], ['--tta']], ids=str)
def test_it_is_tested(run, tmp_path, options):
    run_tool('test', *run[1:], '--work-dir', tmp_path, *options)
    assert json.loads((tmp_path / 'scores.json').read_text())['mIoU'] >= 0


def test_it_segments_and_reports(run, tmp_path):
    run_tool('infer', *run[1:], images(run[0]), '--out', tmp_path)
    assert len(list((tmp_path / 'labels').iterdir())) == 2
    run_tool('analysis/report', run[2].parent)
    assert (run[2].parent / 'report.html').is_file()


def test_its_cost_and_calibration_are_measured(run, tmp_path):
    out = tmp_path / 'benchmark.json'
    run_tool('analysis/benchmark', *run[1:], '--out', out, '--repeat', '1')
    (row,) = json.loads(out.read_text())['timings']
    assert row['seconds'] > 0
    run_tool('analysis/calibration', *run[1:], '--out', tmp_path / 'calibration')
    assert any((tmp_path / 'calibration').iterdir())


def test_its_runs_are_compared(run, tmp_path):
    run_tool('analysis/compare', run[2].parent, '--out', tmp_path)
    assert json.loads((tmp_path / 'classes.json').read_text())
    assert (tmp_path / 'images.png').is_file()


def test_the_loss_around_it_is_drawn(run, tmp_path):
    small = '--points', '3', '--num-images', '2'
    run_tool('analysis/loss_landscape', *run[1:], '--out', tmp_path, *small)
    assert json.loads((tmp_path / 'loss_landscape.json').read_text())


def test_it_has_8_bits(run, tmp_path):
    quantized = tmp_path / 'w8a8.pth'
    run_tool('quantize', 'ptq', *run[1:], '--out', quantized, '--calib', '2')
    out = tmp_path / 'eval.json'
    run_tool('quantize', 'eval', *run[1:], quantized, '--out', out)
    names = [row['precision'] for row in json.loads(out.read_text())['rows']]
    assert names[0] == 'fp32' and names[-1] == 'W8A8, simulated'


def test_a_page_shows_it(run):
    pytest.importorskip('gradio')
    from illama_seg.web import open_models

    (model,) = open_models([run[2].parent])
    path = sorted(images(run[0]).iterdir())[0]
    segmentor = load_segmentor(load_config(run[1]), run[2], 'cpu')
    labels = predict(segmentor, read_image(path))
    np.testing.assert_array_equal(model.segment(path)[1], labels)


@pytest.mark.parametrize(('kind', 'suffix'), [('onnx', 'onnx'), ('openvino', 'xml')])
def test_it_is_exported_for_any_size(run, tmp_path, kind, suffix):
    pytest.importorskip('onnxscript')
    pytest.importorskip('openvino')
    run_tool('export', *run[1:], '--to', kind, '--out', tmp_path, '--dynamic')
    (path,) = tmp_path.glob(f'*.{suffix}')
    image = sorted(images(run[0]).iterdir())[0]
    model = load_segmentor(load_config(run[1]), run[2], 'cpu')
    pixels = read_image(image)
    found = ExportedModel(path).segment(pixels)
    assert np.mean(found == predict(model, pixels)) > 0.999
