import json

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file, save_file
from tiny_run import run_tool

from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import (
    llama,
    load_into_backbone,
    select_llama_weights,
    write_weights,
)

transformers = pytest.importorskip('transformers')

MICRO = dict(embed_dims=48, num_layers=3, num_heads=3)
HIDDEN = 256  # of the SwiGLU of MICRO


def make_llama(hidden_size=100, layers=4, heads=5, intermediate_size=300, **options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        tie_word_embeddings=False,
        **options,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():  # the norms start as ones
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture(scope='module')
def model():
    return make_llama()


@pytest.fixture
def folder(model, tmp_path):
    """A LLaMA in shards, as transformers writes it."""
    model.save_pretrained(tmp_path / 'llama', max_shard_size='150KB')
    assert len(list((tmp_path / 'llama').glob('model-*.safetensors'))) > 3
    return tmp_path / 'llama'


def shard_of(folder, key):
    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    return folder / index['weight_map'][key]


def evenly(big, small):
    """The paper's rule, by hand."""
    if big % small == 0:
        return [i * (big // small) for i in range(small)]
    return [round(i * (big - 1) / (small - 1)) for i in range(small)]


def by_hand(model, layer):
    """What block i of MICRO must be."""
    source = model.model.layers[layer]
    attn, mlp = source.self_attn, source.mlp
    at, inner = evenly(100, 48), evenly(300, HIDDEN)
    qkv = (attn.q_proj, attn.k_proj, attn.v_proj)
    return {
        'norm1.weight': source.input_layernorm.weight[at],
        'attn.qkv.weight': torch.cat([p.weight[at][:, at] for p in qkv]),
        'attn.proj.weight': attn.o_proj.weight[at][:, at],
        'norm2.weight': source.post_attention_layernorm.weight[at],
        'mlp.fc1.weight': mlp.gate_proj.weight[inner][:, at],
        'mlp.fc2.weight': mlp.down_proj.weight[at][:, inner],
        'mlp.fc3.weight': mlp.up_proj.weight[inner][:, at],
    }


@given(half=st.integers(1, 200), extra=st.integers(0, 4000))
def test_indices_are_those_of_the_paper(half, extra):
    small = 2 * half  # as all sizes: then nothing falls in the middle
    big = small + extra
    actual = llama.uniform_indices(big, small).tolist()
    if big % small == 0:
        assert actual == list(range(0, big, big // small))
    else:
        assert actual == np.round(np.linspace(0, big - 1, small)).astype(int).tolist()
    assert len(set(actual)) == small and 0 <= actual[0] and actual[-1] < big


def test_selected_weights_are_those_indexed_by_hand(model, folder):
    weights = select_llama_weights(folder, MICRO)
    expected = {
        f'blocks.{layer}.{key}': value
        for layer in range(3)
        for key, value in by_hand(model, layer).items()
    }
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(weights[key], value), key


def test_where_the_size_divides_every_nth_row_is_taken(tmp_path):
    model = make_llama(hidden_size=96, layers=1, heads=6, intermediate_size=512)
    model.save_pretrained(tmp_path)
    weights = select_llama_weights(tmp_path, MICRO | dict(num_layers=1))
    mlp = model.model.layers[0].mlp
    assert torch.equal(
        weights['blocks.0.mlp.fc2.weight'], mlp.down_proj.weight[::2, ::2]
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_one_file_without_index_or_head_is_read_in_its_dtype(dtype, model, tmp_path):
    bare = make_llama().to(dtype).model
    bare.save_pretrained(tmp_path)
    assert not list(tmp_path.glob('*.index.json'))
    weights = select_llama_weights(tmp_path, MICRO)
    norm = by_hand(model, 1)['norm1.weight']
    assert torch.equal(weights['blocks.1.norm1.weight'], norm.to(dtype))


def test_only_the_rows_wanted_of_the_layers_wanted_are_read(model, folder, monkeypatch):
    read = []

    class Part:
        def __init__(self, part):
            self.part, self.get_shape = part, part.get_shape

        def __getitem__(self, at):
            read.append(self.part[at].shape[0])
            return self.part[at]

    class File:
        def __init__(self, *args):
            self.file = safe_open(*args)
            self.keys = self.file.keys

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file = None

        def get_slice(self, key):
            assert '.layers.' in key and '.layers.3.' not in key
            return Part(self.file.get_slice(key))

    safe_open = llama.safe_open
    monkeypatch.setattr(llama, 'safe_open', File)
    select_llama_weights(folder, MICRO)
    assert sum(read) == 3 * (7 * 48 + 2 * HIDDEN)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_file_initialises_a_backbone_and_reports_what_it_lacks(
    suffix, folder, tmp_path
):
    path = tmp_path / f'new/init{suffix}'
    weights = select_llama_weights(folder, MICRO)
    write_weights(weights, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone = ILLaMA(MICRO, 32, 8, out_indices=-1, init_cfg=init_cfg)
    backbone.init_weights()
    state = backbone.state_dict()
    for key, value in weights.items():
        assert torch.equal(state[key], value), key
    assert not state['blocks.0.attn.qkv.bias'].any()
    report = load_into_backbone(backbone, path)
    assert sorted(report.missing) == sorted(state.keys() - weights.keys())
    assert 'patch_embed.proj.weight' in report.missing


def test_tool_writes_tiny_weights(tmp_path, capsys):
    source, out = tmp_path / 'llama', tmp_path / 'tiny.safetensors'
    model = make_llama(192, layers=12, heads=3, intermediate_size=512)
    model.save_pretrained(source)
    run_tool('checkpoints/select_llama_weights', source, '--arch', 'tiny', '--out', out)
    assert '84 tensors for the blocks of iLLaMA-tiny' in capsys.readouterr().out
    weights = load_file(out)
    expected = model.model.layers[11].mlp.up_proj.weight
    assert torch.equal(weights['blocks.11.mlp.fc3.weight'], expected)


# Bad input


def test_a_missing_shard_is_named(folder):
    shard = shard_of(folder, 'model.layers.1.mlp.up_proj.weight')
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=shard.name):
        select_llama_weights(folder, MICRO)


def test_shards_of_other_layers_may_be_missing(folder):
    needed = [f'model.layers.{layer}.' for layer in range(3)]
    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    files = index['weight_map'].items()
    keep = {file for key, file in files if key.startswith(tuple(needed))}
    removed = {file for _, file in files} - keep
    assert removed
    for name in removed:
        (folder / name).unlink()
    select_llama_weights(folder, MICRO)


@pytest.mark.parametrize('share', [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_shard_is_named(share, folder):
    shard = shard_of(folder, 'model.layers.1.mlp.up_proj.weight')
    content = shard.read_bytes()
    shard.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf'{shard.name} is truncated'):
        select_llama_weights(folder, MICRO)


def test_fewer_layers_than_the_arch_are_refused(folder):
    arch = MICRO | dict(num_layers=5)
    with pytest.raises(ValueError, match=r'has 4 LLaMA layers, .* needs 5'):
        select_llama_weights(folder, arch)


def test_a_llama_narrower_than_the_arch_is_refused(folder):
    arch = dict(embed_dims=144, num_layers=1, num_heads=3)
    with pytest.raises(ValueError, match=r'llama.* choose a larger LLaMA'):
        select_llama_weights(folder, arch)


def test_heads_that_share_keys_are_refused(tmp_path):
    make_llama(96, layers=3, heads=6, num_key_value_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'k_proj.weight is \[32, 96\].*LLaMA-2-7B'):
        select_llama_weights(tmp_path, MICRO)


def test_what_is_no_llama_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'neither .*index\.json nor model'):
        select_llama_weights(tmp_path, 'tiny')
    save_file({'h.0.attn.weight': torch.ones(1)}, tmp_path / 'model.safetensors')
    with pytest.raises(ValueError, match=r'0 LLaMA layers.*found: h\.0\.attn\.weight'):
        select_llama_weights(tmp_path, 'tiny')
    keys = {f'layers.{i}.x': torch.ones(1) for i in range(3)}
    save_file(keys, tmp_path / 'model.safetensors')
    with pytest.raises(
        ValueError, match=r'no layers\.0\.input_layernorm.*layers\.0\.x'
    ):
        select_llama_weights(tmp_path, MICRO)


@pytest.mark.parametrize('content', ['{', '[]', '{}'])
def test_an_index_that_is_none_is_named(content, folder):
    (folder / 'model.safetensors.index.json').write_text(content)
    with pytest.raises(ValueError, match=r'index\.json'):
        select_llama_weights(folder, MICRO)


def test_a_key_that_the_index_puts_in_the_wrong_shard_is_named(folder):
    path = folder / 'model.safetensors.index.json'
    index = json.loads(path.read_text())
    files, key = index['weight_map'], 'model.layers.0.mlp.up_proj.weight'
    files[key] = next(file for file in files.values() if file != files[key])
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r'lacks layers\.0\.mlp\.up_proj\.weight'):
        select_llama_weights(folder, MICRO)


def test_unknown_options_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"arch='huge': expected one of \('tiny', "):
        select_llama_weights(folder, 'huge')
    with pytest.raises(ValueError, match=r'x\.bin: expected a name that ends in \.pth'):
        write_weights({}, tmp_path / 'x.bin')
