"""Questions to a reading: files of kilobytes, each with a label set of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from illama_seg.backbones import ILLaMA, Reading
from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import atomic
from illama_seg.heads import ClassTokenHead

KEY = 'illama_seg_question'  # of a file's metadata
# Weights of a backbone differ by less when they were rounded to half precision.
LARGEST_DIFFERENCE = 0.01


class Question(nn.Module):
    """A label set that a frozen backbone can be asked: queries, and their head.

    Args:
        backbone: that the question was trained with; its vectors are noted.
        offsets: (K, C) of the queries, see :meth:`ILLaMA.ask`.
        head: settings of the ``ClassTokenHead``.
        classes: names of the classes.
        palette: their colours, RGB.

    Attributes:
        offsets: (K, C).
        head: the ``ClassTokenHead``.
        classes: names of the classes.
        palette: their colours.
        signature: some weights of the backbone, by which another one is told.
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
        self.offsets = nn.Parameter(offsets.detach().clone())
        self._settings = dict(head)
        self.head: ClassTokenHead = MODELS.build({'_scope_': 'mmseg', **head})
        self.classes, self.palette = tuple(classes), [list(c) for c in palette]
        empty = torch.empty(0, device=offsets.device)
        noted = empty if backbone is None else signature(backbone)
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
        backbone, head = segmentor.backbone, segmentor.decode_head
        offsets = getattr(backbone, 'query_offsets', None)
        if offsets is None or not isinstance(head, ClassTokenHead):
            raise UserError(
                f'{type(backbone).__name__} with {type(head).__name__} has no class '
                'tokens: expected an ILLaMA with num_queries, and a ClassTokenHead'
            )
        meta = segmentor.dataset_meta
        question = cls(
            backbone,
            offsets,
            head=segmentor.cfg.model.decode_head.to_dict(),
            classes=meta['classes'],
            palette=meta['palette'],
        )
        question.head.load_state_dict(head.state_dict())
        return question.to(offsets.device).eval()

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file, whole or not at all."""
        note = dict(
            head=self._settings, classes=list(self.classes), palette=self.palette
        )
        state = {name: part.contiguous() for name, part in self.state_dict().items()}
        with atomic(Path(path)) as part:
            save_file(state, part, {'format': 'pt', KEY: json.dumps(note)})

    @classmethod
    def load(cls, path: str | Path) -> Question:
        """Read a file of :meth:`save`.

        Raises:
            MissingFileError: if there is no such file.
            UserError: if it is of another kind, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f'no file {path}: expected a question')
        try:
            with safe_open(path, 'pt') as file:
                note = (file.metadata() or {}).get(KEY)
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # noqa: SIM118
            if note is None:
                raise UserError(
                    f'{path} holds weights, but is no question: expected a file of '
                    'Question.save'
                )
            question = cls(None, state['offsets'], **json.loads(note))
            question.signature = state['signature']
            question.load_state_dict(state)
        except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise UserError(f'{path} is damaged, or no question: {error}') from error
        return question.eval()

    def labels(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Return class numbers at the size of the image.

        Args:
            logits: (B, K, h, w) from :func:`ask`.
            size: (height, width) in pixels.

        Returns:
            (B, height, width) int64.
        """
        logits = F.interpolate(logits.float(), tuple(size), mode='bilinear')
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
    found = signature(reading.backbone)
    for index, question in enumerate(questions):
        expected = question.signature.to(found)
        fits = expected.shape == found.shape
        if not fits or (expected - found).norm() > LARGEST_DIFFERENCE * found.norm():
            raise UserError(
                f'question {index} ({", ".join(question.classes[:3])} ...) is of '
                'another backbone, or of one that was trained further: expected the '
                'weights that it was trained with'
            )
    if not questions:
        return []
    tokens = reading.backbone.ask(reading, torch.cat([q.offsets for q in questions]))
    parts = tokens.split([len(question.offsets) for question in questions], dim=1)
    return [
        question.head([reading.maps[-1], part])
        for question, part in zip(questions, parts, strict=True)
    ]


def signature(backbone: Any) -> Tensor:
    """Return some weights that every training of a backbone changes, float32."""
    last = backbone.blocks[-1]
    parts = backbone.cls_token, last.norm1.weight, last.norm2.weight, last.attn.qkv.bias
    return torch.cat([part.detach().flatten().float() for part in parts])
