"""One self-contained HTML page with all results of a run."""

import base64
import json
import platform
import re
import shlex
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import mmcv
import mmengine
import mmseg
import timm
import torch
import torchvision
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mmengine.config import Config

from illama_seg.apis.work_dir import find_run
from illama_seg.errors import MissingFileError
from illama_seg.files import write_whole
from illama_seg.reports.sections import BOARD_SECTIONS, SECTIONS
from illama_seg.reports.tables import is_number, page_tables
from illama_seg.studies.tables import Section, Table
from illama_seg.version import __version__

TEMPLATE = 'page.html.jinja'
# Facts that mmengine logs of the machine, without the compiler flags of PyTorch.
ENVIRONMENT = re.compile(
    r'^ {4}(Python|GPU [\d,]+|PyTorch|TorchVision|OpenCV|MMEngine): (.*)$', re.MULTILINE
)


def write_page(run: str | Path, also: Sequence[str | Path] = ()) -> Path:
    """Gather tables, images, versions and commands of a run into ``report.html``.

    Shows the files of ``SECTIONS`` in the run's folders, and any other JSON file with a
    PNG of the same name beside it. Nothing is measured, and the page loads nothing from
    elsewhere.

    Args:
        run: work dir of a training.
        also: further folders with results.

    Returns:
        Path of the page, in the run.

    Raises:
        MissingFileError: if the folder is not the work dir of a run, or a further
            folder is missing.
    """
    run, folders = Path(run), [Path(run), *map(Path, also)]
    cfg, checkpoint, _ = find_run(run)
    for folder in folders:
        if not folder.is_dir():
            raise MissingFileError('no such folder', also=str(folder))
    paths = dict(config=min(run.glob('*.py')), checkpoint=checkpoint, run=run)
    names = {name: shlex.quote(str(path)) for name, path in paths.items()}
    kind = 'segmentation' if 'decode_head' in cfg.model else 'classification'
    every = [_part(section, path, names) for section, path in _result_files(folders)]
    parts = [
        part for part in every if part['problem'] or part['tables'] or part['images']
    ]
    shown = {part['title'] for part in parts}
    _distinguish(parts)
    text = _render(
        name=run.resolve().name,
        kind=kind,
        about=f'Results of a {kind}.',
        summary=_summary(cfg, checkpoint),
        sections=parts,
        missing=[
            dict(title=section.title, command=section.command.format(**names))
            for section in SECTIONS
            if section.command
            and section.title not in shown
            and section.kind in ('', kind)
        ],
        versions=_versions(run),
        configs={'All settings of the training': cfg.pretty_text},
    )
    path = run / 'report.html'
    write_whole(path, text)
    return path


def write_board_page(out: str | Path) -> Path:
    """Gather the tables and images of a leaderboard into ``leaderboard.html``.

    Args:
        out: folder of :func:`illama_seg.studies.run_leaderboard`.

    Returns:
        Path of the page, in the folder.

    Raises:
        MissingFileError: if the folder has no ``leaderboard.json``.
    """
    out = Path(out)
    if not (out / 'leaderboard.json').is_file():
        raise MissingFileError(f'{out} has no leaderboard.json: run the leaderboard')
    numbers = json.loads((out / 'leaderboard.json').read_text())
    names = [row['name'] for row in numbers['models']]
    facts = dict(numbers['protocol'], seeds=', '.join(map(str, numbers['seeds'])))
    parts = [
        _part(section, out / section.files, {}, with_command=False)
        for section in BOARD_SECTIONS
        if (out / section.files).is_file()
    ]
    text = _render(
        name=out.resolve().name,
        kind='leaderboard',
        about='Models beside each other: one recipe, the same seeds.',
        summary=Table((), [(key, str(value)) for key, value in facts.items()]),
        sections=parts,
        missing=[],
        versions=_versions(out),
        configs={name: (out / name / f'{name}.py').read_text() for name in names},
    )
    path = out / 'leaderboard.html'
    write_whole(path, text)
    return path


def _render(**values: Any) -> str:
    """Fill the template of a page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests['figure'] = is_number
    return environment.get_template(TEMPLATE).render(**values)


def _result_files(folders: Sequence[Path]) -> Iterator[tuple[Section, Path]]:
    """Yield the files of the sections in their order, then the others."""
    found = [(f, path) for f in folders for path in sorted(f.rglob('*.json'))]
    files = {  # without logs
        path.resolve(): path
        for folder, path in found
        if 'vis_data' not in path.relative_to(folder).parts
    }
    shown = set()
    for section in SECTIONS:
        for path in files.values():
            if fnmatchcase(path.name, section.files):
                shown.add(path)
                yield section, path
    for path in files.values():
        if path not in shown and path.with_suffix('.png').is_file():
            title = re.sub(r'[_-]+', ' ', path.stem).capitalize()
            yield Section(title, path.name), path


def _distinguish(parts: Sequence[dict]) -> None:
    """Add the folder to titles that occur twice."""
    titles = [part['title'] for part in parts]
    for part in parts:
        if titles.count(part['title']) > 1:
            part['title'] += f', {Path(part["file"]).parent.name}'


def _part(
    section: Section, path: Path, names: dict[str, str], with_command: bool = True
) -> dict[str, Any]:
    """Return the template's values for a file."""
    tables, problem = [], ''
    try:
        tables = page_tables(json.loads(path.read_text()))
    except (ValueError, OSError) as error:
        problem = f'{path} cannot be read: {error}'
    images = section.images or {f'{path.stem}.png': f'Image of {section.title}'}
    files = [(path.with_name(name), text) for name, text in images.items()]
    return dict(
        title=section.title,
        about=section.about,
        command=section.command.format(**names) if with_command else '',
        file=str(path),
        problem=problem,
        tables=tables,
        images=[
            (base64.b64encode(file.read_bytes()).decode(), text)
            for file, text in files
            if file.is_file()
        ],
    )


def _summary(cfg: Config, checkpoint: Path) -> Table:
    loop, data = cfg.train_cfg, cfg.train_dataloader.dataset
    backbone = cfg.model.get('backbone', {})
    size = backbone.get('arch', '')
    if not isinstance(size, str):
        size = ', '.join(f'{name} {number}' for name, number in size.items())
    length = f'{loop.get("max_iters", 0):,} iterations'
    if 'max_epochs' in loop:
        length = f'{loop.max_epochs} epochs'
    rows: dict[str, Any] = dict(
        model=f'{cfg.model.type}, {backbone.get("type", "")}',
        size=size,
        data=f'{data.get("type")} in {data.get("data_root") or "memory"}',
        length=length,
        batch=cfg.get('effective_batch') or cfg.train_dataloader.get('batch_size'),
        checkpoint=checkpoint.name,
    )
    return Table((), [(name, str(text)) for name, text in rows.items()])


def _versions(run: Path) -> list[Table]:
    """List the versions that wrote the page, and those of the training."""
    modules = (torch, torchvision, timm, mmengine, mmcv, mmseg)
    here = {module.__name__: module.__version__ for module in modules}
    here = dict(illama_seg=__version__, **here, Python=platform.python_version())
    tables = [Table((), list(here.items()), title='this page')]
    logs = sorted(path for path in run.glob('*/*.log') if path.stem == path.parent.name)
    if logs:
        logged = ENVIRONMENT.findall(logs[-1].read_text(errors='replace'))
        trained = [(name, text.split(' (')[0]) for name, text in logged]
        if trained:
            tables.append(Table((), trained, title='training, by its last log'))
    return tables
