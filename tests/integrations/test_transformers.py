"""The strictly causal backbone against Hugging Face's LlamaModel, which knows nothing
of this package: an oracle for readings in bands."""

import pytest
import torch

from illama_seg.backbones import ILLaMA
from illama_seg.errors import UserError

transformers = pytest.importorskip('transformers')
from illama_seg.integrations.transformers import (  # noqa: E402
    embed_images,
    load_llama_model,
    to_llama_model,
)

ARCH = dict(embed_dims=24, num_layers=3, num_heads=3)


def build(seed=0, dtype=torch.float32, **options):
    torch.manual_seed(seed)
    options = dict(attn_mask='strict', out_indices=(0, 1, 2)) | options
    model = ILLaMA(ARCH, (12, 20), 4, **options).to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def image(rows, columns, dtype=torch.float32):
    torch.manual_seed(1)
    return torch.randn(2, 3, 4 * rows, 4 * columns, dtype=dtype)


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def layers():
    """Run a LlamaModel; return what each of its layers gives, and its output."""

    def run(llama, **inputs):
        outputs = []
        hooks = [
            layer.register_forward_hook(lambda *args: outputs.append(args[2]))
            for layer in llama.layers
        ]
        with torch.no_grad():
            last = llama(**inputs).last_hidden_state
        for hook in hooks:
            hook.remove()
        return [x if torch.is_tensor(x) else x[0] for x in outputs], last

    return run


@pytest.mark.parametrize('size', [(3, 5), (5, 4), (1, 1)])
def test_every_layer_equals_the_block(size, layers):
    backbone = build(out_type='raw')
    llama = to_llama_model(backbone)
    x = embed_images(backbone, image(*size))
    word = llama.embed_tokens(torch.zeros(2, 1, dtype=torch.long))
    found, _ = layers(llama, inputs_embeds=torch.cat([x, word], dim=1))
    with torch.no_grad():
        for ours, theirs in zip(backbone(image(*size)), found, strict=True):
            assert difference(ours, theirs) < 1e-5


def test_the_final_norm_is_that_of_the_class_token(layers):
    backbone = build(out_type='cls_token', out_indices=(2,))
    llama = to_llama_model(backbone)
    x = embed_images(backbone, image(3, 5))
    word = llama.embed_tokens(torch.zeros(2, 1, dtype=torch.long))
    _, last = layers(llama, inputs_embeds=torch.cat([x, word], dim=1))
    with torch.no_grad():
        assert difference(backbone(image(3, 5))[0], last[:, -1]) < 1e-5


@pytest.mark.parametrize('options', [{}, dict(pos_axes='columns')], ids=str)
def test_bands_with_its_cache_equal_a_reading_in_bands(options, layers):
    backbone = build(**options)
    llama = to_llama_model(backbone)
    cache = transformers.DynamicCache(config=llama.config)
    pixels, reading, top = image(7, 5), None, 0
    for rows in (1, 3, 1, 2):
        band = pixels[:, :, 4 * top : 4 * (top + rows)]
        x = embed_images(backbone, band, top, 7)
        found, _ = layers(llama, inputs_embeds=x, past_key_values=cache, use_cache=True)
        with torch.no_grad():
            reading = backbone.read(band, reading, total_rows=7)
        for ours, theirs in zip(reading.maps, found, strict=True):
            assert difference(ours.flatten(2).transpose(1, 2), theirs) < 1e-5
        top += rows
    assert cache.get_seq_length() == reading.keys[0].k.size(2) == 35
    for ours, theirs in zip(reading.keys, cache.layers, strict=True):
        assert difference(ours.v, theirs.values) < 1e-5
        # Its keys are the same with their channels in the other order.
        keys = theirs.keys.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
        assert difference(ours.k, keys) < 1e-5


def test_a_question_asked_of_its_cache_is_the_class_token(layers):
    backbone = build()
    llama = to_llama_model(backbone)
    cache = transformers.DynamicCache(config=llama.config)
    x = embed_images(backbone, image(4, 5))
    layers(llama, inputs_embeds=x, past_key_values=cache, use_cache=True)
    word = llama.embed_tokens(torch.zeros(2, 1, dtype=torch.long))
    found, _ = layers(llama, inputs_embeds=word, past_key_values=cache, use_cache=True)
    with torch.no_grad():
        reading = backbone.read(image(4, 5))
        token = backbone.ask(reading, torch.zeros(1, 24))
    assert difference(token, found[-1]) < 1e-5


def test_there_and_back_through_its_files(tmp_path):
    backbone = build(out_type='cls_token', out_indices=(2,))
    to_llama_model(backbone).save_pretrained(tmp_path)
    llama = transformers.LlamaModel.from_pretrained(tmp_path)
    other = build(seed=5, out_type='cls_token', out_indices=(2,))
    own = other.patch_embed.proj.weight.clone()
    load_llama_model(other, llama)
    assert torch.equal(other.patch_embed.proj.weight, own)
    other.patch_embed.load_state_dict(backbone.patch_embed.state_dict())
    other.pos_embed.data.copy_(backbone.pos_embed)
    load_llama_model(other, llama)
    with torch.no_grad():
        torch.testing.assert_close(other(image(3, 5)), backbone(image(3, 5)))
    for name, ours in backbone.blocks.state_dict().items():
        assert torch.equal(ours, other.blocks.state_dict()[name]), name


def test_its_training_leaves_the_backbone_alone():
    backbone = build()
    before = backbone.blocks[0].attn.proj.weight.clone()
    llama = to_llama_model(backbone)
    llama(inputs_embeds=embed_images(backbone, image(2, 2))).last_hidden_state.sum()
    torch.nn.init.zeros_(llama.layers[0].self_attn.o_proj.weight)
    assert torch.equal(backbone.blocks[0].attn.proj.weight, before)


@pytest.mark.parametrize(
    ('options', 'name'),
    [
        (dict(attn_mask='soft'), 'attn_mask'),
        (dict(ffn='mlp'), 'ffn'),
        (dict(norm='layer'), 'norm'),
        (dict(with_rotary=False), 'with_rotary'),
        (dict(memory_rows=2), 'memory_rows'),
        (dict(cls_position='first'), 'cls_position'),
    ],
)
def test_what_is_no_llama_is_refused(options, name):
    with pytest.raises(UserError, match=f'{name}=.* is no LlamaModel'):
        to_llama_model(build(**options))


@pytest.mark.parametrize(
    ('options', 'name'),
    [
        (dict(num_hidden_layers=2), 'num_hidden_layers'),
        (dict(num_key_value_heads=1), 'num_key_value_heads'),
        (dict(attention_bias=False), 'attention_bias'),
        (dict(rms_norm_eps=1e-5), 'rms_norm_eps'),
        (dict(head_dim=16), 'head_dim'),
        (dict(rope_parameters=dict(rope_type='default', rope_theta=5e5)), 'rope_para'),
    ],
)
def test_a_model_of_another_form_is_refused(options, name):
    backbone = build()
    config = transformers.LlamaConfig(
        **(to_llama_model(backbone).config.to_dict() | options)
    )
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match=name):
        load_llama_model(backbone, transformers.LlamaModel(config))
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_causal_language_model_has_one_inside():
    backbone, other = build(), build(seed=5)
    config = to_llama_model(backbone).config
    whole = transformers.LlamaForCausalLM(config)
    whole.model.load_state_dict(to_llama_model(backbone).state_dict())
    load_llama_model(other, whole)
    for name, ours in backbone.blocks.state_dict().items():
        assert torch.equal(ours, other.blocks.state_dict()[name]), name


def test_other_models_are_named():
    with pytest.raises(UserError, match='llama is of str: expected a LlamaModel'):
        load_llama_model(build(), 'folder')
    with pytest.raises(UserError, match='backbone is of Linear: expected an ILLaMA'):
        to_llama_model(torch.nn.Linear(2, 2))


@pytest.mark.parametrize('band', [(1, None), (-1, 4), (3, 4), (4, 4)])
def test_a_band_outside_the_image_is_refused(band):
    with pytest.raises(UserError, match='expected a band inside the image'):
        embed_images(build(), image(2, 5), *band)
    assert embed_images(build(pos_axes='columns'), image(2, 5), 9).shape == (2, 10, 24)
