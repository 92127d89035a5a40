"""A training of adapters (LoRA) through every tool, and the configs of 40 frames."""

import json
import shutil

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from tiny_run import CONFIG, ROOT, fails, make_ade20k, run_tool, tiny_options

from illama_seg.apis import load_config, load_segmentor
from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import is_lora

LORA = ['model.backbone.lora.r=2', 'model.backbone.lora.lora_alpha=8']
ARCH = dict(embed_dims=24, num_layers=4, num_heads=3)
WAYS = ('full', 'frozen', 'layer_decay', 'lora')


def train(work_dir, trained, *resume):
    settings = [*tiny_options(trained['data'], iterations=4), *LORA]
    settings.remove('model.backbone.init_cfg=None')
    settings += [
        f'model.backbone.init_cfg.checkpoint={trained["backbone"]}',
        *('randomness.seed=0', 'optim_wrapper.optimizer.lr=0.05'),
    ]
    run_tool(
        'train', CONFIG, '--work-dir', work_dir, *resume, '--cfg-options', *settings
    )
    return work_dir / 'iter_4.pth'


def weights_of(path):
    return torch.load(path, weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Data, pretrained backbone, config and checkpoints of adapters of rank 2."""
    folder = tmp_path_factory.mktemp('lora')
    found = dict(data=make_ade20k(folder / 'data'), backbone=folder / 'backbone.pth')
    backbone = ILLaMA(ARCH, 64, out_indices=-1)
    backbone.init_weights()
    torch.save(backbone.state_dict(), found['backbone'])
    found['checkpoint'] = train(folder / 'run', found)
    found['config'] = folder / 'run' / CONFIG.name
    return found


def test_the_pretrained_weights_stay_and_the_adapters_are_trained(trained):
    start, end = torch.load(trained['backbone']), weights_of(trained['checkpoint'])
    backbone = {
        key.removeprefix('backbone.'): value
        for key, value in end.items()
        if key.startswith('backbone.')
    }
    plain = {key: value for key, value in backbone.items() if not is_lora(key)}
    assert plain.keys() == start.keys()
    assert all(torch.equal(value, start[key]) for key, value in plain.items())
    up = [value for key, value in backbone.items() if '.lora_B.' in key]
    assert len(up) == 4 * 5 and all(value.abs().max() > 0 for value in up)


def test_the_block_before_the_training_counts_what_is_trained(trained):
    (log,) = trained['checkpoint'].parent.glob('*/*.log')
    text = log.read_text()
    total = sum(p.numel() for p in ILLaMA(ARCH, 64, out_indices=-1).parameters())
    adapters = 4 * 2 * (4 * 24 + 2 * 24 + 3 * (24 + 256))
    share = adapters / (total + adapters)
    assert f'of the backbone {adapters:,} of {total + adapters:,}, {share:.1%}' in text
    assert f'loaded {9 * 4 + 4} of {9 * 4 + 4} backbone keys' in text
    assert 'is skipped since' in text  # in the file, not on the terminal


def test_a_resumed_training_is_bit_for_bit_that_of_one_piece(trained, tmp_path):
    first = trained['checkpoint'].parent / 'iter_2.pth'
    shutil.copy(first, tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / first.name))
    files = trained['checkpoint'], train(tmp_path, trained, '--resume')
    contents = [torch.load(file, weights_only=False) for file in files]
    one, other = (content['state_dict'] for content in contents)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (content['optimizer']['state'] for content in contents)
    assert one.keys() == other.keys() and len(one) > 40
    for number, state in one.items():
        assert all(torch.equal(state[key], other[number][key]) for key in state)


def test_the_tools_take_config_and_checkpoint(trained, tmp_path):
    config, checkpoint = trained['config'], trained['checkpoint']
    run_tool('test', config, checkpoint, '--work-dir', tmp_path / 'test')
    assert json.loads((tmp_path / 'test' / 'scores.json').read_text())['mIoU'] >= 0
    images = trained['data'] / 'images' / 'validation'
    run_tool('infer', config, checkpoint, images, '--out', tmp_path / 'infer')
    assert len(list((tmp_path / 'infer' / 'labels').iterdir())) == 2
    run_tool('analysis/report', checkpoint.parent)
    assert json.loads((checkpoint.parent / 'result.json').read_text())['mIoU'] >= 0
    message = fails('quantize', 'ptq', config, checkpoint, '--out', tmp_path / 'x.pth')
    assert 'takes no adapters' in message and 'merge_lora' in message


def test_a_merged_checkpoint_is_one_of_the_plain_config(trained, tmp_path):
    out = tmp_path / 'merged.pth'
    run_tool('checkpoints/convert', trained['checkpoint'], out, '--merge-lora')
    (merged,) = tmp_path.glob('merged-*.pth')
    adapted = load_segmentor(load_config(trained['config']), trained['checkpoint'])
    cfg = load_config(trained['config'], {'model.backbone.lora': None})
    plain = load_segmentor(cfg, merged)
    assert not any(is_lora(key) for key in plain.state_dict())
    images = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        one, other = (
            model.decode_head(model.extract_feat(images)) for model in (adapted, plain)
        )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    cfg.dump(tmp_path / 'plain.py')
    run_tool('test', tmp_path / 'plain.py', merged, '--work-dir', tmp_path / 'test')


def test_adapters_are_not_dropped_by_a_config_without_them(trained, tmp_path):
    plain = ['--cfg-options', 'model.backbone.lora=None']
    arguments = [trained['config'], trained['checkpoint'], '--work-dir', tmp_path]
    message = fails('test', *arguments, *plain)
    assert 'lora_A.weight: not in the model' in message and 'merge_lora' in message
    init = f'model.backbone.init_cfg.checkpoint={trained["checkpoint"]}'
    message = fails('train', *arguments[::2], tmp_path, *plain, init)
    assert 'holds LoRA adapters' in message


# The configs of 40 frames


def config_of(way):
    path = ROOT / f'configs/little_data/upernet_illama_micro_camvid40_{way}.py'
    return load_config(path, {'model.backbone.init_cfg': None})


def built(cfg):
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return model, {
        names[id(parameter)]: group['lr']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


@pytest.mark.parametrize('way', WAYS)
def test_a_way_trains_what_its_name_says_and_the_decoder_at_one_rate(way):
    model, rates = built(config_of(way))
    inside = {key: rate for key, rate in rates.items() if key.startswith('backbone.')}
    names = [name for name, _ in model.named_parameters()]
    outside = {name for name in names if not name.startswith('backbone.')}
    assert rates.keys() - inside.keys() == outside
    assert {rates[name] for name in outside} == {1e-3}
    if way == 'frozen':
        assert not inside
    elif way == 'full':
        assert set(inside.values()) == {1e-3}
    elif way == 'lora':
        assert len(inside) == 6 * 5 * 2 and set(inside.values()) == {5e-3}
        assert all('.lora_' in name for name in inside)
    else:
        assert inside['backbone.pos_embed'] == pytest.approx(1e-3 * 0.75**7)
        assert inside['backbone.blocks.5.mlp.fc2.weight'] == pytest.approx(7.5e-4)


def test_the_ways_differ_in_nothing_else():
    configs = [config_of(way).to_dict() for way in WAYS]
    for cfg in configs:
        backbone = cfg['model']['backbone']
        assert backbone.pop('frozen_stages', 6) == 6
        assert backbone.pop('lora', {'r': 2})['r'] == 2
        optim = cfg['optim_wrapper']
        del optim['constructor'], optim['paramwise_cfg'], cfg['work_dir']
    assert all(cfg == configs[0] for cfg in configs)


def test_the_40_frames_are_evenly_spaced_over_all_videos():
    indices = config_of('full').train_dataloader.dataset.indices
    assert len(indices) == 40 and {*indices} <= {*range(367)}
    steps = {indices[i + 1] - indices[i] for i in range(39)}
    assert indices[0] == 0 and steps == {9, 10}
