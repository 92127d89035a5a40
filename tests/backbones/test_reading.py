"""Images are read band by band, and asked later, with the results of the whole."""

import pytest
import torch
from hypothesis import given, strategies as st

from illama_seg.backbones import ILLaMA
from illama_seg.errors import UserError

ARCH = dict(embed_dims=24, num_layers=3, num_heads=2)
PATCH = 4
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def build(dtype=torch.float64, **options):
    """A small backbone of large weights, so that attention is far from uniform."""
    torch.manual_seed(0)
    options = (
        dict(arch=ARCH, img_size=16, patch_size=PATCH, out_indices=(0, 2)) | options
    )
    model = ILLaMA(**options).to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def picture(rows, columns, dtype=torch.float64, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, 3, rows * PATCH, columns * PATCH, dtype=dtype)


def in_bands(model, image, heights, **options):
    """Read bands of so many rows of patches; return all maps and the last reading."""
    reading, maps, top = None, [], 0
    for height in heights:
        band = image[:, :, top * PATCH : (top + height) * PATCH]
        reading = model.read(band, reading, **(options if reading is None else {}))
        maps.append(reading.maps)
        top += height
    return [torch.cat(level, 2) for level in zip(*maps, strict=True)], reading


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def reference_mask(rows, columns, mask, chunk=None, memory=None):
    """Write the mask token by token; the class token is the last."""
    n = rows * columns
    seen = torch.zeros(n + 1, n + 1, dtype=torch.bool)
    for i in range(n + 1):
        for j in range(n + 1):
            row_j = j // columns
            if i == n:
                sees = j == n or memory is None or row_j >= rows - memory
            elif j == n:
                sees = False
            else:
                row_i = i // columns
                start = (
                    row_i
                    if mask == 'strict'
                    else row_i // (chunk or rows) * (chunk or rows)
                )
                end = start + (1 if mask == 'strict' else (chunk or rows))
                sees = row_j < end and (memory is None or row_j >= start - memory)
                if mask == 'strict':
                    sees = sees and j <= i
            seen[i, j] = sees
    return seen


def reference_forward(model, image, seen):
    """Maps of the last block by the formula, with a mask of its own."""
    x, (h, w) = model.patch_embed(image)
    x = torch.cat([x, model.cls_token.expand(len(x), -1, -1)], 1)
    if model.pos_embed is not None:
        grid = model.pos_embed[:, :-1].transpose(1, 2).unflatten(2, model.grid_size)
        grid = torch.nn.functional.interpolate(grid, (h, w), mode='bicubic')
        x = x + torch.cat([grid.flatten(2).transpose(1, 2), model.pos_embed[:, -1:]], 1)
    heads, dims = model.num_heads, model.embed_dims // model.num_heads
    frequencies = 10000.0 ** (-torch.arange(0, dims, 2).double() / dims)
    turn = torch.polar(
        torch.ones(()).double(), torch.arange(x.size(1))[:, None].double() * frequencies
    )

    def turned(part):
        pairs = torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2)

    for block in model.blocks:
        qkv = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, dims))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        scores = turned(q) @ turned(k).transpose(-2, -1) * dims**-0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        x = x + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return x


CASES = [
    dict(attn_mask='strict'),
    dict(attn_mask='strict', memory_rows=2),
    dict(attn_mask='chunked', chunk_rows=1),
    dict(attn_mask='chunked', chunk_rows=2),
    dict(attn_mask='chunked', chunk_rows=2, memory_rows=1),
    dict(attn_mask='chunked', chunk_rows=3, memory_rows=4),
    dict(attn_mask='chunked', chunk_rows=2, memory_rows=0),
    dict(attn_mask='strict', memory_rows=0),
]


@pytest.mark.parametrize('case', [*CASES, dict(attn_mask='chunked')], ids=str)
def test_every_mask_is_that_of_the_formula(case):
    model = build(**case)
    image = picture(7, 5)
    mask = case['attn_mask'], case.get('chunk_rows'), case.get('memory_rows')
    expected = reference_forward(model, image, reference_mask(7, 5, *mask))
    patches = expected[:, :-1].transpose(1, 2).unflatten(2, (7, 5))
    assert difference(model(image)[-1], patches) < 1e-6  # the table is in float32
    assert difference(model.read(image).maps[-1], patches) < 1e-6
    model.out_type = 'raw'
    assert difference(model(image)[-1], expected) < 1e-6


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_band_after_band_equals_the_whole_image(case, dtype):
    model = build(dtype, **case)
    chunk = case.get('chunk_rows', 1)
    image = picture(13, 5, dtype)
    with torch.no_grad():
        whole = model(image)
        heights = [chunk, 3 * chunk, 2 * chunk]
        heights.append(13 - sum(heights))
        if heights[-1] <= 0:
            heights = [chunk, 2 * chunk, 13 - 3 * chunk]
        maps, reading = in_bands(model, image, heights, total_rows=13)
    for found, expected in zip(maps, whole, strict=True):
        assert difference(found, expected) < TOLERANCE[dtype]
    assert reading.rows == 13 and reading.is_complete
    assert reading.kept_rows == case.get('memory_rows', 13)


@given(
    heights=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    columns=st.integers(1, 5),
)
def test_any_bands_equal_the_whole_image(heights, columns):
    model = build(attn_mask='strict', memory_rows=3)
    image = picture(sum(heights), columns, batch=1)
    with torch.no_grad():
        maps, _ = in_bands(model, image, heights, total_rows=sum(heights))
        assert difference(maps[-1], model(image)[-1]) < 1e-10


def test_without_memory_a_band_is_an_image_of_its_own():
    model = build(attn_mask='chunked', chunk_rows=2, memory_rows=0, with_rotary=False)
    model.pos_embed = None
    image = picture(6, 5)
    alone = [model(part)[-1] for part in image.split(2 * PATCH, dim=2)]
    assert difference(model(image)[-1], torch.cat(alone, dim=2)) < 1e-10


@pytest.mark.parametrize('rows', [1, 100])
def test_a_memory_of_rows_bounds_what_is_held(rows):
    model = build(torch.float32, attn_mask='strict', memory_rows=2, pos_axes='columns')
    reading = None
    with torch.no_grad():
        for _ in range(4 if rows == 1 else 1):
            reading = model.read(picture(rows, 3, torch.float32), reading)
    for part in reading.keys[0]:
        assert part.untyped_storage().nbytes() == part.nbytes == 2 * 24 * 6 * 4


def test_a_chunk_that_is_not_whole_is_refused_unless_it_is_the_last():
    model = build(attn_mask='chunked', chunk_rows=2)
    with pytest.raises(
        UserError, match=r'0 rows .* were read before, and this band has 1'
    ):
        model.read(picture(1, 4), total_rows=4)
    model.set_chunk_rows(None)
    with pytest.raises(UserError, match='chunk_rows=None'):
        model.read(picture(2, 4), total_rows=4)


@pytest.mark.parametrize('total', [5.5, -1, 0, '4'])
def test_a_total_that_is_no_number_of_rows_is_refused(total):
    with pytest.raises(UserError, match=r'total_rows=.*: expected an integer from 1'):
        build(attn_mask='strict').read(picture(1, 4), total_rows=total)


def test_another_total_than_before_is_refused():
    model = build(attn_mask='strict')
    reading = model.read(picture(1, 4), total_rows=4)
    with pytest.raises(UserError, match=r'total_rows=9, but the first .* of 4'):
        model.read(picture(1, 4), reading, total_rows=9)


def test_queries_are_trained_beside_adapters_and_start_apart():
    pytest.importorskip('peft')
    model = build(attn_mask='strict', num_queries=2, lora=dict(r=2, lora_alpha=4))
    assert model.query_offsets.requires_grad
    model.init_weights()
    first, second = model.query_offsets.detach()
    assert first.std() > 0.01 and not torch.allclose(first, second)


def test_columns_alone_or_no_positions_need_no_height():
    for options in (dict(pos_axes='columns'), dict(with_pos_embed=False)):
        model = build(attn_mask='strict', **options)
        image = picture(6, 7)
        with torch.no_grad():
            maps, reading = in_bands(model, image, [2, 1, 3])
            assert difference(maps[-1], model(image)[-1]) < 1e-10
        assert not reading.is_complete


def test_changing_a_later_row_changes_nothing_before():
    model = build(torch.float32, attn_mask='strict')
    image = picture(6, 5, torch.float32)
    other = image.clone()
    other[:, :, 4 * PATCH :] += 1
    with torch.no_grad():
        a, b = (
            in_bands(model, x, [2, 2, 2], total_rows=6)[0][-1] for x in (image, other)
        )
    assert torch.equal(a[:, :, :4], b[:, :, :4])
    assert not torch.equal(a[:, :, 4:], b[:, :, 4:])


# Queries


MASKS = ['soft', 'strict', 'chunked', 'bidirectional']


@pytest.mark.parametrize('mask', MASKS)
def test_a_query_without_offset_is_the_class_token(mask):
    model = build(attn_mask=mask, out_type='raw', **half_open(mask))
    image = picture(5, 6)
    with torch.no_grad():
        expected = model(image)[-1][:, -1]
        asked = model.ask(model.read(image), torch.zeros(1, 24, dtype=torch.float64))
    assert difference(asked[:, 0], expected) < 1e-10


def half_open(mask):
    return dict(soft_mask_rate=0.3) if mask == 'soft' else {}


@pytest.mark.parametrize('mask', MASKS)
def test_patches_are_bit_for_bit_those_of_a_reading_whatever_is_asked(mask):
    model = build(torch.float32, attn_mask=mask, num_queries=3)
    image = picture(5, 6, torch.float32)
    with torch.no_grad():
        *maps, tokens = model(image)
        assert tokens.shape == (2, 3, 24)
        for found, alone in zip(maps, model.read(image).maps, strict=True):
            assert torch.equal(found, alone)
        model.query_offsets = None
        for found, alone in zip(maps, model(image), strict=True):
            assert difference(found, alone) < 1e-5


def test_no_query_changes_another():
    model = build(torch.float64, attn_mask='strict')
    with torch.no_grad():
        reading = model.read(picture(5, 6))
        offsets = torch.randn(7, 24, dtype=torch.float64)
        all_of_them = model.ask(reading, offsets)
        order = torch.randperm(7)
        torch.testing.assert_close(
            model.ask(reading, offsets[order]), all_of_them[:, order]
        )
        for number in range(7):
            alone = model.ask(reading, offsets[number : number + 1])
            assert difference(alone[:, 0], all_of_them[:, number]) < 1e-10


def test_a_question_later_is_the_question_at_once():
    model = build(attn_mask='chunked', chunk_rows=2, num_queries=4)
    image = picture(6, 5)
    with torch.no_grad():
        *_, tokens = model(image)
        _, reading = in_bands(model, image, [2, 4], total_rows=6)
        assert difference(model.ask(reading, model.query_offsets), tokens) < 1e-10


@pytest.mark.parametrize('mask', ['soft', 'strict', 'chunked'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_queries_are_trained_and_the_frozen_backbone_is_not(mask, with_cp):
    model = build(
        attn_mask=mask, num_queries=4, frozen_stages=3, with_cp=with_cp
    ).train()
    *_, tokens = model(picture(4, 4))
    tokens.square().sum().backward()
    trained = [n for n, p in model.named_parameters() if p.grad is not None]
    assert trained == ['query_offsets'] and model.query_offsets.grad.abs().min() > 0


@pytest.mark.parametrize('mask', ['strict', 'chunked'])
def test_recomputing_gives_the_same_gradients(mask):
    gradients = []
    for with_cp in (False, True):
        model = build(attn_mask=mask, num_queries=2, with_cp=with_cp).train()
        *maps, tokens = model(picture(4, 5))
        (maps[-1].square().sum() + tokens.square().sum()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])
        assert gradient.abs().sum() > 0, name


# Refusals


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(attn_mask='soft'), r'denominators read the whole image \(Eq\. 2\)'),
        (dict(attn_mask='bidirectional'), 'every patch sees the whole image'),
        (dict(attn_mask='chunked'), 'whole chunks, chunk_rows=None'),
    ],
)
def test_a_mask_that_looks_ahead_is_not_read_in_bands(options, text):
    model = build(**options)
    with pytest.raises(UserError, match=text):
        in_bands(model, picture(4, 4), [2, 2], total_rows=4)


@pytest.mark.parametrize(
    ('heights', 'text'),
    [
        ([2, 3], '4 rows of patches, and 2 were read: a band of 3'),
        ([4, 1], 'to its end'),
    ],
)
def test_more_rows_than_the_image_has_are_refused(heights, text):
    model = build(attn_mask='strict')
    with pytest.raises(UserError, match=text):
        in_bands(model, picture(5, 4), heights, total_rows=4)


def test_what_does_not_follow_is_refused():
    model = build(attn_mask='strict', with_pos_embed=False)
    reading = model.read(picture(2, 4))
    with pytest.raises(
        UserError, match='2 images of 5 patches a row does not continue'
    ):
        model.read(picture(2, 5), reading)
    with pytest.raises(UserError, match='of another backbone'):
        build(attn_mask='strict', with_pos_embed=False).read(picture(2, 4), reading)
    cut = model.read(picture(3, 4)[:, :, :-1], reading)
    assert cut.rows == 5 and cut.is_complete
    with pytest.raises(UserError, match='to its end'):
        model.read(picture(1, 4), cut)
    with pytest.raises(UserError, match='whole chunks, chunk_rows=2'):
        in_bands(
            build(attn_mask='chunked', chunk_rows=2),
            picture(4, 4),
            [1, 3],
            total_rows=4,
        )


def test_positions_of_a_grid_need_the_height():
    model = build(attn_mask='strict')
    reading = model.read(picture(2, 4))
    assert reading.is_complete  # the whole image, as nothing else was said
    with pytest.raises(UserError, match='to its end'):
        model.read(picture(2, 4), reading)


@pytest.mark.parametrize(
    'options',
    [
        dict(attn_mask='soft', chunk_rows=2),
        dict(attn_mask='chunked', chunk_rows=0),
        dict(attn_mask='soft', memory_rows=2),
        dict(attn_mask='chunked', memory_rows=2),
        dict(num_queries=3, out_type='raw'),
        dict(attn_mask='strict', num_queries=3, memory_rows=0),
        dict(attn_mask='strict', memory_rows=-1),
        dict(num_queries=-1),
        dict(attn_mask='chunked', cls_position='first'),
        dict(num_queries=2, cls_position='first'),
        dict(pos_axes='columns', cls_position='first'),
        dict(pos_axes='rows'),
    ],
    ids=str,
)
def test_arguments_that_exclude_each_other_are_named(options):
    name = list(options)[-1] if 'cls_position' not in options else 'cls_position'
    with pytest.raises(UserError, match=name):
        build(**options)


def test_the_rows_of_a_chunk_may_change_between_calls():
    model = build(attn_mask='chunked', chunk_rows=1)
    image = picture(6, 4)
    with torch.no_grad():
        for rows in (1, 3, None):
            model.set_chunk_rows(rows)
            expected = build(attn_mask='chunked', chunk_rows=rows)(image)[-1]
            assert torch.equal(model(image)[-1], expected)
    with pytest.raises(UserError, match='chunk_rows=2 has no effect'):
        build(attn_mask='strict').set_chunk_rows(2)


def test_the_norm_leads_from_the_released_model_to_the_strict_one():
    image = picture(5, 6)
    with torch.no_grad():
        strict, released = build(attn_mask='strict')(image)[-1], build()(image)[-1]
        model = build(soft_mask_norm=1.0)
        assert difference(model(image)[-1], strict) < 1e-10
        model.set_soft_mask_norm(0.0)
        assert difference(model(image)[-1], released) < 1e-10
        model.set_soft_mask_norm(0.5)
        assert difference(model(image)[-1], released) > 1e-3
        model.set_soft_mask_rate(1.0)
        both_ways = build(attn_mask='bidirectional')(image)[-1]
        assert difference(model(image)[-1], both_ways) < 1e-10


@pytest.mark.parametrize(
    'options', [dict(soft_mask_norm=1.5), dict(attn_mask='strict', soft_mask_norm=0.5)]
)
def test_a_norm_out_of_its_range_is_refused(options):
    with pytest.raises(UserError, match=r'soft_mask_norm=[01]\.5: expected'):
        build(**options)
