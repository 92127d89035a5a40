"""Patches and learnable positions, with a class token at either end."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbed(nn.Module):
    """Project non-overlapping square patches; pads the image to whole patches.

    Args:
        in_channels: image channels.
        embed_dims: channels of a token.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_channels, H, W) -> tokens (B, h * w, embed_dims), grid (h, w).

        h and w are H and W over the patch size, rounded up: the image is padded
        with zeros at its right and bottom.
        """
        patch_size = self.proj.stride[0]
        pad_h, pad_w = (
            (size + patch_size - 1) // patch_size * patch_size - size
            for size in x.shape[-2:]  # torch.compile knows no -size % patch_size
        )
        if torch.compiler.is_compiling() or pad_h or pad_w:
            x = F.pad(x, (0, pad_w, 0, pad_h))
        x = self.proj(x)
        return x.flatten(2).transpose(1, 2), (x.size(2), x.size(3))


def resize_pos_embed(
    pos_embed: Tensor,
    grid: tuple[int, int],
    new_grid: tuple[int, int],
    cls_position: str = 'last',
) -> Tensor:
    """Resize a positional embedding to another patch grid.

    The class slot is kept as it is; iLLaMA's is the last one. The helpers of mmseg,
    mmpretrain and timm keep a prefix instead; used here they would shift every
    position by one without an error.

    Args:
        pos_embed: (1, h * w + 1, C).
        grid: (h, w) of ``pos_embed``.
        new_grid: (h', w') wanted.
        cls_position: 'last' or 'first', where the class slot is.

    Returns:
        (1, h' * w' + 1, C), bicubic, align_corners False.
    """
    if not torch.compiler.is_compiling() and grid == new_grid:
        return pos_embed  # a graph for any size does not ask; resizing changes nothing
    if cls_position == 'last':
        patches, class_slot = pos_embed[:, :-1], pos_embed[:, -1:]
    else:
        patches, class_slot = pos_embed[:, 1:], pos_embed[:, :1]
    patches = patches.transpose(1, 2).unflatten(2, grid)
    patches = F.interpolate(patches, new_grid, mode='bicubic', align_corners=False)
    patches = patches.flatten(2).transpose(1, 2)
    return join_class_slot(patches, class_slot, cls_position)


def join_class_slot(patches: Tensor, class_slot: Tensor, cls_position: str) -> Tensor:
    """(B, N, C) and (B, 1, C) -> (B, N + 1, C)."""
    parts = [patches, class_slot] if cls_position == 'last' else [class_slot, patches]
    return torch.cat(parts, dim=1)
