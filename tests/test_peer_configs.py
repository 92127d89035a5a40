"""The configs of configs/peers: one recipe, what they build, count and train."""

import ast
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from test_query_configs import camvid
from tiny_run import data_options, make_ade20k, model_options, run_options, run_tool
from torch import nn

from illama_seg.apis import list_models, load_config
from illama_seg.apis.configs import find_config
from illama_seg.apis.consistency import contradictions
from illama_seg.studies.common import build_on_meta
from illama_seg.studies.complexity.counts import count_multiply_accumulates

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs' / 'peers'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
CAMVID = [name for name in NAMES if 'camvid' in name]
ADE20K = [name for name in NAMES if 'camvid' not in name]
LIST = re.findall(
    r'^\| `(\w+)` \|.*\| ([\d.]+)M \| ([\d.]+)G \| ([\d.]+)G \|$',
    (ROOT / 'docs' / 'peers.md').read_text(),
    re.MULTILINE,
)
HEAD, AUXILIARY = 'model.decode_head', 'model.auxiliary_head'
every_config = pytest.mark.parametrize('name', NAMES)


def channels(width):
    """Options of a decoder over maps of as many channels."""
    return [
        f'model.neck.embed_dim={width}',
        f'{HEAD}.in_channels=[{width},{width},{width},{width}]',
        f'{AUXILIARY}.in_channels={width}',
    ]


# Of every kind a small one: name of the config -> options.
SMALL = {
    'segformer_b0_ade20k': [],
    'upernet_convnext_tiny_ade20k': [
        'model.backbone.model_name=convnext_atto',
        f'{HEAD}.in_channels=[40,80,160,320]',
        f'{AUXILIARY}.in_channels=160',
    ],
    'upernet_deit3_base_ade20k': [
        'model.backbone.model_name=deit3_small_patch16_224',
        'model.backbone.img_size=64',
        *channels(384),
    ],
    'upernet_dinov3_small_ade20k': [
        'model.backbone.model_name=vit_tiny_patch16_dinov3_qkvb',
        *channels(192),
    ],
    'upernet_eva02_base_ade20k': [
        'model.backbone.model_name=eva02_tiny_patch14_224',
        'model.backbone.img_size=70',
        *channels(192),
    ],
    'upernet_swin_tiny_ade20k': [],
    'upernet_swin_tiny_timm_ade20k': [],
    'upernet_visionllama_base_ade20k': model_options(),
}


def options_of(name, data, small=True):
    """Options of a run of two iterations at a crop of 64 x 64 pixels."""
    options = [*data_options(data), *run_options()]
    options += [
        'model.data_preprocessor.size=(64,64)',
        'model.test_cfg.crop_size=(64,64)',
        'model.test_cfg.stride=(43,43)',
    ]
    if small:
        options += [*SMALL[name], f'{HEAD}.channels=16']
    return [option for option in options if 'init_cfg' not in option]


def load(name, *options):
    cfg = load_config(CONFIGS / f'{name}.py')
    cfg.merge_from_dict(dict(map(parsed, options)))
    return cfg


def parsed(option):
    key, _, value = option.partition('=')
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg.model)


def text_of(name):
    return (CONFIGS / f'{name}.py').read_text()


# Every config


@every_config
def test_all_but_the_model_is_the_recipe_of_illama(name):
    recipe = 'upernet_illama_micro_camvid' if name in CAMVID else 'upernet_illama_base'
    recipe = recipe if name in CAMVID else f'{recipe}_ade20k'
    expected, found = (
        load_config(file).to_dict()
        for file in (ROOT / 'configs' / f'{recipe}.py', CONFIGS / f'{name}.py')
    )
    models = [cfg.pop('model') for cfg in (expected, found)]
    # What a peer adds are parameters of its own without weight decay.
    keys = [
        cfg['optim_wrapper']['paramwise_cfg'].pop('custom_keys')
        for cfg in (expected, found)
    ]
    assert all(keys[1][key] == value for key, value in keys[0].items())
    added = [keys[1][key] for key in keys[1].keys() - keys[0].keys()]
    assert all(value == dict(decay_mult=0.0) for value in added)
    for cfg in (expected, found):
        cfg.pop('work_dir')
    assert found == expected
    for key in ('test_cfg', 'train_cfg', 'type'):
        assert models[0][key] == models[1][key]
    for model in models:
        if 'eva02' in name:  # pixels have its own mean and deviation
            del model['data_preprocessor']['mean'], model['data_preprocessor']['std']
    assert models[0]['data_preprocessor'] == models[1]['data_preprocessor']


def depth(path):
    """Configs between a config and those of _base_/."""
    tree = ast.parse(path.read_text())
    bases = [
        base
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_'
        for base in ast.literal_eval(node.value)
    ]
    above = [path.parent / base for base in bases if '_base_/' not in base]
    return max((1 + depth(base) for base in above), default=0)


@every_config
def test_at_most_two_configs_are_between_a_peer_and_the_bases(name):
    assert 1 <= depth(CONFIGS / f'{name}.py') <= 2


@every_config
def test_the_docstring_gives_the_command_and_says_what_was_not_measured(name):
    docstring = ast.get_docstring(ast.parse(text_of(name)))
    assert f'tools/train.py configs/peers/{name}.py' in docstring
    assert 'figure: not measured' in docstring and 'Memory: not measured' in docstring
    model = load(name).model.backbone.get('model_name')
    assert model is None or f'https://huggingface.co/timm/{model}.' in docstring


@every_config
def test_nothing_is_downloaded_by_default(name):
    source = (load(name).model.backbone.get('init_cfg') or {}).get('checkpoint', '')
    assert source.startswith('work_dirs/') if name in CAMVID else not source


@every_config
def test_the_config_does_not_contradict_itself(name):
    cfg = load(name)
    names = tuple(f'class {i}' for i in range(cfg.model.decode_head.num_classes))
    assert not contradictions(cfg, dict(train=names, val=names))


@every_config
def test_norms_are_batch_norms_and_no_bias_or_position_decays(name):
    cfg = load(name)
    cfg.model.backbone.init_cfg = None
    model = build_on_meta(cfg)
    types = {type(m) for m in model.modules() if 'BatchNorm' in type(m).__name__}
    assert types == {nn.BatchNorm2d}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    tokens = 'pos_embed', 'cls_token', 'reg_token', 'relative_position_bias_table'
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1 or key.endswith(tokens):
            assert decay[id(parameter)] == 0, key


@pytest.mark.parametrize(('name', *'pma'), LIST, ids=[row[0] for row in LIST])
def test_a_row_of_the_page_is_what_is_counted(name, p, m, a):
    cfg = load_config(find_config(name))
    cfg.model.backbone.init_cfg = None
    model = build_on_meta(cfg)
    assert f'{sum(x.numel() for x in model.parameters()) / 1e6:.2f}' == p
    macs = count_multiply_accumulates(model, (512, 512))
    assert f'{macs.total(attention=False, auxiliary=False) / 1e9:.2f}' == m
    assert f'{macs.total(attention=True, auxiliary=False) / 1e9:.2f}' == a


def test_the_page_has_a_row_for_every_peer():
    assert set(NAMES) <= {row[0] for row in LIST} <= set(list_models())


# A channel that does not fit


@pytest.mark.parametrize(
    ('name', 'wrong', 'text', 'mends'),
    [
        (
            'upernet_convnext_tiny_ade20k',
            f'{HEAD}.in_channels=[96,192,384,512]',
            'hands on [96, 192, 384, 768] channels',
            f'{HEAD}.in_channels=[96,192,384,768]',
        ),
        (
            'upernet_swin_tiny_timm_ade20k',
            f'{AUXILIARY}.in_channels=768',
            'hands on [96, 192, 384, 768] channels',
            f'{AUXILIARY}.in_channels=384',
        ),
        (
            'upernet_dinov3_small_ade20k',
            'model.neck.embed_dim=768',
            'hands on 384 channels',
            'model.neck.embed_dim=384',
        ),
        (
            'upernet_deit3_small_ade20k',
            f'{AUXILIARY}.in_index=4',
            'out_indices=(3, 5, 7, 11) are 4 levels',
            f'{AUXILIARY}.in_index from 0 to 3',
        ),
    ],
)
def test_channels_and_levels_that_do_not_fit_are_named(name, wrong, text, mends):
    names = tuple(f'class {i}' for i in range(150))
    (found,) = contradictions(load(name, wrong), dict(train=names, val=names))
    assert found.startswith(wrong.split('=')[0]) and text in found
    assert found.endswith(f'set {mends}')


# Images, trainings, tools


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


@pytest.mark.parametrize('name', CAMVID)
def test_the_checkpoint_of_a_micro_one_is_of_the_classifier_beside_it(name):
    backbone = load(name).model.backbone
    source = Path(backbone.init_cfg.checkpoint)
    classifier = Config.fromfile(ROOT / f'configs/pretrain/{source.parent.name}.py')
    assert source.name == f'epoch_{classifier.train_cfg.max_epochs}.pth'
    assert backbone.get('rotary_img_size', 112) == classifier.model.backbone.img_size
    differing = {'img_size', 'init_cfg', 'out_indices', 'out_type', 'rotary_img_size'}
    differing.add('drop_path_rate')
    parts = [
        {key: value for key, value in part.to_dict().items() if key not in differing}
        for part in (backbone, classifier.model.backbone)
    ]
    assert parts[0] == parts[1]


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
@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize('size', [[], ['--dynamic']], ids=['fixed', 'any'])
def test_a_small_one_is_exported_to_onnx(name, size, data, tmp_path):
    options = train(name, data, tmp_path / 'run')
    run = CONFIGS / f'{name}.py', tmp_path / 'run' / 'iter_2.pth'
    run_tool(
        'export', *run, *size, '--out', tmp_path, '--num-images', 2,
        '--cfg-options', *options,
    )  # fmt: skip
    assert (tmp_path / f'{name}.onnx').is_file()


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
