"""Prepare ADE20K's scene parsing benchmark from the network, a zip or a folder."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.logging import print_log
from tqdm import tqdm

from illama_seg.datasets.findings import Findings, class_table
from illama_seg.datasets.inspection import Facts, inspect_pairs
from illama_seg.datasets.prepare.archives import find_root, open_source
from illama_seg.datasets.segmentation import CheckedADE20KDataset, annotation_of
from illama_seg.errors import UserError
from illama_seg.files import digest_of, download, size_of

URL = 'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip'
# As github.com/paperswithcode/torchbench has it (torchbench/datasets/ade20k.py), and
# several other loaders; MIT publishes none.
MD5 = '7328b3957e407ddae1d3cbf487f149ef'
COUNTS = {'training': 20210, 'validation': 2000}
CLASSES = ('other', *CheckedADE20KDataset.METAINFO['classes'])
_FOLDERS = [f'{kind}/{split}' for kind in ('images', 'annotations') for split in COUNTS]


def prepare_ade20k(
    out: str | Path,
    source: str | Path | None = None,
    counts: Mapping[str, int] = COUNTS,
    workers: int | None = None,
) -> dict:
    """Check every file of ADE20K and move it to ``out``, unless it is complete there.

    Writes a report beside the folder, ``OUT_report.json`` and ``OUT_report.txt``, also
    if there are errors.

    Args:
        out: folder to make; new, empty, or already holding ADE20K.
        source: zip or folder with the data set anywhere inside; downloaded by default,
            to ``ADEChallengeData2016.zip`` beside ``out``.
        counts: images of each split.
        workers: processes that check; by default as many as there are cores.

    Returns:
        ``made`` (whether anything was written), ``published`` (whether the zip is the
        one published; None for a folder), ``report`` (its text file), and of each of
        ``splits``: ``images``, ``smallest`` and ``largest`` (height, width), ``labels``
        (name to pixels) and ``label_images`` (name to images it occurs in).

    Raises:
        MissingFileError: if there is no such source.
        UserError: if files are wrong; names them.
        ConnectionError: if the download failed; the next run continues it.
    """
    out = Path(out)
    if out.is_symlink():  # to another disk: work there
        out = out.resolve()
    report = out.with_name(f'{out.name}_report.json')
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        try:
            found = _check(find_root(out, _FOLDERS), counts, report, workers)
        except (ValueError, OSError) as error:
            raise UserError(
                f'{out} exists and is not a complete ADE20K; nothing in it was '
                f'changed. {error}\nFix it, remove it, or choose another out'
            ) from error
        return _finish(report, dict(made=False, published=None, **found))
    out.parent.mkdir(parents=True, exist_ok=True)
    mounted = os.path.ismount(out)  # it cannot be replaced
    beside = out if mounted else out.parent
    with tempfile.TemporaryDirectory(prefix='.ade20k-', dir=beside) as scratch:
        source = Path(source or _get(out.parent / 'ADEChallengeData2016.zip'))
        folder = open_source(source, Path(scratch))
        published = digest_of(source, 'md5') == MD5 if source.is_file() else None
        root = find_root(folder, _FOLDERS)
        found = _check(root, counts, report, workers)
        if source.is_dir():
            root = _copy(root, Path(scratch) / 'new')
        for path in list(root.iterdir()) if mounted else [root]:
            os.replace(path, out / path.name if mounted else out)
    return _finish(report, dict(made=True, published=published, **found))


def _get(archive: Path) -> Path:
    """Return the published zip; download it, unless it is there."""
    if archive.is_file():
        if (found := digest_of(archive, 'md5')) != MD5:
            raise UserError(
                f'{archive} has {archive.stat().st_size:,} bytes and the MD5 {found}, '
                f'expected {MD5}. If it is the beginning of a download, rename it to '
                f'{archive}.part to continue it. If it was packed anew, give it as '
                'the source'
            )
        return archive
    try:
        download(URL, archive, MD5)
    except ConnectionError as error:
        part = archive.with_name(f'{archive.name}.part')
        kept = size_of(part)
        raise ConnectionError(
            f'{error}\n{kept:,} bytes are kept in {part}; the next attempt continues '
            'there. Without a network, get the data elsewhere and give the zip or '
            'folder as the source'
        ) from error
    return archive


def _copy(root: Path, new: Path) -> Path:
    """Copy the files of the data set; the source folder is only read."""
    files = [file for file in root.iterdir() if file.is_file()]
    for name in _FOLDERS:
        (new / name).mkdir(parents=True)
        files += _files(root / name)
    for file in tqdm(files, 'copying', unit='file', disable=None):
        shutil.copyfile(file, new / file.relative_to(root))
    return new


def _files(folder: Path) -> list[Path]:
    kind = '.jpg' if folder.parent.name == 'images' else '.png'
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix == kind and not file.name.startswith('._')  # a Mac's
    )


def _check(
    root: Path, counts: Mapping[str, int], report: Path, workers: int | None
) -> dict:
    """Check every file; return a summary, or raise UserError with all errors."""
    findings, splits = Findings(), {}
    for split, count in counts.items():
        pairs = _list_pairs(root, split, count, findings)
        splits[split] = _summarise(
            inspect_pairs(pairs, f'checking {split}', workers), split, findings
        )
        labels = root / 'annotations' / split
        _check_zero_label(labels, splits[split]['labels'], findings)
    found = findings.sorted()
    if found:
        _write(report, json.dumps(dict(findings=[*map(vars, found)]), indent=1))
        _write(report.with_suffix('.txt'), '\n\n'.join(map(str, found)) + '\n')
        listing = '\n'.join(map(str, found))
        raise UserError(f'{root}:\n{listing}\nAll of them are in {report}')
    return dict(splits=splits)


def _list_pairs(
    root: Path, split: str, count: int, findings: Findings
) -> list[tuple[str, str | None]]:
    """List image and annotation of each sample; report those without a partner."""
    images, labels = root / 'images' / split, root / 'annotations' / split
    names = {file.name for file in _files(images)}
    wanted = {annotation_of(name, ('.jpg',), '.png'): name for name in names}
    there = {file.name for file in _files(labels)}
    for kind, folder, number in (
        ('images', images, len(names)),
        ('annotations', labels, len(there)),
    ):
        if number != count:
            findings.add(
                split,
                f'wrong number of {kind}',
                f'{folder} has {number:,}, expected {count:,}. Was it unpacked or '
                'copied to the end?',
            )
    for name in sorted(wanted.keys() - there):
        text = f'{images / wanted[name]} has no {labels / name}'
        findings.add(split, 'image without annotation', text, wanted[name])
    for name in sorted(there - wanted.keys()):
        text = f'{labels / name} has no image in {images}'
        findings.add(split, 'annotation without image', text, name)
    return [
        (str(images / wanted[name]), str(labels / name))
        for name in sorted(wanted.keys() & there)
    ]


def _check_zero_label(labels: Path, found: dict[str, int], findings: Findings) -> None:
    """Report annotations that count from 0."""
    if CLASSES[-1] not in found and set(CLASSES[:-1]) <= found.keys():
        findings.add(
            labels.name,
            'labels count from 0',
            f'{labels}: every label from 0 to {len(CLASSES) - 2} occurs, '
            f'{len(CLASSES) - 1} ({CLASSES[-1].strip()}) never: expected 0 where '
            'nothing is annotated and classes from 1 on. Take the published '
            'annotations, or add 1 to each label but 255',
        )


def _summarise(all_facts: Iterator[Facts], split: str, findings: Findings) -> dict:
    pixels: Counter[str] = Counter()
    images: Counter[str] = Counter()
    sizes = []
    for facts in all_facts:
        for kind, message in facts.faults:
            findings.add(split, kind, message, facts.image)
        wrong = {n: count for n, count in facts.labels.items() if n >= len(CLASSES)}
        if wrong:
            findings.add(
                split,
                'label out of range',
                f'{facts.annotation}: label {max(wrong)}, in {sum(wrong.values()):,} '
                f'pixels labels above {len(CLASSES) - 1}; expected 0 (other) and 1..'
                f'{len(CLASSES) - 1}, as ADEChallengeData2016 has them (the full '
                'ADE20K, with thousands of classes, is another data set)',
                facts.image,
            )
            continue
        names = {CLASSES[n]: count for n, count in facts.labels.items()}
        pixels.update(names)
        images.update(names.keys())
        if facts.size:
            sizes.append(facts.size)
    order = [name for name in CLASSES if name in pixels]
    return dict(
        images=len(sizes),
        smallest=min(sizes, key=_area, default=None),
        largest=max(sizes, key=_area, default=None),
        labels={name: pixels[name] for name in order},
        label_images={name: images[name] for name in order},
    )


def _area(size: tuple[int, ...]) -> int:
    return size[0] * size[1]


def _finish(report: Path, result: dict) -> dict:
    """Write the report; return the result with the path of its text."""
    _write(report, json.dumps(result, indent=1))
    lines, columns = [], {}
    for split, found in result['splits'].items():
        small, large = ('x'.join(map(str, found[k])) for k in ('smallest', 'largest'))
        lines.append(f'{split}: {found["images"]:,} images, {small} to {large}')
        total = sum(found['labels'].values())
        columns[split] = {
            name: (count / total, found['label_images'][name])
            for name, count in found['labels'].items()
        }
    text = report.with_suffix('.txt')
    _write(text, '\n'.join([*lines, class_table(CLASSES, columns)]) + '\n')
    return dict(result, report=text)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:  # read-only data is checked as well
        print_log(f'{path} not written: {error}', 'current', logging.WARNING)
