import hashlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors import safe_open
from tiny_run import run_tool
from torch import nn

from illama_seg.apis import load_segmentor
from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import (
    convert_checkpoint,
    load_into_backbone,
    load_released,
    read_checkpoint,
)

NANO = dict(embed_dims=8, num_layers=2, num_heads=2)
FORMS = [
    (names, suffix)
    for names in ('released', 'ours')
    for suffix in ('pth', 'safetensors')
]


def nano(img_size=(16, 24)):
    """Positions of no square grid, so that the note matters."""
    model = ILLaMA(NANO, img_size, 4, out_indices=-1, out_type='cls_token')
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def saved(content, path):
    torch.save(content, path)
    return path


def bits(tensor):
    """All that makes up a tensor."""
    raw = tensor.contiguous().flatten().view(torch.uint8).tolist()
    return tensor.dtype, tensor.shape, bytes(raw)


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert bits(actual[key]) == bits(value), key


def weights_of(path):
    content = read_checkpoint(path)
    return content.get('model') or content.get('state_dict') or content


@pytest.mark.parametrize('first', FORMS)
@pytest.mark.parametrize('second', FORMS)
def test_any_direction_and_back_keeps_every_bit(
    first, second, golden_checkpoint, tmp_path
):
    path, original = golden_checkpoint, load_released(golden_checkpoint)
    for step, (names, suffix) in enumerate((first, second, first)):
        path = convert_checkpoint(path, tmp_path / f'{step}.{suffix}', names).target
        weights = weights_of(path)
        assert any(key.startswith('backbone.') for key in weights) == (names == 'ours')
    back = convert_checkpoint(path, tmp_path / 'back.pth', 'released').target
    assert_same(read_checkpoint(back)['model'], original)


@given(
    dtype=st.sampled_from(
        [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
    ),
    shape=st.lists(st.integers(0, 3), max_size=3),
)
def test_any_dtype_and_shape_comes_back(dtype, shape, tmp_path_factory):
    folder = tmp_path_factory.mktemp('x')
    odd = torch.randint(0, 2, shape).to(dtype)
    state = {'blocks.0.norm1.weight': torch.tensor([float('nan'), -0.0]), 'odd': odd}
    path = saved({'model': state}, folder / 'x.pth')
    for suffix, names in (('safetensors', 'ours'), ('pth', 'released')):
        path = convert_checkpoint(path, folder / f'y.{suffix}', names).target
    assert_same(read_checkpoint(path)['model'], state)


def test_ours_have_the_layout_of_mmengine_and_the_released_that_of_the_authors(
    golden_checkpoint, tmp_path
):
    report = convert_checkpoint(golden_checkpoint, tmp_path / 'x.pth', 'ours')
    ours = read_checkpoint(report.target)
    assert set(ours) == {'meta', 'state_dict'}
    assert {'backbone.norm.weight', 'head.fc.bias'} <= set(ours['state_dict'])
    assert report.left_out == ['optimizer', 'epoch', 'scaler', 'args']
    assert report.names == 'ours' and report.grid is None
    again = convert_checkpoint(report.target, tmp_path / 'y.pth', 'released')
    assert set(read_checkpoint(again.target)) == {'model'}


@pytest.mark.parametrize('second', FORMS)
@pytest.mark.parametrize('first', FORMS)
def test_the_noted_grid_survives(first, second, tmp_path):
    trained = nano()
    path = saved(trained.state_dict(), tmp_path / 'x.pth')
    for step, (names, suffix) in enumerate((first, second)):
        report = convert_checkpoint(path, tmp_path / f'{step}.{suffix}', names)
        assert report.grid == (4, 6)
        path = report.target
    assert_same(load_released(path), trained.state_dict())
    expected, actual = nano((24, 16)), nano((24, 16))
    load_into_backbone(expected, tmp_path / 'x.pth')
    report = load_into_backbone(actual, path)
    assert report.resized and torch.equal(actual.pos_embed, expected.pos_embed)


def test_a_note_that_does_not_fit_is_not_handed_on(tmp_path):
    state = OrderedDict(nano().state_dict())
    state._metadata = OrderedDict({'': {'grid_size': (5, 5)}})
    report = convert_checkpoint(saved(state, tmp_path / 'x.pth'), tmp_path)
    assert report.grid is None and 'grid: not noted' in str(report)
    assert not getattr(read_checkpoint(report.target)['model'], '_metadata', {})


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_the_name_ends_in_the_start_of_the_sha256_whatever_it_was_before(
    suffix, golden_checkpoint, tmp_path
):
    names = (f'illama-75.0.{suffix}', f'x-01234567.{suffix}')
    made = [convert_checkpoint(golden_checkpoint, tmp_path / name) for name in names]
    digest = hashlib.sha256(made[0].target.read_bytes()).hexdigest()[:8]
    assert [report.target.name for report in made] == [
        f'illama-75.0-{digest}.{suffix}',
        f'x-{digest}.{suffix}',
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        report.target.name for report in made
    )


def test_a_folder_gets_the_name_of_the_source_which_stays(golden_checkpoint, tmp_path):
    source = tmp_path / 'illama-75.0.pth'
    source.write_bytes(golden_checkpoint.read_bytes())
    report = convert_checkpoint(source, tmp_path)
    assert report.target.name.startswith('illama-75.0-')
    assert source.read_bytes() == golden_checkpoint.read_bytes()


def test_safetensors_note_what_others_look_for(tmp_path):
    path = saved(nano().state_dict(), tmp_path / 'x.pth')
    target = convert_checkpoint(path, tmp_path / 'y.safetensors').target
    with safe_open(target, 'pt') as file:
        assert file.metadata() == {'format': 'pt', 'grid_size': '4x6'}


def test_a_segmentor_keeps_its_heads_and_classes(run, tmp_path):
    report = convert_checkpoint(run.checkpoint, tmp_path)
    expected = load_segmentor(str(run.config), run.checkpoint, 'cpu')
    actual = load_segmentor(str(run.config), report.target, 'cpu')
    assert_same(actual.state_dict(), expected.state_dict())
    assert actual.dataset_meta == expected.dataset_meta
    assert 'optimizer' in report.left_out and 'meta.cfg' in report.left_out
    packed = convert_checkpoint(run.checkpoint, tmp_path / 'x.safetensors')
    assert 'meta.dataset_meta' in packed.left_out
    assert_same(read_checkpoint(packed.target), weights_of(run.checkpoint))
    with pytest.raises(ValueError, match=r'more than a backbone.*neck'):
        convert_checkpoint(run.checkpoint, tmp_path, 'released')


def test_tensors_that_share_memory_are_written_each(tmp_path):
    whole = torch.arange(12.0).reshape(4, 3)
    state = {'blocks.0.a': whole.T, 'blocks.0.b': whole, 'blocks.0.c': whole[1:]}
    path = saved(state, tmp_path / 'x.pth')
    target = convert_checkpoint(path, tmp_path / 'y.safetensors').target
    assert_same(read_checkpoint(target), state)


def test_tool_prints_the_report(golden_checkpoint, tmp_path, capsys):
    out = tmp_path / 'x.safetensors'
    run_tool('checkpoints/convert', golden_checkpoint, out)
    printed = capsys.readouterr().out
    (made,) = tmp_path.iterdir()
    count = sum(value.numel() for value in load_released(golden_checkpoint).values())
    for text in (
        f'{golden_checkpoint} -> {made}',
        'keys (34, released names): ',
        f'parameters: {count:,}',
        'dtype: float32 (18), float64 (16)',
        'left out: optimizer, epoch, scaler, args',
    ):
        assert text in printed, text


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_truncated_safetensors_are_named_and_nothing_is_written(
    share, golden_checkpoint, tmp_path
):
    path = convert_checkpoint(golden_checkpoint, tmp_path / 'x.safetensors').target
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf'{path.name} is truncated'):
        convert_checkpoint(path, tmp_path / 'y.pth')
    assert list(tmp_path.iterdir()) == [path]


def test_mistakes_are_named(golden_checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r'existing folder, or a name that ends in'):
        convert_checkpoint(golden_checkpoint, tmp_path / 'nowhere')
    with pytest.raises(ValueError, match=r"names='x': expected one of \('released'"):
        convert_checkpoint(golden_checkpoint, tmp_path, 'x')
    other = saved({'layer1.weight': torch.ones(1)}, tmp_path / 'resnet.pth')
    with pytest.raises(ValueError, match=r'resnet\.pth holds no backbone.*layer1'):
        convert_checkpoint(other, tmp_path)
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        convert_checkpoint(tmp_path / 'nothing.pth', Path(tmp_path))
    with pytest.raises(SystemExit, match=r'error: .*resnet\.pth holds no backbone'):
        run_tool('checkpoints/convert', other, tmp_path)
