"""Peers of iLLaMA through the tools: small ones, and the real ones at a small crop."""

import pytest
import torch
from test_query_configs import camvid
from tiny_peers import ADE20K, CAMVID, CONFIGS, SMALL, build, load, options_of
from tiny_run import make_ade20k, run_tool


@pytest.mark.parametrize('name', SMALL)
def test_a_small_one_segments_images_of_any_size(name):
    cfg = load(name, *options_of(name, 'data'))
    cfg.model.test_cfg = dict(mode='whole')
    cfg.model.backbone.init_cfg = None
    model = build(cfg).eval()
    for size in ((64, 96), (50, 117)):
        with torch.no_grad():
            (found,) = model.predict(torch.randn(1, 3, *size))
        assert found.seg_logits.data.shape == (150, *size)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_ade20k(tmp_path_factory.mktemp('peers') / 'ade20k')


def train(name, data, work_dir, *options, small=True):
    options = [*options_of(name, data, small), *options]
    config = CONFIGS / f'{name}.py'
    run_tool('train', config, '--work-dir', work_dir, '--cfg-options', *options)
    assert (work_dir / 'iter_2.pth').is_file()
    return options


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=() if quick else pytest.mark.slow)
        for name in SMALL
        for quick in [name == 'segformer_b0_ade20k']
    ],
)
def test_a_small_one_trains(name, data, tmp_path):
    train(name, data, tmp_path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize('name', ADE20K)
def test_every_ade20k_config_trains_at_a_small_crop(name, data, tmp_path):
    train(name, data, tmp_path / 'run', small=False)


@pytest.mark.slow
@pytest.mark.parametrize('name', CAMVID)
def test_every_camvid_config_trains_an_iteration(name, tmp_path):
    root = camvid(tmp_path / 'data')
    loaders = ('train', 'val', 'test')
    options = [f'{split}_dataloader.dataset.data_root={root}' for split in loaders]
    options += [f'{split}_dataloader.num_workers=0' for split in loaders]
    options += [f'{split}_dataloader.persistent_workers=False' for split in loaders]
    run_tool(
        'train', CONFIGS / f'{name}.py', '--work-dir', tmp_path / 'run',
        '--cfg-options', 'model.backbone.init_cfg=None', 'train_cfg.max_iters=1',
        'train_dataloader.batch_size=2', 'param_scheduler=[]', *options,
    )  # fmt: skip
    assert (tmp_path / 'run' / 'iter_1.pth').is_file()


@pytest.mark.slow
def test_every_tool_takes_a_model_of_timm(data, tmp_path):
    name = 'upernet_convnext_tiny_ade20k'
    options = train(name, data, tmp_path / 'run')
    checkpoint = tmp_path / 'run' / 'iter_2.pth'
    run = CONFIGS / f'{name}.py', checkpoint
    last = '--cfg-options', *options
    run_tool('test', *run, '--tta', '--work-dir', tmp_path / 'test', *last)
    images = data / 'images' / 'validation'
    run_tool('infer', *run, images, '--out', tmp_path / 'out', *last)
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 2
    run_tool(
        'analysis/benchmark', *run, '--repeat', 1, '--out', tmp_path / 'b.json', *last
    )
    assert (tmp_path / 'b.json').is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'size'),
    [
        pytest.param(name, size, id=f'{name}{"".join(size)}')
        for name in SMALL
        for size in ([], ['--dynamic'])
        if not ('swin' in name and size)  # takes more than minutes
    ],
)
def test_a_small_one_is_exported_to_onnx(name, size, data, tmp_path):
    options = train(name, data, tmp_path / 'run')
    run = CONFIGS / f'{name}.py', tmp_path / 'run' / 'iter_2.pth'
    run_tool(
        'export', *run, *size, '--out', tmp_path, '--num-images', 2,
        '--cfg-options', *options,
    )  # fmt: skip
    assert (tmp_path / f'{name}.onnx').is_file()


@pytest.mark.slow
def test_weights_of_a_file_are_reported_before_the_training(data, tmp_path):
    name = 'upernet_eva02_base_ade20k'
    cfg = load(name, *options_of(name, data))
    weights = build(cfg).backbone.timm_model.state_dict()
    torch.save({'model': weights}, tmp_path / 'file.pth')
    train(
        name, data, tmp_path / 'run', 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={tmp_path / "file.pth"}',
    )  # fmt: skip
    (log,) = (tmp_path / 'run').rglob('*.log')
    count = len(weights)
    assert f'file.pth: loaded {count} of {count} backbone keys' in log.read_text()
