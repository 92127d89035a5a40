"""Questions to a reading: files of kilobytes, each with a label set of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from illama_seg.backbones import ILLaMA, Reading
from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import atomic
from illama_seg.heads import ClassTokenHead

KEY = 'illama_seg_question'  # of a file's metadata
# Settings of the head that its outputs depend on.
HEAD = (
    'in_channels', 'channels', 'num_classes', 'out_channels', 'threshold', 'upscale',
    'in_index', 'dropout_ratio',
)  # fmt: skip
# Arguments of the backbone that its outputs depend on, beside its weights. The rows of
# a chunk are free: one checkpoint may serve several latencies.
ARGUMENTS = (
    'embed_dims', 'num_heads', 'attn_mask', 'memory_rows', 'cls_position', 'pos_axes',
    'with_rotary', 'rotary_grid', 'train_grid', 'grid_size', 'soft_mask_rate',
    'soft_mask_norm',
)  # fmt: skip
SAMPLES = 16  # numbers of each tensor that tell one backbone from another
# Relative difference of a tensor's samples; rounding to bfloat16 makes 0.002.
LARGEST_DIFFERENCE = 0.01


class Question(nn.Module):
    """A label set that a frozen backbone can be asked: queries, and their head.

    Args:
        backbone: that the question was trained with.
        offsets: (K, C) of the queries, see :meth:`ILLaMA.ask`.
        head: settings of the ``ClassTokenHead``; its loss is left out.
        classes: names of the classes.
        palette: their colours, RGB.

    Attributes:
        offsets: (K, C).
        head: the ``ClassTokenHead``.
        classes: names of the classes.
        palette: their colours.
        arguments: of the backbone, with its patch size.
        signature: some numbers of every tensor of the backbone.

    Raises:
        UserError: if the head is of another kind, or of another number of classes.
    """

    signature: Tensor

    def __init__(
        self,
        backbone: ILLaMA | None,
        offsets: Tensor,
        *,
        head: Mapping[str, Any],
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        if head.get('type', 'ClassTokenHead') != 'ClassTokenHead':
            raise UserError(
                f'the head of a question is a ClassTokenHead, got {head["type"]!r}'
            )
        self._settings = {key: head[key] for key in HEAD if key in head}
        self.head = ClassTokenHead(**self._settings)
        if (len(offsets), len(classes)) != (
            self.head.out_channels,
            self.head.num_classes,
        ):
            raise UserError(
                f'{len(offsets)} queries and {len(classes)} names of classes: expected '
                f'{self.head.out_channels} and {self.head.num_classes}, as of the head'
            )
        self.offsets = nn.Parameter(offsets.detach().clone())
        self.classes, self.palette = tuple(classes), [list(c) for c in palette]
        self.arguments: dict[str, Any] = {}
        noted = torch.empty(0, device=offsets.device)
        if backbone is not None:
            self.arguments, noted = arguments_of(backbone), signature(backbone)
        self.register_buffer('signature', noted)

    @classmethod
    def of(cls, model: nn.Module) -> Question:
        """Take the question out of a trained segmentor.

        Args:
            model: from ``illama_seg.apis.load_segmentor``, with an ``ILLaMA`` that has
                queries, and a ``ClassTokenHead``.

        Raises:
            UserError: if it has no class tokens.
        """
        segmentor: Any = model
        backbone = getattr(segmentor, 'backbone', None)
        head = getattr(segmentor, 'decode_head', None)
        offsets = getattr(backbone, 'query_offsets', None)
        if offsets is None or not isinstance(head, ClassTokenHead):
            raise UserError(
                f'{type(backbone).__name__} with {type(head).__name__} has no class '
                'tokens: expected an ILLaMA with num_queries, and a ClassTokenHead'
            )
        meta = segmentor.dataset_meta
        settings = segmentor.cfg.model.decode_head.to_dict()
        question = cls(
            backbone,
            offsets,
            head=settings | dict(threshold=head.threshold),
            classes=meta['classes'],
            palette=meta['palette'],
        )
        question.head.load_state_dict(head.state_dict())
        return question.to(offsets.device).eval()

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file, whole or not at all.

        Raises:
            UserError: if the path has another suffix, or is a folder.
        """
        path = Path(path)
        if path.suffix != '.safetensors' or path.is_dir():
            raise UserError(f'{path}: expected the name of a .safetensors file')
        note = dict(
            head=self._settings,
            classes=list(self.classes),
            palette=self.palette,
            arguments=self.arguments,
        )
        state = {name: part.contiguous() for name, part in self.state_dict().items()}
        with atomic(path) as part:
            save_file(state, part, {'format': 'pt', KEY: json.dumps(note)})

    @classmethod
    def load(cls, path: str | Path) -> Question:
        """Read a file of :meth:`save`; no code of it is run.

        Raises:
            MissingFileError: if there is no such file.
            UserError: if it is of another kind, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f'no file {path}: expected a question')
        try:
            with safe_open(path, 'pt') as file:
                text = (file.metadata() or {}).get(KEY)
                names = list(file.keys())
                state = {name: file.get_tensor(name) for name in names}
            if text is None:
                raise UserError('it holds weights, but no question')
            note = json.loads(text)
            arguments = note.pop('arguments')
            question = cls(None, state['offsets'], **note)
            question.arguments = dict(arguments)
            question.signature = state['signature']
            question.load_state_dict(state)
        except UserError as error:
            raise UserError(
                f'{path} is no question of this package: {error}'
            ) from error
        except (
            SafetensorError, KeyError, TypeError, ValueError, RuntimeError,
            AttributeError, AssertionError,
        ) as error:  # fmt: skip
            raise UserError(f'{path} is damaged, or no question: {error}') from error
        return question.eval()

    def labels(
        self,
        logits: Tensor,
        size: Sequence[int],
        read_size: Sequence[int] | None = None,
    ) -> Tensor:
        """Return class numbers of the pixels of an image.

        Args:
            logits: (B, K, h, w) from :func:`ask`.
            size: (height, width) of the image in pixels.
            read_size: (height, width) in which it was read, if it was resized.

        Returns:
            (B, height, width) int64.
        """
        # The image was padded to whole patches.
        scale = self.arguments['patch_size'] // (4 if self.head.upscaling else 1)
        whole = [scale * side for side in logits.shape[2:]]
        logits = F.interpolate(logits.float(), whole, mode='bilinear')
        height, width = read_size or size
        logits = logits[:, :, :height, :width]
        if (height, width) != tuple(size):
            logits = F.interpolate(logits, tuple(size), mode='bilinear')
        if logits.size(1) == 1:
            return (logits.sigmoid() > self.head.threshold)[:, 0].long()
        return logits.argmax(1)


def ask(reading: Reading, questions: Sequence[Question]) -> list[Tensor]:
    """Ask any number of questions of one reading.

    The queries of all questions run through the blocks together, in one pass: they are
    blind to each other.

    Args:
        reading: from :meth:`ILLaMA.read`; its maps are those of the last band.
        questions: of the backbone that has read it.

    Returns:
        Logits (B, K, h, w) of each question, for the last band.

    Raises:
        UserError: if a question is of another backbone.
    """
    if isinstance(questions, Question) or not isinstance(reading, Reading):
        raise UserError(
            f'ask takes a reading and a list of questions, got '
            f'{type(reading).__name__} and {type(questions).__name__}'
        )
    for index, question in enumerate(questions):
        if not isinstance(question, Question):
            raise UserError(
                f'question {index} is of {type(question).__name__}: expected a Question'
                ', as from Question.load'
            )
        if difference := _difference(question, reading.backbone):
            raise UserError(
                f'question {index} ({", ".join(question.classes[:3])} ...) is of '
                f'another backbone, or of one that was trained further: {difference}'
            )
    if not questions:
        return []
    tokens = reading.backbone.ask(reading, torch.cat([q.offsets for q in questions]))
    parts = tokens.split([len(question.offsets) for question in questions], dim=1)
    return [
        question.head([reading.maps[-1], part])
        for question, part in zip(questions, parts, strict=True)
    ]


def arguments_of(backbone: Any) -> dict[str, Any]:
    """Return the arguments that a backbone's outputs depend on, as JSON has them."""
    found = {'patch_size': backbone.patch_embed.proj.stride[0]}
    found |= {name: getattr(backbone, name) for name in ARGUMENTS}
    if backbone.closed_blocks:
        found['closed_blocks'] = backbone.closed_blocks
    return json.loads(json.dumps(found))


def signature(backbone: nn.Module) -> Tensor:
    """Return some numbers of every tensor of a backbone but its queries.

    Returns:
        (number of tensors, SAMPLES) float32.
    """
    rows = []
    for name, tensor in backbone.state_dict().items():
        if name != 'query_offsets':
            flat = tensor.detach().flatten()
            found = flat[:: max(1, len(flat) // SAMPLES)][:SAMPLES].float()
            rows.append(F.pad(found, (0, SAMPLES - len(found))))
    return torch.stack(rows)


def _difference(question: Question, backbone: Any) -> str:
    """Say how a backbone differs from the question's, or ''."""
    for name, found in arguments_of(backbone).items():
        expected = question.arguments.get(name)
        if found != expected:
            return f'model.backbone has {name}={found}, expected {expected}'
    found = signature(backbone)
    expected = question.signature.to(found)
    if found.shape != expected.shape:
        return f'it has {len(found)} tensors, expected {len(expected)}'
    apart = (found - expected).norm(dim=1)
    limit = LARGEST_DIFFERENCE * expected.norm(dim=1)
    if (apart > limit).any():
        return f'{int((apart > limit).sum())} of {len(found)} tensors differ'
    return ''
