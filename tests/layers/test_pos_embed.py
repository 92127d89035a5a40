import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional as F

from illama_seg.checkpoints import load_released
from illama_seg.layers import PatchEmbed, resize_pos_embed

SIDES = st.integers(1, 9)


def sampled(patches, grid, new_grid):
    """Bicubic resize (a = -3/4, half-pixel centres, border repeated), written out."""

    def weights(size, new_size):
        matrix = torch.zeros(new_size, size, dtype=torch.float64)
        for row in range(new_size):
            centre = (row + 0.5) * size / new_size - 0.5
            base = int(centre // 1)
            for column in range(base - 1, base + 3):
                d, a = abs(centre - column), -0.75
                if d <= 1:
                    weight = (a + 2) * d**3 - (a + 3) * d**2 + 1
                else:
                    weight = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
                matrix[row, min(max(column, 0), size - 1)] += weight
        return matrix

    maps = patches.double().reshape(*grid, -1)
    rows, columns = (weights(*sizes) for sizes in zip(grid, new_grid, strict=True))
    return torch.einsum('yh,xw,hwc->yxc', rows, columns, maps).flatten(0, 1)


def test_resized_as_the_released_code_does(golden, golden_checkpoint, relative_error):
    pos_embed = load_released(golden_checkpoint)['pos_embed']
    resized = resize_pos_embed(pos_embed, (4, 4), (6, 6))
    assert relative_error(resized, golden['pos_embed_6x6']) < 1e-5


@given(height=SIDES, width=SIDES, new_height=SIDES, new_width=SIDES)
def test_any_grid_is_resized_bicubically(height, width, new_height, new_width):
    grid, new_grid = (height, width), (new_height, new_width)
    pos_embed = torch.randn(1, height * width + 1, 3)
    resized = resize_pos_embed(pos_embed, grid, new_grid)
    assert resized.shape == (1, new_height * new_width + 1, 3)
    expected = sampled(pos_embed[0, :-1], grid, new_grid)
    torch.testing.assert_close(resized[0, :-1].double(), expected, rtol=0, atol=1e-5)


@given(height=SIDES, width=SIDES, new_height=SIDES, new_width=SIDES)
def test_class_slot_stays_last_when_resized(height, width, new_height, new_width):
    pos_embed = torch.randn(1, height * width + 1, 3)
    resized = resize_pos_embed(pos_embed, (height, width), (new_height, new_width))
    assert torch.equal(resized[:, -1], pos_embed[:, -1])


def test_same_grid_is_returned_untouched():
    pos_embed = torch.randn(1, 7, 3)
    assert resize_pos_embed(pos_embed, (2, 3), (2, 3)) is pos_embed


def test_same_number_of_patches_in_another_grid_is_resized():
    pos_embed = torch.randn(1, 7, 3)
    resized = resize_pos_embed(pos_embed, (2, 3), (3, 2))
    assert resized.shape == pos_embed.shape
    assert not torch.allclose(resized, pos_embed)


def test_gradient_flows_back_through_the_resize():
    pos_embed = torch.randn(1, 7, 3, requires_grad=True)
    resize_pos_embed(pos_embed, (2, 3), (5, 4)).sum().backward()
    assert (pos_embed.grad != 0).all()


@given(height=st.integers(1, 13), width=st.integers(1, 13))
def test_image_is_padded_at_its_right_and_bottom(height, width):
    embed = PatchEmbed(2, 5, 4)
    image = torch.randn(1, 2, height, width)
    rows, columns = -(-height // 4), -(-width // 4)
    padded = torch.zeros(1, 2, 4 * rows, 4 * columns)
    padded[..., :height, :width] = image
    tokens, grid = embed(image)
    assert grid == (rows, columns)
    assert tokens.shape == (1, rows * columns, 5)
    expected, _ = embed(padded)
    assert torch.equal(tokens, expected)


def test_patches_come_in_raster_order():
    embed = PatchEmbed(3, 6, 4)
    image = torch.randn(2, 3, 8, 12)
    tokens, grid = embed(image)
    assert grid == (2, 3)
    for index in range(6):
        y, x = 4 * (index // 3), 4 * (index % 3)
        patch = image[:, :, y : y + 4, x : x + 4].flatten(1)
        expected = F.linear(patch, embed.proj.weight.flatten(1), embed.proj.bias)
        torch.testing.assert_close(tokens[:, index], expected)


def test_whole_patches_are_not_copied_into_a_padded_image(monkeypatch):
    monkeypatch.setattr(F, 'pad', lambda *args: pytest.fail('padded'))
    assert PatchEmbed(3, 6, 4)(torch.randn(1, 3, 8, 4))[1] == (2, 1)
