"""Places of patches on the training grid: formulas, every mask, bands, export."""

import math

import pytest
import torch

from illama_seg.backbones import ILLaMA
from illama_seg.errors import UserError
from illama_seg.layers import apply_rotary, class_table, grid_table, rotary_table

PATCH = 4
KINDS = ('scaled', 'neighbour', 'axial')
every_kind = pytest.mark.parametrize('kind', KINDS)


def build(kind, size=(12, 20), dtype=torch.float64, **options):
    torch.manual_seed(0)
    options = dict(attn_mask='strict', out_indices=(1,)) | options
    arch = dict(embed_dims=24, num_layers=2, num_heads=3)
    model = ILLaMA(arch, size, PATCH, rotary_grid=kind, **options).to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def picture(rows, columns, dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(2, 3, rows * PATCH, columns * PATCH, dtype=dtype)


def turned(x, angles):
    """Rotate the pair i of a vector of d channels by the angle i."""
    out = x.clone()
    for i, angle in enumerate(angles):
        a, b = x[2 * i], x[2 * i + 1]
        out[2 * i] = a * math.cos(angle) - b * math.sin(angle)
        out[2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def angles_of(kind, r, c, grid, trained, d):
    """Write the equations again."""
    (h, w), (h0, w0) = grid, trained
    if kind == 'axial':
        by_row = [r * h0 / h * 10000 ** (-4 * i / d) for i in range(d // 4)]
        return by_row + [c * w0 / w * 10000 ** (-4 * i / d) for i in range(d // 4)]
    p = w0 * (r * h0 / h) + c * w0 / w if kind == 'scaled' else w0 * r + c
    return [p * 10000 ** (-2 * i / d) for i in range(d // 2)]


@every_kind
@pytest.mark.parametrize('grid', [(3, 5), (5, 4), (2, 9), (1, 1)])
def test_a_patch_is_turned_by_the_equations(kind, grid):
    d, trained = 8, (3, 5)
    table = grid_table(kind, (0, grid[0]), grid, trained, head_dim=d)
    x = torch.randn(grid[0] * grid[1], d)
    found = apply_rotary(x, table)
    for n in range(len(x)):
        r, c = divmod(n, grid[1])
        expected = turned(x[n], angles_of(kind, r, c, grid, trained, d))
        torch.testing.assert_close(found[n], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind', ['scaled', 'neighbour'])
def test_on_the_training_grid_they_are_the_raster_order(kind):
    table = grid_table(kind, (0, 3), (3, 5), (3, 5), head_dim=8)
    torch.testing.assert_close(table, rotary_table(15, 8), rtol=1e-6, atol=1e-6)
    assert torch.equal(class_table(kind, (3, 5), head_dim=8), rotary_table(16, 8)[15:])


@pytest.mark.parametrize('kind', ['scaled', 'neighbour'])
@pytest.mark.parametrize('mask', ['strict', 'soft', 'chunked', 'bidirectional'])
def test_on_the_training_grid_a_model_is_the_released_one(kind, mask):
    ours, released = build(kind, attn_mask=mask), build('raster', attn_mask=mask)
    with torch.no_grad():
        ours, released = (model(picture(3, 5))[0] for model in (ours, released))
    torch.testing.assert_close(ours, released, rtol=1e-5, atol=1e-5)


def test_other_grids_differ_by_kind():
    with torch.no_grad():
        maps = [build(kind)(picture(4, 7))[0] for kind in ('raster', *KINDS)]
    for index, one in enumerate(maps):
        assert all(not torch.allclose(one, other) for other in maps[:index])


@every_kind
@pytest.mark.parametrize(
    'mask', [dict(attn_mask='strict'), dict(attn_mask='chunked', chunk_rows=2)], ids=str
)
def test_bands_and_queries_equal_the_whole_image(kind, mask):
    model = build(kind, num_queries=3, **mask)
    image, reading = picture(7, 4), None
    with torch.no_grad():
        maps, tokens = model(image)
        for top, end in ((0, 2), (2, 6), (6, 7)):
            band = image[:, :, top * PATCH : end * PATCH]
            reading = model.read(band, reading, None if reading else 7)
            torch.testing.assert_close(reading.maps[0], maps[:, :, top:end])
        found = model.ask(reading, model.query_offsets)
    torch.testing.assert_close(found, tokens)


@every_kind
def test_a_query_without_offset_is_the_class_token(kind):
    model = build(kind, out_type='raw')
    with torch.no_grad():
        token = model(picture(4, 6))[0][:, -1:]
        found = model.ask(model.read(picture(4, 6)), torch.zeros(1, 24).double())
    torch.testing.assert_close(found, token)


def test_neighbours_need_no_height():
    for kind, options in (('neighbour', {}), ('raster', {})):
        model = build(kind, pos_axes='columns', **options)
        reading = model.read(picture(2, 4))
        assert not reading.is_complete
    assert build('scaled', pos_axes='columns').read(picture(2, 4)).is_complete


def test_the_training_size_is_an_argument():
    one = build('scaled', size=(24, 40), rotary_img_size=(12, 20))
    other = build('scaled', size=(12, 20))
    assert one.train_grid == other.train_grid == (3, 5) and one.grid_size == (6, 10)
    one.pos_embed = other.pos_embed = None
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(one(picture(4, 7)), other(picture(4, 7)), strict=True):
            assert torch.equal(ours, theirs)


@every_kind
def test_a_class_token_at_the_start_is_placed_as_at_the_end(kind):
    first = build(kind, attn_mask='bidirectional', cls_position='first')
    last = build(kind, attn_mask='bidirectional')
    last.load_state_dict(first.state_dict())
    first.pos_embed = last.pos_embed = None
    with torch.no_grad():
        torch.testing.assert_close(first(picture(4, 6)), last(picture(4, 6)))


@every_kind
def test_one_graph_serves_any_size(kind):
    model = build(kind, dtype=torch.float32, attn_mask='soft')
    compiled = torch.compile(model, backend='aot_eager', dynamic=True, fullgraph=True)
    with torch.no_grad():
        for size in ((3, 5), (4, 7), (5, 3)):
            image = picture(*size, dtype=torch.float32)
            torch.testing.assert_close(
                compiled(image), model(image), rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kind='raster', rotary_img_size=8), 'rotary_img_size=8 has no effect'),
        (dict(kind='scaled', with_rotary=False), "rotary_grid='scaled' has no effect"),
        (dict(kind='diagonal'), "rotary_grid='diagonal': expected one of"),
    ],
)
def test_positions_without_effect_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_axial_needs_two_pairs_for_each_axis():
    with pytest.raises(UserError, match='heads of 6 channels: expected a multiple'):
        ILLaMA(
            dict(embed_dims=12, num_layers=1, num_heads=2), 8, 4,
            out_indices=0, rotary_grid='axial',
        )  # fmt: skip
