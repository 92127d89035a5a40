"""iLLaMA as timm's models: ``timm.create_model('illama_base_patch16_224')``.

Over 300 lines: timm's interface has that many methods.
"""

from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from illama_seg.backbones import ARCHITECTURES, ILLaMA
from illama_seg.checkpoints import (
    RELEASED,
    Checkpoint,
    load_into_backbone,
    open_checkpoint,
)
from illama_seg.errors import UserError
from illama_seg.layers.architectures import INIT_STD

MODELS = [(arch, img_size) for arch in ARCHITECTURES for img_size in (224, 384)]
_POOLS = ('token', 'avg', '')


class TimmILLaMA(ILLaMA):
    """Backbone with a classifier and the interface of timm's models.

    The keys of its state dict are those of the released files. Images may have any
    size.

    Args:
        arch: see :class:`~illama_seg.backbones.ILLaMA`.
        img_size: image side, or (height, width), in pixels, of the positional
            embedding.
        patch_size: side of a patch in pixels.
        in_chans: image channels.
        num_classes: outputs of the classifier; 0 for none.
        global_pool: 'token' reads the class token, 'avg' the mean of the patches, ''
            leaves all tokens.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block.
        attn_mask: 'soft' (the released models) or 'strict'.
        soft_mask_rate: share of the future that the soft mask lets through.

    Raises:
        UserError: for an argument out of its range.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = 'token',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        attn_mask: str = 'soft',
        soft_mask_rate: float = 0.0,
    ) -> None:
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_chans,
            out_indices=-1,
            out_type='cls_token',  # this builds the final norm
            attn_mask=attn_mask,
            soft_mask_rate=soft_mask_rate,
            drop_path_rate=drop_path_rate,
        )
        self.num_features = self.head_hidden_size = self.embed_dims
        self.feature_info = [
            dict(num_chs=self.embed_dims, reduction=patch_size, module=f'blocks.{i}')
            for i in range(len(self.blocks))
        ]
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.init_weights()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> tokens after the final norm, class token last.

        Returns:
            (B, N + 1, C).
        """
        (tokens,) = super().forward(x)
        return self.norm(tokens)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, N + 1, C) -> logits (B, num_classes), or the classifier's input."""
        if self.global_pool == 'token':
            x = x[:, -1]
        elif self.global_pool == 'avg':
            x = x[:, :-1].mean(1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the patches after some of the blocks.

        Args:
            x: (B, in_chans, H, W).
            indices: block numbers; an int n for the last n blocks; None for all.
            norm: apply the final norm to the patches.
            stop_early: do not run the blocks after the last index.
            output_fmt: 'NCHW' or 'NLC'.
            intermediates_only: return only the patches.

        Returns:
            One map for each index, (B, C, ceil(H / P), ceil(W / P)) for patch size P,
            or (B, N, C). Unless ``intermediates_only``, a tuple of the last block's
            tokens after the final norm, (B, N + 1, C), and these maps.

        Raises:
            UserError: if ``output_fmt`` is another one.
        """
        if output_fmt not in ('NCHW', 'NLC'):
            raise UserError(f"output_fmt={output_fmt!r}: expected 'NCHW' or 'NLC'")
        taken, last = feature_take_indices(len(self.blocks), indices)
        if not (stop_early or intermediates_only):
            last = len(self.blocks) - 1
        run = sorted({*taken, last})
        outputs = dict(zip(run, super().forward(x, run), strict=True))
        patch_size = self.patch_embed.proj.stride[0]
        grid = [-(-side // patch_size) for side in x.shape[-2:]]
        maps = []
        for index in sorted(taken):
            tokens = self.norm(outputs[index]) if norm else outputs[index]
            patches = tokens[:, :-1]
            if output_fmt == 'NCHW':
                patches = patches.transpose(1, 2).unflatten(2, grid)
            maps.append(patches)
        return maps if intermediates_only else (self.norm(outputs[last]), maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the layers after these blocks; return the blocks' numbers."""
        taken, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        self.out_indices = (last,)
        if prune_norm:
            self.norm = nn.Identity()  # type: ignore[assignment]
        if prune_head:
            self.reset_classifier(0, '')
        return list(taken)

    def get_classifier(self) -> nn.Module:
        """Return the layer that computes the logits."""
        return self.head

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None
    ) -> None:
        """Replace the classifier; 0 classes remove it.

        Raises:
            UserError: if ``global_pool`` is none of 'token', 'avg', ''.
        """
        if global_pool not in (None, *_POOLS):
            raise UserError(f'global_pool={global_pool!r}: expected one of {_POOLS}')
        if global_pool is not None:
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head: nn.Module = nn.Identity()
        if num_classes > 0:
            old = self.cls_token
            like: dict[str, Any] = dict(device=old.device, dtype=old.dtype)
            self.head = nn.Linear(old.size(-1), num_classes, **like)
            nn.init.trunc_normal_(self.head.weight, std=INIT_STD)
            nn.init.zeros_(self.head.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass."""
        self.with_cp = enable

    def no_weight_decay(self) -> set[str]:
        """Return the parameters without weight decay, besides 1-D ones."""
        return {'pos_embed', 'cls_token'}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the parameter groups of timm's layer-wise learning rate decay."""
        blocks = r'^blocks\.(\d+)'
        return dict(
            stem=r'^(?:cls_token|pos_embed|patch_embed)',
            blocks=blocks if coarse else [(blocks, None), (r'^norm', (99999,))],
        )

    def load_pretrained(self, checkpoint: Checkpoint | str) -> None:
        """Load a file of any resolution, safely, with a report on every key.

        A classifier of another number of classes is left out.

        Raises:
            MissingFileError, ConnectionError, UserError: see ``load_into_backbone``.
        """
        load_into_backbone(self, checkpoint, without='pretrained=False')

    def _output(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return x


def _cfg(img_size: int, url: str = '') -> dict[str, Any]:
    """Return the paper's evaluation settings: at 384 warped, not cropped."""
    warped = img_size >= 384
    return dict(
        url=url,
        input_size=(3, img_size, img_size),
        interpolation='bicubic',
        crop_pct=1.0 if warped else 0.875,
        crop_mode='squash' if warped else 'center',
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        num_classes=1000,
        first_conv='patch_embed.proj',
        classifier='head',
        origin_url='https://huggingface.co/techmonsterwang/iLLaMA',
        paper_ids='arXiv:2404.06773',
    )


def _name(arch: str, img_size: int) -> str:
    return f'illama_{arch}_patch16_{img_size}'


def _cfgs() -> dict[str, Any]:
    """Model, with a tag where there are released weights -> its configuration."""
    cfgs = {_name(*model): _cfg(model[1]) for model in MODELS}
    for file in RELEASED.values():
        name = _name(file.arch, file.img_size)
        cfgs.pop(name, None)
        cfgs[f'{name}.{file.data}'] = _cfg(file.img_size, file.url)
    return cfgs


default_cfgs = generate_default_cfgs(_cfgs())


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    """Build the model by timm, and load its weights by this package."""
    folder = options.pop('cache_dir', None)
    model = build_model_with_cfg(
        TimmILLaMA,
        name,
        pretrained=False,  # timm would resize as if the class slot were the first
        feature_cfg=dict(out_indices=3, feature_cls='getter'),
        **options,
    )
    if pretrained:
        cfg = model.pretrained_cfg
        source = cfg.get('file') or cfg.get('url')
        if not source or cfg.get('source') in ('hf-hub', 'local-dir'):
            raise UserError(
                f'no file or URL of pretrained weights for {name}; released: '
                f'{", ".join(_released())}. For your own file: '
                "pretrained_cfg_overlay=dict(file='/path/to/file.pth')"
            )
        inner = model if isinstance(model, TimmILLaMA) else model.model
        inner.load_pretrained(open_checkpoint(source, folder))
    return model


def _released() -> list[str]:
    return [
        f'{name}.{tag}'
        for name, cfg in default_cfgs.items()
        for tag in cfg.tags
        if cfg.cfgs[tag].url
    ]


def _register(arch: str, img_size: int) -> None:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        options = dict(arch=arch, img_size=img_size) | options
        return _create(_name(arch, img_size), pretrained, **options)

    create.__name__ = _name(arch, img_size)  # what timm registers it under
    register_model(create)


for _arch, _img_size in MODELS:
    _register(_arch, _img_size)
