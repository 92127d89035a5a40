"""Adapters of low rank: the formula, their names in files, what is trained."""

import copy
import sys

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import (
    convert_checkpoint,
    is_lora,
    load_into_backbone,
    merge_adapters,
    read_checkpoint,
)
from illama_seg.engine import ShardedRunner
from illama_seg.errors import UserError

NANO = dict(embed_dims=8, num_layers=2, num_heads=2)
LORA = dict(r=2, lora_alpha=6)
LAYERS = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2', 'mlp.fc3')
SIZE = 16, 24


def nano(lora=LORA, random=True, **options):
    """A backbone with weights in every part of it, the adapters too."""
    options = dict(img_size=SIZE, patch_size=4, out_indices=(0, 1)) | options
    model = ILLaMA(NANO, lora=lora, **options)
    for parameter in model.parameters() if random else ():
        nn.init.normal_(parameter, std=0.4)
    return model


def image():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def saved(model, path):
    torch.save(model.state_dict(), path)
    return path


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


def test_before_the_training_the_outputs_are_those_of_the_pretrained_weights(tmp_path):
    plain = nano(lora=None)
    checkpoint = str(saved(plain, tmp_path / 'plain.pth'))
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    model = nano(random=False, init_cfg=init_cfg)
    model.init_weights()
    assert_same(model(image()), plain(image()))
    report = model.load_report
    assert not report.missing and not report.unexpected
    assert f'loaded {len(plain.state_dict())} of {len(plain.state_dict())}' in str(
        report
    )


def test_every_linear_layer_of_a_block_has_an_adapter_and_no_other_layer():
    found = {key.partition('.lora_A.')[0] for key in nano().state_dict() if 'A.' in key}
    assert found == {f'blocks.{i}.{layer}' for i in range(2) for layer in LAYERS}
    mlp = ILLaMA(NANO, ffn='mlp', norm='layer', out_indices=-1, lora=LORA)
    found = {key.partition('.lora_A.')[0] for key in mlp.state_dict() if 'A.' in key}
    assert found == {f'blocks.{i}.{layer}' for i in range(2) for layer in LAYERS[:-1]}


def test_names_in_files_are_those_without_adapters_and_the_adapters():
    names, plain = list(nano().state_dict()), list(nano(lora=None).state_dict())
    assert [name for name in names if not is_lora(name)] == plain
    assert len({*names}) == len(plain) + 1 + 2 * 2 * len(LAYERS)


def test_only_the_adapters_are_trained():
    model = nano()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all('.lora_' in name for name in trained)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1
    )
    model.train()
    sum(output.square().mean() for output in model(image())).backward()
    optimizer.step()
    for key, value in model.state_dict().items():
        changed = is_lora(key) and not key.endswith('lora_scaling')
        assert torch.equal(value, before[key]) != changed, key


@pytest.mark.parametrize(
    ('arch', 'rank'),
    [
        (dict(embed_dims=96, num_layers=6, num_heads=3), 2),
        ('tiny', 4),
        ('base', 16),
    ],
)
def test_less_than_3_percent_of_the_backbone_is_trained(arch, rank):
    with torch.device('meta'):
        model = ILLaMA(arch, 512, out_indices=-1, lora=dict(r=rank, lora_alpha=rank))
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    assert 0.02 < trained / sum(p.numel() for p in parameters) < 0.03


@pytest.mark.parametrize('with_cp', [False, True])
def test_outputs_and_gradients_are_those_of_the_formula(with_cp):
    model, plain = nano(with_cp=with_cp).double().train(), nano(lora=None).double()
    weights, scaling = model.state_dict(), LORA['lora_alpha'] / LORA['r']
    down, up = (
        {k.partition(part)[0]: weights[k] for k in weights if part in k}
        for part in ('.lora_A.', '.lora_B.')
    )
    merged = {key: value for key, value in weights.items() if not is_lora(key)}
    for layer in down:
        merged[f'{layer}.weight'] = (
            merged[f'{layer}.weight'] + scaling * up[layer] @ down[layer]
        )
    plain.load_state_dict(merged)
    outputs = [each(image().double()) for each in (model, plain)]
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other)
        (one.square().sum() + other.square().sum()).backward(retain_graph=True)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for layer in down:
        whole = scaling * plain.get_parameter(f'{layer}.weight').grad
        found = (gradients.pop(f'{layer}.lora_{each}.default.weight') for each in 'AB')
        for one, other in zip(
            found, (up[layer].T @ whole, whole @ down[layer].T), strict=True
        ):
            torch.testing.assert_close(one, other)
    assert set(gradients.values()) == {None}


# Files


def test_an_adapted_backbone_comes_back_bit_for_bit(tmp_path):
    model, again = nano(), nano()
    report = load_into_backbone(again, saved(model, tmp_path / 'x.pth'))
    assert len(report.matched) == len(model.state_dict())
    assert_same(again(image()), model(image()))
    strict = copy.deepcopy(nano())
    strict.load_state_dict(copy.deepcopy(model).state_dict())
    assert_same(strict.state_dict().values(), model.state_dict().values())


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_merged_weights_are_those_of_a_backbone_without_adapters(suffix, tmp_path):
    model, plain = nano(), nano(lora=None)
    path = saved(model, tmp_path / 'x.pth')
    kept = convert_checkpoint(path, tmp_path / f'kept.{suffix}').target
    merged = convert_checkpoint(kept, tmp_path / 'merged.pth', merge_lora=True).target
    report = load_into_backbone(plain, merged)
    assert len(report.matched) == len(plain.state_dict()) and not report.missing
    for one, other in zip(plain(image()), model(image()), strict=True):
        torch.testing.assert_close(one, other)
    for module in model.modules():
        if hasattr(module, 'merge'):
            module.merge()  # peft's own
    theirs = model.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, theirs[key]), key


def test_merged_weights_keep_their_dtype(tmp_path):
    weights = {key: value.bfloat16() for key, value in nano().state_dict().items()}
    merged = merge_adapters(weights)
    assert {value.dtype for value in merged.values()} == {torch.bfloat16}


def test_a_file_that_does_not_fit_is_refused_with_the_way_out(tmp_path):
    path = saved(nano(), tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'holds LoRA adapters, .*merge_lora=True'):
        load_into_backbone(nano(lora=None), path)
    with pytest.raises(UserError, match=r'Set model\.backbone\.lora\.r as in its'):
        load_into_backbone(nano(dict(r=3, lora_alpha=9)), path)
    with pytest.raises(UserError, match=r'lora_alpha / r = 3, .*lora has 1: set both'):
        load_into_backbone(nano(dict(r=2, lora_alpha=2)), path)
    plain = saved(nano(lora=None), tmp_path / 'plain.pth')
    with pytest.raises(UserError, match=r'merge_lora=True: expected layers with lora'):
        convert_checkpoint(plain, tmp_path / 'y.pth', merge_lora=True)
    weights = nano().state_dict()
    del weights['blocks.1.mlp.fc2.lora_B.weight']
    torch.save(weights, tmp_path / 'part.pth')
    with pytest.raises(UserError, match='expected layers with lora_A and lora_B'):
        convert_checkpoint(tmp_path / 'part.pth', tmp_path, merge_lora=True)
    assert 'pos_embed' in read_checkpoint(plain)


# Arguments


@pytest.mark.parametrize(
    'lora',
    [
        {},
        dict(r=8),
        dict(r=0, lora_alpha=1),
        dict(r=2.5, lora_alpha=1),
        dict(r=2, lora_alpha='4'),
        dict(r=2, lora_alpha=4, lora_dropout=0.1),
    ],
)
def test_other_arguments_are_refused(lora):
    with pytest.raises(UserError, match=r'ILLaMA lora=\{.*expected None, or dict\(r='):
        nano(lora)


def test_without_peft_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    with pytest.raises(
        UserError, match=r'needs peft: pip install peft, .* extra \[lora\]'
    ):
        nano()


def test_frozen_blocks_train_no_adapter_and_the_others_do():
    model = nano(frozen_stages=1).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith('blocks.1.') for name in trained)


def test_8_bits_and_sharding_refuse_adapters():
    options = dict(arch=NANO, img_size=16, patch_size=4, out_indices=-1, lora=LORA)
    with pytest.raises(UserError, match='QuantizedILLaMA takes no adapters'):
        MODELS.build(dict(type='QuantizedILLaMA', **options))
    runner = object.__new__(ShardedRunner)
    runner._distributed = True
    model = nn.Module()
    model.backbone = nano()
    with pytest.raises(UserError, match=r'LoRA .* train with runner_type=Runner'):
        runner.wrap_model(None, model)
