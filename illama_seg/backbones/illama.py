"""iLLaMA, the decoder-only vision transformer (arXiv 2404.06773).

Over 300 lines: each argument of the one backbone is explained here.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from illama_seg.backbones.arguments import (
    check_choice,
    check_frozen_stages,
    check_images,
    check_last_blocks,
    check_rotary,
    check_rows,
    check_together,
    resolve_grid,
    resolve_indices,
)
from illama_seg.backbones.lora import add_lora
from illama_seg.backbones.reading import Reading, ask, read
from illama_seg.backbones.sequence import (
    as_map,
    mask_of_image,
    positions,
    rotary_of,
    run_block,
)
from illama_seg.backbones.weights import draw_weights, load_init_cfg
from illama_seg.checkpoints import GRID_KEY, MASK_KEY
from illama_seg.errors import UserError
from illama_seg.layers import (
    FFNS,
    MASKS,
    NORMS,
    ROTARY_GRIDS,
    Block,
    PatchEmbed,
    SoftMask,
    join_class_slot,
    make_norm,
)
from illama_seg.layers.architectures import resolve_arch


@MODELS.register_module()
class ILLaMA(BaseModule):
    """Causal vision transformer with the class token at the end of the sequence.

    The sequence is the patches in raster order, then one class token. Learnable
    positions are added once; every block turns queries and keys by 1-D rotary
    positions and masks the attention causally. The arguments from ``ffn`` on are the
    steps between the plain ViT and iLLaMA (Table 17): with all of them set the other
    way, and a bidirectional mask, it is timm's ViT.

    Args:
        arch: 'tiny', 'small', 'base' or 'large' (Table 11), or a dict with the keys
            ``embed_dims``, ``num_layers`` and ``num_heads``.
        img_size: image side, or (height, width), in pixels, that the positional
            embedding is made for. Any other size is taken at run time: it is resized.
        patch_size: side of a patch in pixels.
        in_channels: image channels.
        out_indices: blocks to return, counted from 0, negative from the end. Blocks
            after the last one of them are not built.
        out_type: 'featmap' for maps, 'cls_token' for the class token after the final
            norm, 'raw' for all tokens as the block returns them.
        attn_mask: 'soft' multiplies after the softmax (Eq. 2, the released models),
            'strict' masks before it (Eq. 1, LLaMA's own), 'modified' too but for the
            class token's row at the start (step 5b), 'bidirectional' not at all;
            'chunked' lets patches see their chunk of rows, and all above.
        soft_mask_rate: share of the future that the soft mask lets through; 0 is
            causal, 1 bidirectional. The other masks have none.
        soft_mask_norm: power b of the sums that divide the rows of the soft mask: 0 is
            Eq. 2, 1 is Eq. 1 at rate 0.
        soft_mask_blocks: number of blocks, the last ones, that have the rate; the ones
            before stay at 0. None for all.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        with_cp: recompute each block's activations in the backward pass.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL)`` takes a released
            .pth, our own checkpoints and .safetensors, trained at any resolution.
        ffn: 'swiglu' or 'mlp', the ViT's of four times the width.
        norm: 'rms' for RMSNorm or 'layer' for LayerNorm.
        cls_position: 'last' or 'first', the class token's place in the sequence.
        with_pos_embed: add learnable positions.
        pos_axes: 'grid' for a learnable position of every patch, 'columns' for one of
            every column, the same in all rows: an image may then have any number of
            rows. Positions of a grid are averaged over the rows when they are loaded.
        with_rotary: turn queries and keys by rotary positions.
        rotary_grid: places of the patches of an image of another size than in training:
            'raster' counts them (the released models), 'scaled' and 'neighbour' keep
            rows and columns where they were, 'axial' has two positions, see
            :func:`illama_seg.layers.grid_table`.
        rotary_img_size: side, or (height, width), in pixels, of the images that the
            rotary positions were trained on; ``img_size`` by default.
        frozen_stages: -1 trains everything, 0 freezes the embeddings, k also the first
            k blocks: no gradient, and no stochastic depth in them.
        lora: ``dict(r=8, lora_alpha=16)`` freezes all weights and trains adapters of
            rank r beside the linear layers of the blocks; needs peft.
        chunk_rows: rows of patches of a chunk of the mask 'chunked': 1 for the lowest
            latency; None for all rows: every patch sees every patch.
        memory_rows: rows above its own, or above its chunk, that a patch sees, with the
            masks 'strict' and 'chunked'; the class token sees the last ones. None for
            all, 0 for none: bands are images of their own. It bounds what a reading
            keeps.
        num_queries: learnable queries that read the image as the class token does, see
            :meth:`ask`; the maps are followed by their tokens (B, num_queries, C).

    Raises:
        UserError: for an argument out of its range.
    """

    _is_init: bool

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (3, 5, 7, 11),
        out_type: str = 'featmap',
        attn_mask: str = 'soft',
        soft_mask_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        ffn: str = 'swiglu',
        norm: str = 'rms',
        cls_position: str = 'last',
        with_pos_embed: bool = True,
        with_rotary: bool = True,
        frozen_stages: int = -1,
        lora: dict | None = None,
        pos_axes: str = 'grid',
        chunk_rows: int | None = None,
        memory_rows: int | None = None,
        num_queries: int = 0,
        soft_mask_norm: float = 0.0,
        soft_mask_blocks: int | None = None,
        rotary_grid: str = 'raster',
        rotary_img_size: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_choice('out_type', out_type, ('featmap', 'cls_token', 'raw'))
        check_choice('attn_mask', attn_mask, MASKS)
        check_choice('ffn', ffn, FFNS)
        check_choice('norm', norm, tuple(NORMS))
        check_choice('cls_position', cls_position, ('last', 'first'))
        check_choice('pos_axes', pos_axes, ('grid', 'columns'))
        check_choice('rotary_grid', rotary_grid, ROTARY_GRIDS)
        check_together(
            attn_mask=attn_mask,
            cls_position=cls_position,
            pos_axes=pos_axes,
            chunk_rows=chunk_rows,
            memory_rows=memory_rows,
            num_queries=num_queries,
            out_type=out_type,
        )
        if not 0 <= drop_path_rate < 1:
            raise UserError(
                f'ILLaMA drop_path_rate={drop_path_rate}: expected a number in [0, 1)'
            )
        embed_dims, num_layers, num_heads = resolve_arch(arch)
        self.arch = arch if isinstance(arch, str) else 'custom'
        self.embed_dims, self.num_heads = embed_dims, num_heads
        self.out_indices = resolve_indices(out_indices, num_layers)
        self.out_type, self.attn_mask = out_type, attn_mask
        self.with_cp = with_cp
        self.cls_position = cls_position
        self.with_rotary = with_rotary
        self.pos_axes, self.memory_rows = pos_axes, memory_rows
        self.chunk_rows = chunk_rows
        self.grid_size = resolve_grid(img_size, patch_size)
        check_rotary(rotary_grid, rotary_img_size, with_rotary, embed_dims // num_heads)
        self.rotary_grid = rotary_grid
        self.train_grid = resolve_grid(rotary_img_size or img_size, patch_size)
        if pos_axes == 'columns':
            self.grid_size = 1, self.grid_size[1]
        # A tensor, always on the CPU: a schedule recompiles nothing.
        self._rate = torch.zeros((), dtype=torch.float64, device='cpu')
        self.set_soft_mask_rate(soft_mask_rate)
        self._norm: Tensor | None = None
        self.set_soft_mask_norm(soft_mask_norm)
        check_last_blocks(soft_mask_blocks, attn_mask, num_layers)
        self.closed_blocks = num_layers - (soft_mask_blocks or num_layers)
        # For the checkpoints: a schedule may have moved the rate when one is written.
        self.trained_mask = soft_mask_rate, soft_mask_norm, self.closed_blocks

        self.patch_embed = PatchEmbed(in_channels, embed_dims, patch_size)
        num_tokens = self.grid_size[0] * self.grid_size[1] + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.pos_embed = None
        if with_pos_embed:
            self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, embed_dims))
        self.query_offsets = None
        if num_queries:
            self.query_offsets = nn.Parameter(torch.zeros(num_queries, embed_dims))
        rates = torch.linspace(0, drop_path_rate, num_layers, device='cpu').tolist()
        self.blocks = nn.ModuleList(
            Block(embed_dims, num_heads, attn_mask, rate, ffn=ffn, norm=norm)
            for rate in rates[: self.out_indices[-1] + 1]
        )
        if out_type == 'cls_token':  # elsewhere it would never get a gradient
            self.norm = make_norm(norm, embed_dims)
        self.register_state_dict_post_hook(_record)
        self.lora = lora
        if lora is not None:
            add_lora(self, lora)
            if self.query_offsets is not None:
                self.query_offsets.requires_grad_(True)
        self.frozen_stages = check_frozen_stages(frozen_stages, len(self.blocks))
        self._freeze()

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for parameter in (self.cls_token, self.pos_embed):
            if parameter is not None:
                parameter.requires_grad_(False)
        for module in (self.patch_embed, *self.blocks[: self.frozen_stages]):
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'ILLaMA':
        """Set the training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def init_weights(self) -> None:
        """Truncated normal weights, zero biases; or a checkpoint, with a report.

        Raises:
            UserError: if the checkpoint holds no key of the backbone, is of another
                size, or cannot be read safely.
            FileNotFoundError: if there is no such file.
        """
        if self._is_init:
            return
        draw_weights(self)
        load_init_cfg(self)
        self._is_init = True

    def set_soft_mask_rate(self, rate: float) -> None:
        """Set the soft mask rate, in [0, 1]; a schedule may move it either way.

        Raises:
            UserError: if it is out of range, or not 0 with another mask.
        """
        if not 0 <= rate <= 1:
            text = f'ILLaMA soft_mask_rate={rate}: expected a number in [0, 1]'
            raise UserError(text)
        if rate and self.attn_mask != 'soft':
            raise UserError(
                f'ILLaMA soft_mask_rate={rate} has no effect with attn_mask='
                f"{self.attn_mask!r}: leave it 0, or use attn_mask='soft'"
            )
        self._rate.fill_(rate)

    def set_soft_mask_norm(self, norm: float) -> None:
        """Set the power of the sums that divide the rows of the soft mask, in [0, 1].

        Raises:
            UserError: if it is out of range, or not 0 with another mask.
        """
        highest = 1 if self.attn_mask == 'soft' else 0
        if not 0 <= norm <= highest:
            raise UserError(
                f'ILLaMA soft_mask_norm={norm}: expected 0 to {highest} with attn_mask='
                f'{self.attn_mask!r}'
            )
        if norm and self._norm is None:
            self._norm = torch.zeros((), dtype=torch.float64, device='cpu')
        if self._norm is not None:
            self._norm.fill_(norm)

    def soft_mask(self, block: int) -> Tensor | SoftMask:
        """Return the rate of a block, or rate and norm.

        They are copies, since a schedule may go on before a backward.
        """
        is_closed = block < self.closed_blocks
        rate = torch.zeros_like(self._rate) if is_closed else self._rate.clone()
        return rate if self._norm is None else SoftMask(rate, self._norm.clone())

    @property
    def soft_mask_rate(self) -> float:
        """Share of the future that the soft mask lets through."""
        return self._rate.item()

    @property
    def soft_mask_norm(self) -> float:
        """Power of the sums that divide the rows of the soft mask."""
        return 0.0 if self._norm is None else self._norm.item()

    def get_layer_depth(self, name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay.

        Args:
            name: parameter name.
            prefix: prefix of this module's parameters in it, such as 'backbone.'.

        Returns:
            (depth, number of depths): 0 for the embeddings, i + 1 for block i, the
            last depth for everything after the blocks.
        """
        num_depths = len(self.blocks) + 2
        local = name.removeprefix(prefix)
        if not name.startswith(prefix):
            return num_depths - 1, num_depths
        if local.startswith('blocks.'):
            return int(local.split('.')[1]) + 1, num_depths
        if local.startswith(('patch_embed.', 'cls_token', 'pos_embed')):
            return 0, num_depths
        return num_depths - 1, num_depths

    def set_chunk_rows(self, rows: int | None) -> None:
        """Set the rows of a chunk, None for all; a training may draw them anew.

        Raises:
            UserError: if the mask is another than 'chunked', or rows is below 1.
        """
        check_rows('chunk_rows', rows)
        if rows is None and self.memory_rows is not None:
            raise UserError(
                f'ILLaMA chunk_rows=None with memory_rows={self.memory_rows}: expected '
                'a number of rows'
            )
        if self.attn_mask != 'chunked':
            raise UserError(
                f'ILLaMA chunk_rows={rows} has no effect with attn_mask='
                f"{self.attn_mask!r}: use attn_mask='chunked'"
            )
        self.chunk_rows = rows

    def read(
        self,
        images: Tensor,
        reading: Reading | None = None,
        total_rows: int | None = None,
    ) -> Reading:
        """Read images, or the next band of their rows, and keep the keys and values.

        Band after band equals the whole image at once.

        Args:
            images: (B, in_channels, H, W); H is a multiple of the patch size, but for
                the last band of an image.
            reading: of the bands above; None for the first one.
            total_rows: rows of patches of the whole image, where the first band is not
                all of it; needed for learnable positions of a grid.

        Returns:
            The reading of all bands so far; its ``maps`` are the last band's.

        Raises:
            UserError: for a mask that looks ahead, or a band that does not follow.
        """
        check_images(images, self.patch_embed.proj.in_channels)
        return read(self, images, reading, total_rows)

    def ask(self, reading: Reading, offsets: Tensor) -> Tensor:
        """Ask queries of a reading; each is a class token of its own.

        A query is the class token plus an offset, at its position after the rows read
        so far. It sees the patches in every block, and itself; no patch and no other
        query sees it. With an offset of zero it is the class token. (Mask tokens of
        large multimodal decoders are akin: arXiv 2403.09394, 2503.01342, 2603.27365.)

        Args:
            reading: from :meth:`read`.
            offsets: (K, C), or (B, K, C).

        Returns:
            (B, K, C), as the last block returns them.
        """
        return ask(reading, offsets)

    def forward(
        self, x: Tensor, out_indices: Sequence[int] | None = None
    ) -> tuple[Tensor, ...]:
        """Run the blocks on images of any size.

        Args:
            x: (B, in_channels, H, W).
            out_indices: blocks to return instead of the attribute ``out_indices``,
                increasing, from 0; blocks after the last one of them are not run.

        Returns:
            One entry per out index. 'featmap': (B, C, ceil(H / P), ceil(W / P)) for
            patch size P; 'cls_token': (B, C); 'raw': (B, N + 1, C), N patches. With
            queries, and without the argument ``out_indices``, their tokens
            (B, num_queries, C) are one more.

        Raises:
            UserError: if ``x`` is not a batch of images of in_channels.
        """
        check_images(x, self.patch_embed.proj.in_channels)
        if self.query_offsets is not None and out_indices is None:
            reading = self.read(x)
            return *reading.maps, self.ask(reading, self.query_offsets)
        x, grid = self.patch_embed(x)
        cls_token = self.cls_token.expand(x.size(0), -1, -1)
        x = join_class_slot(x, cls_token, self.cls_position)
        if self.pos_embed is not None:
            x = x + positions(self, grid)
        rotary = rotary_of(self, (0, grid[0]), grid, x.device, self.cls_position)
        seen = mask_of_image(self, grid, x.device)
        indices = self.out_indices if out_indices is None else out_indices
        outputs = []
        for index, block in enumerate(self.blocks):
            x = run_block(self, block, x, rotary, self.soft_mask(index), seen)[0]
            if index in indices:
                outputs.append(self._output(x, grid))
            if index == indices[-1]:
                break
        return tuple(outputs)

    def _output(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        is_last = self.cls_position == 'last'
        if self.out_type == 'featmap':
            return as_map(x[:, :-1] if is_last else x[:, 1:], grid)
        if self.out_type == 'cls_token':
            return self.norm(x[:, -1 if is_last else 0])
        return x


def _record(module: ILLaMA, state: dict, prefix: str, metadata: dict) -> None:
    """Keep beside the weights what they do not tell: the grid, and the soft mask."""
    metadata[GRID_KEY] = module.grid_size
    if module.attn_mask == 'soft':
        metadata[MASK_KEY] = module.trained_mask
