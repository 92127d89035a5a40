"""Named sizes of iLLaMA and the scale of its random weights (arXiv 2404.06773)."""

from collections.abc import Mapping

from illama_seg.errors import UserError

# Table 11. The head dimension is 64 in all of them.
ARCHITECTURES = {
    'tiny': dict(embed_dims=192, num_layers=12, num_heads=3),
    'small': dict(embed_dims=384, num_layers=12, num_heads=6),
    'base': dict(embed_dims=768, num_layers=12, num_heads=12),
    'large': dict(embed_dims=1024, num_layers=24, num_heads=16),
}
INIT_STD = 0.02


def resolve_arch(arch: str | Mapping[str, int]) -> tuple[int, int, int]:
    """Return embedding width, number of layers and number of heads.

    Args:
        arch: name in ``ARCHITECTURES``, or a dict with the keys ``embed_dims``,
            ``num_layers`` and ``num_heads``.

    Raises:
        UserError: for another name, other keys, or numbers that do not fit together.
    """
    keys = ('embed_dims', 'num_layers', 'num_heads')
    sizes = ARCHITECTURES.get(arch) if isinstance(arch, str) else arch
    if not isinstance(sizes, Mapping) or set(sizes) != set(keys):
        raise UserError(
            f'expected one of {tuple(ARCHITECTURES)}, or a dict with the keys {keys}',
            arch=arch,
        )
    embed_dims, num_layers, num_heads = (sizes[key] for key in keys)
    if min(embed_dims, num_layers, num_heads) < 1 or embed_dims % (2 * num_heads):
        raise UserError(
            'expected positive numbers, embed_dims a multiple of 2 * num_heads (rotary '
            'positions turn pairs of channels in each head)',
            arch=arch,
        )
    return embed_dims, num_layers, num_heads
