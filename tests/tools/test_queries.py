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
