"""Checks of the backbone's arguments."""

from collections.abc import Sequence

from illama_seg.errors import UserError


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f'ILLaMA {option}={value!r}: expected one of {choices}')


def check_frozen_stages(value: int, num_blocks: int) -> int:
    if not -1 <= value <= num_blocks:
        raise UserError(
            f'ILLaMA frozen_stages={value}: expected -1 (none), 0 (the embeddings) or '
            f'up to {num_blocks} blocks'
        )
    return value


def resolve_indices(indices: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    wanted = (indices,) if isinstance(indices, int) else indices
    if isinstance(wanted, Sequence) and all(isinstance(i, int) for i in wanted):
        resolved = tuple(i + num_layers if i < 0 else i for i in wanted)
        in_range = all(0 <= i < num_layers for i in resolved)
        if resolved and in_range and resolved == tuple(sorted(set(resolved))):
            return resolved
    raise UserError(
        f'ILLaMA out_indices={indices}: expected increasing block numbers from 0 '
        f'to {num_layers - 1} (negative ones count from the end)'
    )


def resolve_grid(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if (
        patch_size < 1
        or len(size) != 2
        or min(size) < 1
        or any(side % patch_size for side in size)
    ):
        raise UserError(
            f'ILLaMA img_size={img_size}: expected one multiple of patch_size='
            f'{patch_size}, or two (height, width). It only sets the grid of the '
            'positional embedding: images of other sizes are taken at run time'
        )
    return size[0] // patch_size, size[1] // patch_size
