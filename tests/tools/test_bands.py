"""Images of one, four and five bands and of 16 bits, through every tool."""

import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmseg.apis import MMSegInferencer, inference_model
from tiny_bands import SIZE, make_config, make_data, planes
from tiny_run import fails, run_tool

from illama_seg.apis import load_config, load_segmentor, predict, read_image
from illama_seg.backbones import ILLaMA
from illama_seg.datasets import LabelledImages
from illama_seg.studies import benchmark
from illama_seg.studies.common import build_model, image_channels
from illama_seg.studies.complexity.counts import count_multiply_accumulates

BANDS = "type='BandsPreProcessor', mean=[100.0] * {0}, std=[60.0] * {0}"
KINDS = {
    'grey': dict(
        data=dict(suffix='.png', bands=1),
        loader="color_type='grayscale'",
        preprocessor='mean=[100.0], std=[60.0]',
    ),
    'four': dict(
        data=dict(suffix='.png', bands=4),
        loader="color_type='unchanged'",
        preprocessor=BANDS.format(4),
    ),
    'five': dict(
        data=dict(suffix='.tif', bands=5, write=planes),
        loader="imdecode_backend='tifffile', to_float32=True",
        preprocessor=BANDS.format(5) + ', bgr_to_rgb=False',
    ),
    'deep': dict(
        data=dict(suffix='.png', bands=3, scale=16, dtype=np.uint16),
        loader="color_type='unchanged', to_float32=True",
        preprocessor='mean=[1600.0] * 3, std=[960.0] * 3',
    ),
}


@pytest.fixture(scope='module', params=KINDS)
def trained(request, tmp_path_factory):
    """Config, data and checkpoint of a segmentor of a kind of images."""
    kind = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    data = make_data(folder / 'data', **kind['data'])
    config = make_config(
        folder / 'config.py',
        data,
        kind['data']['suffix'],
        kind['data']['bands'],
        kind['loader'],
        kind['preprocessor'],
    )
    run_tool('train', config, '--work-dir', folder / 'run')
    checkpoint = folder / 'run' / 'iter_2.pth'
    return SimpleNamespace(
        config=config, data=data, run=folder / 'run', checkpoint=checkpoint
    )


def test_a_test_scores_writes_and_draws_it(trained, tmp_path):
    out = ['--work-dir', tmp_path, '--out', tmp_path / 'out']
    arguments = [trained.config, trained.checkpoint, *out]
    run_tool('test', *arguments, '--show-dir', tmp_path / 'show')
    pictures = [cv2.imread(str(p)) for p in (tmp_path / 'show').rglob('*.png')]
    both = SIZE[0], 2 * SIZE[1], 3  # annotation and prediction
    assert [picture.shape for picture in pictures] == [both] * 2
    labels = cv2.imread(str(tmp_path / 'out' / '0.png'), cv2.IMREAD_UNCHANGED)
    run_tool('infer', *arguments[:2], trained.data / 'img/val', '--out', tmp_path / 'i')
    inferred = cv2.imread(str(tmp_path / 'i/labels/0.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(inferred, labels)
    overlay = cv2.imread(str(tmp_path / 'i/overlay/0.jpg'))
    assert overlay[: SIZE[0]].std() > 10


def test_the_check_finds_no_fault_and_browsing_draws(trained, tmp_path):
    with pytest.raises(SystemExit) as end:
        run_tool('data/check_dataset', trained.config, '--out', tmp_path / 'check')
    report = json.loads((tmp_path / 'check/report.json').read_text())
    assert not end.value.code and report['findings'] == []
    out = tmp_path / 'browse.png'
    run_tool('data/browse', trained.config, '--out', out, '--num-images', 1)
    sheet, browsed = (
        cv2.imread(str(file)) for file in (tmp_path / 'check/contact_sheet.png', out)
    )
    assert sheet.std() > 10 and browsed.std() > 10


@pytest.mark.parametrize('trained', ['five'], indirect=True)
def test_report_comparison_calibration_and_quantisation_take_it(trained, tmp_path):
    run_tool('analysis/report', trained.run)
    assert (trained.run / 'predictions.png').is_file()
    run_tool('analysis/compare', trained.run, '--out', tmp_path / 'compare')
    assert (tmp_path / 'compare/images.png').is_file()
    model = [trained.config, trained.checkpoint]
    run_tool('analysis/calibration', *model, '--out', tmp_path / 'calibration')
    assert (tmp_path / 'calibration/calibration.json').is_file()
    out = tmp_path / 'int8.pth'
    run_tool('quantize', 'ptq', *model, '--out', out, '--calib', 2)
    assert out.is_file()


@pytest.mark.parametrize('trained', ['five'], indirect=True)
def test_mmsegs_own_interfaces_and_predict_agree_on_it(trained):
    model = load_segmentor(trained.config, trained.checkpoint)
    (file, *_) = sorted((trained.data / 'img/val').iterdir())
    image = read_image(file, model.cfg.test_pipeline[0])
    assert image.shape == (*SIZE, 5) and image.dtype == np.float32
    labels = predict(model, image)
    by_path = inference_model(model, str(file)).pred_sem_seg.data[0]
    np.testing.assert_array_equal(by_path, labels)
    inferencer = MMSegInferencer(str(trained.config), str(trained.checkpoint))
    np.testing.assert_array_equal(inferencer(str(file))['predictions'], labels)
    with pytest.raises(ValueError, match=r'the image has 3 channels.* model takes 5'):
        predict(model, image[..., :3])


@pytest.mark.parametrize('trained', ['five'], indirect=True)
def test_random_images_of_studies_have_its_channels(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'peak_in_child', lambda *case: 1.0)
    options = dict(shape=(64, 64), repeat=1, device='cpu', out=tmp_path / 'times.json')
    assert benchmark.run_benchmark(trained.config, **options)[0]['timings']
    cfg = load_config(trained.config)
    model = build_model(cfg)
    assert image_channels(model) == 5
    five = count_multiply_accumulates(model, (64, 64)).linear
    cfg.model.backbone.in_channels = 3
    three = count_multiply_accumulates(build_model(cfg), (64, 64)).linear
    assert five - three == 16 * 2 * 16 * 16 * 48  # patches, bands, pixels, widths


# 12 bits in files of 16: without the settings that keep them, 0..15 of 255 are read.


@pytest.fixture
def twelve_bits(tmp_path):
    data = make_data(tmp_path / 'data', '.png', 3, 16, np.uint16)
    mean = 'mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]'
    return make_config(tmp_path / 'deep.py', data, '.png', 3, preprocessor=mean)


def settings_in(message):
    """What a message says to set in the loader, and in the model."""
    loader = re.search(r"set (color_type='\w+', to_float32=True) in", message)[1]
    return loader, re.findall(r'model\.[\w.]+=(?:\[[^]]*\]|\w+)', message)


@pytest.mark.slow
def test_12_bits_stop_a_training_and_its_advice_lets_it_see_all(twelve_bits, tmp_path):
    message = fails('train', twelve_bits, '--work-dir', tmp_path / 'none')
    assert (
        'hold values of uint16 up to 4,080' in message and '0..15 of 0..255' in message
    )
    (tmp_path / 'check').mkdir()
    with pytest.raises(SystemExit) as end:
        run_tool('data/check_dataset', twelve_bits, '--out', tmp_path / 'check')
    report = json.loads((tmp_path / 'check/report.json').read_text())
    assert end.value.code == 1
    assert {f['kind'] for f in report['findings']} == {'values lost'}
    # The advice, word for word.
    loader, options = settings_in(message)
    text = twelve_bits.read_text()
    assert text.count("type='LoadImageFromFile', ") == 1
    twelve_bits.write_text(text.replace("FromFile', ", f"FromFile', {loader}"))
    work_dir = tmp_path / 'run'
    run_tool('train', twelve_bits, '--work-dir', work_dir, '--cfg-options', *options)
    with pytest.raises(SystemExit) as end:
        run_tool('data/check_dataset', twelve_bits, '--cfg-options', *options)
    assert not end.value.code
    cfg = load_config(work_dir / 'deep.py')
    image, _, _ = LabelledImages(cfg, 'train')[0]
    assert 3000 < image.max() <= 4080
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    inputs = torch.from_numpy(image.transpose(2, 0, 1))
    seen = preprocessor(dict(inputs=[inputs]))['inputs']
    assert abs(seen.mean()) < 0.3 and 0.7 < seen.std() < 1.3
    assert len(seen.unique()) > 500


@pytest.mark.parametrize('trained', ['grey'], indirect=True)
def test_a_model_of_8_bits_says_what_it_sees_of_12(trained, tmp_path, capsys):
    image = np.full((*SIZE, 1), 4000, np.uint16)
    cv2.imwrite(str(tmp_path / 'deep.png'), image)
    arguments = [trained.config, trained.checkpoint, tmp_path / 'deep.png']
    run_tool('infer', *arguments, '--out', tmp_path / 'out')
    assert 'uint16 up to 4,000, and the loader made 0..15 of' in capsys.readouterr().out


@pytest.mark.slow
def test_pretrained_colours_go_into_five_bands_and_the_log_says_how(tmp_path):
    data = make_data(tmp_path / 'data', '.tif', 5, write=planes)
    kind = KINDS['five']
    config = make_config(
        tmp_path / 'config.py', data, '.tif', 5, kind['loader'], kind['preprocessor']
    )
    arch = dict(embed_dims=48, num_layers=4, num_heads=3)
    rgb = ILLaMA(arch, img_size=64, out_indices=-1)
    rgb.init_weights()
    torch.save(rgb.state_dict(), tmp_path / 'rgb.pth')
    config.write_text(
        config.read_text().replace(
            'init_cfg=None',
            f"init_cfg=dict(type='Pretrained', checkpoint='{tmp_path / 'rgb.pth'}')",
        )
    )
    run_tool('train', config, '--work-dir', tmp_path / 'run')
    (log,) = (tmp_path / 'run').glob('*/*.log')
    text = log.read_text()
    assert 'is adapted to 5: repeated, times 3/5' in text
    assert "RGB's patch_embed.proj.weight for 5 channels" in text
