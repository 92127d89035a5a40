"""Every hostile file at every door: nothing in it runs, and the message names it."""

import functools
import http.server
import json
import shutil
import threading
import warnings

import mmengine.hub
import numpy as np
import pytest
import timm
import torch
from hostile_files import (
    CHECKPOINTS,
    PICTURES,
    REAL,
    gif_frame,
    pam,
    radiance,
    victim_of,
)
from mmengine.model import BaseModule
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner, load_checkpoint
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import TRANSFORMS as SEG_TRANSFORMS
from PIL import Image
from tiny_run import CONFIG, run_tool, start_fresh, tiny_options

from illama_seg.apis import get_model, load_config, load_segmentor, read_image
from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import (
    convert_checkpoint,
    load_into_backbone,
    load_released,
    read_checkpoint,
    select_llama_weights,
)
from illama_seg.datasets import CheckedADE20KDataset
from illama_seg.datasets.images import MAX_PIXELS
from illama_seg.datasets.inspection import inspect_pair
from illama_seg.datasets.prepare.camvid import _count_labels
from illama_seg.evaluation.label_files import read_labels
from illama_seg.integrations.timm_models import TimmILLaMA
from illama_seg.studies import run_benchmark

ARCH = dict(embed_dims=24, num_layers=4, num_heads=3)
TINY = dict(arch=ARCH, img_size=64, out_indices=(0, 1, 2, 3))


@pytest.fixture(scope='module')
def runner(run):
    """A training that was built, not begun, for what loads into it."""
    cfg = load_config(run.config, work_dir=run.work_dir.with_name('hostile'))
    start_fresh()
    runner = Runner.from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    return runner


@pytest.fixture(scope='module')
def content(run):
    return read_checkpoint(run.checkpoint)


@pytest.fixture(scope='module')
def model(run):
    return load_segmentor(run.config, run.checkpoint, 'cpu')


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A server of the files in tmp_path; downloads are kept there too."""
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def resume(path, request):
    runner = request.getfixturevalue('runner')
    runner._resume = True
    runner.resume(str(path))


def by_init_cfg(path, request):
    backbone = ILLaMA(**TINY, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    backbone.init_weights()


def by_mmengines_init_cfg(path, request):
    class Module(BaseModule):
        def __init__(self):
            super().__init__(dict(type='Pretrained', checkpoint=str(path)))
            self.fc = torch.nn.Linear(2, 2)

    Module().init_weights()


def by_http(path, request):
    url = request.getfixturevalue('web')
    load_checkpoint(torch.nn.Linear(2, 2), f'{url}/{path.name}')


def by_openmmlab(path, request):
    home = request.getfixturevalue('tmp_path')
    request.getfixturevalue('monkeypatch').setenv('MMENGINE_HOME', str(home))
    (home / 'open_mmlab.json').write_text(json.dumps({'mine': path.name}))
    load_checkpoint(torch.nn.Linear(2, 2), 'open-mmlab://mine')


def by_mmengines_hub(path, request):
    """What ``mmengine.hub.get_model`` does once it has a config."""
    mmengine.hub.hub.load_checkpoint(torch.nn.Linear(2, 2), str(path))


def by_inferencer(path, request):
    config = request.getfixturevalue('run').config
    MMSegInferencer(model=str(config), weights=str(path), device='cpu')


def by_inferencer_alone(path, request):
    MMSegInferencer(model=None, weights=str(path), device='cpu')


def by_timm(path, request):
    timm.create_model(
        'illama_tiny_patch16_224',
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(path)),
        arch=ARCH,
    )


def by_timms_own(path, request):
    timm.create_model('illama_tiny_patch16_224', arch=ARCH, checkpoint_path=str(path))


def by_report(path, request):
    run, folder = request.getfixturevalue('run'), path.parent
    (folder / run.config.name).write_text(run.config.read_text())
    (folder / 'last_checkpoint').write_text(str(path))
    (folder / 'log' / 'vis_data').mkdir(parents=True)
    (scalars,) = run.work_dir.glob('*/vis_data/scalars.json')
    (folder / 'log' / 'vis_data' / 'scalars.json').write_text(scalars.read_text())
    run_tool('analysis/report', folder)


def by_compare(path, request):
    """It reads what was logged, no weights."""
    (path.parent / 'run').mkdir()
    shutil.copytree(request.getfixturevalue('run').work_dir, path.parent / 'run' / '0')
    shutil.copy(path, path.parent / 'run' / '0' / 'iter_2.pth')
    run_tool('analysis/compare', path.parent / 'run', '--out', path.parent / 'out')


def by_llama(path, request):
    path.rename(path.with_name('model.safetensors'))
    select_llama_weights(path.parent, ARCH)


def named_by_a_tool(tool, *arguments):
    def enter(path, request):
        run = request.getfixturevalue('run')
        places = {
            'CONFIG': run.config,
            'FILE': path,
            'DATA': run.data,
            'DIR': path.parent,
            'OUT': path.parent / 'out.pth',
        }
        run_tool(tool, *(places.get(word, word) for word in arguments))

    return enter


def measured(tool, config='CONFIG'):
    return named_by_a_tool(f'analysis/{tool}', config, 'FILE', '--out', 'DIR')


def by_shape_bias(path, request):
    (path.parent / 'images' / 'cat').mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(path.parent / 'images' / 'cat' / 'cat1-dog1.png')
    names = path.parent / 'categories.json'
    names.write_text(json.dumps({'cat': [0], 'dog': [1]}))
    options = '--images', path.parent / 'images', '--categories', names
    run_tool('analysis/shape_bias', CLASSIFIER, path, *options, '--out', path.parent)


def by_timms_name(path, request):
    images = request.getfixturevalue('run').data / 'images' / 'validation'
    model = f'timm:test_vit={path}'
    options = '--images', images, '--out', path.parent
    run_tool('analysis/attention_rank', CLASSIFIER, model, *options)


def train(*arguments, option=None):
    def enter(path, request):
        (path.parent / 'run').mkdir()
        (path.parent / 'run' / 'last_checkpoint').write_text(str(path))
        options = tiny_options(request.getfixturevalue('run').data)
        if option:
            options.append(f'{option}={path}')
        work_dir = ['--work-dir', path.parent / 'run']
        run_tool('train', CONFIG, *work_dir, *arguments, '--cfg-options', *options)

    return enter


CLASSIFIER = 'illama_micro_digits'
DOORS = {
    'read_checkpoint': lambda path, request: read_checkpoint(path),
    'load_released': lambda path, request: load_released(path),
    'load_into_backbone': lambda path, request: load_into_backbone(
        TimmILLaMA(ARCH, 64), path
    ),
    'init_cfg of the backbone': by_init_cfg,
    'init_cfg of any module': by_mmengines_init_cfg,
    'Runner.load_checkpoint': lambda path, request: request.getfixturevalue(
        'runner'
    ).load_checkpoint(str(path)),
    'Runner.resume': resume,
    'mmengine, http': by_http,
    'mmengine, open-mmlab': by_openmmlab,
    'mmengine.hub': by_mmengines_hub,
    'init_model': lambda path, request: init_model(
        str(request.getfixturevalue('run').config), str(path), 'cpu'
    ),
    'MMSegInferencer': by_inferencer,
    'MMSegInferencer, no config': by_inferencer_alone,
    'load_segmentor': lambda path, request: load_segmentor(
        request.getfixturevalue('run').config, path, 'cpu'
    ),
    'get_model': lambda path, request: get_model(CLASSIFIER, path),
    'timm, file': by_timm,
    'timm, checkpoint_path': by_timms_own,
    'convert': lambda path, request: convert_checkpoint(path, path.parent / 'out.pth'),
    'benchmark': lambda path, request: run_benchmark(
        CLASSIFIER, path, out=path.parent / 'out.json', repeat=1
    ),
    'select_llama_weights': by_llama,
}
TOOLS = {
    'train --resume': train('--resume'),
    'train load_from': train(option='load_from'),
    'train init_cfg': train(option='model.backbone.init_cfg.checkpoint'),
    'test': named_by_a_tool('test', 'CONFIG', 'FILE', '--work-dir', 'DIR'),
    'infer': named_by_a_tool('infer', 'CONFIG', 'FILE', 'DATA', '--out', 'DIR'),
    'convert.py': named_by_a_tool('checkpoints/convert', 'FILE', 'DIR'),
    'report.py': by_report,
    'compare.py': by_compare,
    'benchmark.py': named_by_a_tool('analysis/benchmark', CLASSIFIER, 'FILE'),
    'calibration.py': measured('calibration'),
    'attention_rank.py': measured('attention_rank', CLASSIFIER),
    'loss_landscape.py': measured('loss_landscape'),
    'shape_bias.py': by_shape_bias,
    'attention_rank.py, timm:NAME=FILE': by_timms_name,
    'quantize.py ptq': named_by_a_tool(
        'quantize', 'ptq', 'CONFIG', 'FILE', '--out', 'OUT'
    ),
    'quantize.py eval': named_by_a_tool('quantize', 'eval', 'CONFIG', 'FILE'),
    'export.py': named_by_a_tool('export', 'CONFIG', 'FILE', '--out', 'OUT'),
}
QUICK_DOORS = ('read_checkpoint', 'Runner.resume', 'MMSegInferencer, no config')
# Its weights are as they should be: most doors let it in, and run none of it.
HARMLESS = ('config', 'paths')


def enter(door, path, request):
    """The message that a door ends with; None if it lets the file in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            door(path, request)
    except (ValueError, OSError, RuntimeError, KeyError, AssertionError) as error:
        return str(error)
    except SystemExit as error:
        return str(error.code)
    return None


def plant(kind, path, content):
    marker = path.with_name('it_ran')
    CHECKPOINTS[kind](path, marker, content)
    return marker


def check(name, door, kind, content, tmp_path, request):
    path = tmp_path / 'planted.pth'
    marker = plant(kind, path, content)
    message = enter(door, path, request)
    assert not marker.exists()
    if kind == 'paths':
        assert (victim_of(marker) / 'thesis.tex').read_text() == 'precious'
    if kind in HARMLESS and name != 'MMSegInferencer, no config':
        return
    if name == 'compare.py':
        assert message is None
        return
    assert message is not None
    if name == 'timm, checkpoint_path':  # timm's own reader, and its own message
        return
    known_as = 'model.safetensors' if name == 'select_llama_weights' else 'planted.pth'
    assert known_as in message
    assert len(message.splitlines()) == 1


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', REAL)
def test_the_attacks_are_real(kind, content, tmp_path):
    marker = plant(kind, tmp_path / 'planted.pth', content)
    try:
        torch.load(tmp_path / 'planted.pth', weights_only=False)
    except Exception:  # torch is not content with what came of it
        assert kind in ('pickle', 'tar')
    assert marker.exists() or kind in ('pickle', 'tar')


def cases():
    """All kinds at all doors; the quick ones have each of both."""
    for name in DOORS:
        for kind in CHECKPOINTS:
            quick = kind == 'in the message hub' or name in QUICK_DOORS
            marks = () if quick else pytest.mark.slow
            yield pytest.param(kind, name, marks=marks, id=f'{kind}, {name}')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('kind', 'name'), list(cases()))
def test_no_checkpoint_runs_code_at_any_door(kind, name, content, tmp_path, request):
    check(name, DOORS[name], kind, content, tmp_path, request)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        *(('in the message hub', name) for name in TOOLS),
        ('config', 'train --resume'),
        ('paths', 'train --resume'),
    ],
)
def test_no_checkpoint_runs_code_in_any_tool(kind, name, content, tmp_path, request):
    check(name, TOOLS[name], kind, content, tmp_path, request)


# Pictures


def by_training(path, request):
    dataset = CheckedADE20KDataset(
        data_root=str(request.getfixturevalue('run').data),
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
    )
    sample = dataset.get_data_info(0)
    dataset.get_data_info = lambda idx: dict(sample, img_path=str(path))
    dataset.prepare_data(0)


def inspected(path, request, as_annotation):
    good = path.with_name('good.png')
    Image.fromarray(np.ones((4, 4), np.uint8)).save(good)
    pair = (good, path) if as_annotation else (path, good)
    facts = inspect_pair((str(pair[0]), str(pair[1])))
    raise ValueError('\n'.join(message for _, message in facts.faults))


def of_camvid(path, request):
    _count_labels(path, path)


def loaded(registry, kind, key):
    def enter(path, request):
        step = registry.build(dict(type=kind))
        step({key: str(path), 'seg_fields': [], 'reduce_zero_label': False})

    return enter


PICTURE_DOORS = {
    'a data set of segmentation': by_training,
    'read_image, infer': lambda path, request: read_image(path),
    'LoadImageFromFile': loaded(TRANSFORMS, 'LoadImageFromFile', 'img_path'),
    'LoadAnnotations': loaded(SEG_TRANSFORMS, 'LoadAnnotations', 'seg_map_path'),
    'LoadRGBImage': loaded(TRANSFORMS, 'LoadRGBImage', 'img_path'),
    'check_dataset, image': functools.partial(inspected, as_annotation=False),
    'check_dataset, annotation': functools.partial(inspected, as_annotation=True),
    'evaluate_predictions': lambda path, request: read_labels(path),
    'prepare_camvid': of_camvid,
    'inference_model': lambda path, request: inference_model(
        request.getfixturevalue('model'), str(path)
    ),
}


BY_OPENCV = ('read_image, infer', 'LoadImageFromFile', 'inference_model')


@pytest.mark.parametrize('name', PICTURE_DOORS)
@pytest.mark.parametrize('kind', PICTURES)
def test_no_picture_of_an_absurd_size_is_decoded(kind, name, tmp_path, request):
    path = tmp_path / 'planted.png'
    path.write_bytes(PICTURES[kind]())
    message = enter(PICTURE_DOORS[name], path, request)
    for text in (
        str(path),
        '60,000 x 60,000 pixels',
        f'{MAX_PIXELS:,} pixels',
        'OPENCV_IO_MAX_IMAGE_PIXELS',
    ):
        assert text in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    'name',
    [
        'LoadAnnotations',
        'LoadRGBImage',
        'check_dataset, image',
        'check_dataset, annotation',
        'evaluate_predictions',
        'prepare_camvid',
    ],
)
def test_what_only_pillow_finds_absurd_is_refused_by_name(name, tmp_path, request):
    path = tmp_path / 'planted.png'
    path.write_bytes(gif_frame())
    assert str(path) in enter(PICTURE_DOORS[name], path, request)


@pytest.mark.parametrize('name', ['a data set of segmentation', *BY_OPENCV])
@pytest.mark.parametrize('write', [radiance, pam])
def test_a_format_that_only_opencv_knows_is_refused(write, name, tmp_path, request):
    path = tmp_path / 'planted.png'
    path.write_bytes(write())
    message = enter(PICTURE_DOORS[name], path, request)
    assert str(path) in message and 'no image of a known format' in message


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', PICTURE_DOORS)
def test_a_pickle_named_as_a_picture_is_none_and_does_not_run(
    name, content, tmp_path, request
):
    path = tmp_path / 'planted.png'
    marker = plant('pickle', path, content)
    assert enter(PICTURE_DOORS[name], path, request) is not None
    assert not marker.exists()
