"""Report of the keys of a checkpoint, by what became of them."""

import logging
from dataclasses import dataclass, field

from illama_seg.checkpoints.checkpoint import listed

_Shapes = list[tuple[str, tuple[int, ...], tuple[int, ...]]]


@dataclass
class LoadReport:
    """Keys of a checkpoint and of a backbone or model, by what became of them.

    Attributes:
        source: path or URL of the checkpoint.
        part: 'backbone' or 'model', what was loaded into.
        matched: keys that were loaded.
        missing: keys of the model that the checkpoint lacks.
        unexpected: keys of the checkpoint that the model does not know.
        resized: (key, shape in the file, shape in the model), loaded after resizing.
        adapted: as ``resized``, of RGB's weights for another number of channels.
        ignored: classifier or segmentor heads, and parts of the backbone not built.
        left_out: as ``resized``, of heads of another size; not loaded.
        mismatched: as ``resized``, of other keys; not loaded.
    """

    source: str
    part: str = 'backbone'
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: _Shapes = field(default_factory=list)
    adapted: _Shapes = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    left_out: _Shapes = field(default_factory=list)
    mismatched: _Shapes = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line: the keys that were loaded, resized, missing, left out."""
        kinds = dict(resized=[key for key, *_ in self.resized], missing=self.missing)
        if self.left_out:
            kinds['of another size left out'] = [key for key, *_ in self.left_out]
        counts = [
            f'{len(keys)} {kind}{f" ({listed(keys)})" if keys else ""}'
            for kind, keys in kinds.items()
        ]
        counts += [f"RGB's {key} for {new[1]} channels" for key, _, new in self.adapted]
        return ', '.join([self._loaded(), *counts])

    def _loaded(self) -> str:
        others = self.missing, self.left_out, self.mismatched
        total = len(self.matched) + sum(len(keys) for keys in others)
        return f'{self.source}: loaded {len(self.matched)} of {total} {self.part} keys'

    def __str__(self) -> str:
        lines = [self._loaded()]
        for kind in ('resized', 'adapted', 'left_out', 'mismatched'):
            lines += [
                f'  {kind}: {k} {old} -> {new}' for k, old, new in vars(self)[kind]
            ]
        for kind in ('missing', 'unexpected', 'ignored'):
            if keys := vars(self)[kind]:
                lines.append(f'  {kind} ({len(keys)}): {listed(keys)}')
        return '\n'.join(lines)


def log_report(report: LoadReport, logger: logging.Logger) -> None:
    """Log a report; missing, unexpected and left out keys as warnings too."""
    logger.info('%s', report)
    if report.missing:
        logger.warning('not in the checkpoint, left as is: %s', listed(report.missing))
    if report.left_out and report.left_out[0][0].startswith('head.'):
        (theirs, *_), (ours, *_) = report.left_out[0][1:]
        logger.warning(
            'classifier left out, initialised anew: it has %d classes in the '
            'checkpoint and %d in the model',
            theirs,
            ours,
        )
    elif report.left_out:
        logger.warning(
            'heads of another size left out, initialised anew: %s',
            listed(f'{k} {old} -> {new}' for k, old, new in report.left_out),
        )
    for key, old, new in report.adapted:
        logger.warning(
            '%s was trained on %d channels and is adapted to %d: %s',
            key,
            old[1],
            new[1],
            'their sum' if new[1] == 1 else f'repeated, times {old[1]}/{new[1]}',
        )
    if report.unexpected:
        logger.warning('not used by the model: %s', listed(report.unexpected))
