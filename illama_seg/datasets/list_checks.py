"""List the images and annotations of data sets, and find what has no partner."""

from __future__ import annotations

import os.path as osp
from collections import Counter

from mmseg.datasets import BaseSegDataset

from illama_seg.datasets.findings import Findings
from illama_seg.datasets.lists import (
    check_listed,
    has_list,
    listed_pairs,
    missing_files,
    read_lines,
)
from illama_seg.datasets.segmentation import (
    CheckedSegDataset,
    annotation_of,
    list_annotations,
    list_files,
)


def list_pairs(
    dataset: BaseSegDataset, split: str, findings: Findings
) -> list[tuple[str, str | None]]:
    """List image and annotation of each sample; report those without a partner."""
    if has_list(dataset):
        return _list_listed(dataset, split, findings)
    img_dir = dataset.data_prefix['img_path']
    ann_dir = dataset.data_prefix.get('seg_map_path')
    suffixes = dataset.img_suffix
    suffixes = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    images = list_files(dataset, img_dir, suffixes)
    if not images:
        findings.add(
            split,
            'no image',
            f'{img_dir} has no file ending in {" or ".join(suffixes)}: set data_root, '
            'data_prefix or img_suffix of the data set',
        )
    if not ann_dir:
        text = (
            f'no folder of annotations beside {img_dir}: set data_prefix.seg_map_path'
        )
        findings.add(split, 'no annotations', text)
        return [(osp.join(img_dir, image), None) for image in images]
    there = set(list_annotations(dataset, ann_dir))
    pairs: list[tuple[str, str | None]] = []
    for image in images:
        annotation = annotation_of(image, suffixes, dataset.seg_map_suffix)
        path, partner = osp.join(img_dir, image), osp.join(ann_dir, annotation)
        pairs.append((path, partner if annotation in there else None))
        if annotation not in there:
            text = f'{path}: expected {partner}. Add it, or remove the image'
            findings.add(split, 'image without annotation', text, path)
        there.discard(annotation)
    for annotation in sorted(there):
        path = osp.join(ann_dir, annotation)
        text = (
            f'{path}: expected its image in {img_dir}, ending in '
            f'{" or ".join(suffixes)}. It is not learnt from: add the image, or remove '
            'the annotation'
        )
        findings.add(split, 'annotation without image', text, path)
    return pairs


def _list_listed(
    dataset: BaseSegDataset, split: str, findings: Findings
) -> list[tuple[str, str | None]]:
    """List the samples of a list as its data set reads them; report its faults."""
    if isinstance(dataset, CheckedSegDataset):
        pairs = _checked_list(dataset, split, findings)
    else:
        pairs = _plain_list(dataset, split, findings)
    path = dataset.ann_file
    for image, count in Counter(image for image, _ in pairs).items():
        if count > 1:
            text = f'{path} names {image} {count} times, and so often it counts'
            findings.add(split, 'listed again', text, image, level='warning')
    return pairs


def _checked_list(
    dataset: BaseSegDataset, split: str, findings: Findings
) -> list[tuple[str, str | None]]:
    path, listed = dataset.ann_file, listed_pairs(dataset)
    lost, bare = missing_files(dataset, listed)
    if len(lost) + len(bare) == len(listed):  # as where there is no folder
        check_listed(dataset, listed)
    for sample in lost:
        text = f'{path}, line {sample.line}: no image {sample.image}. Add it, or remove'
        findings.add(split, 'listed, but not there', f'{text} the line', sample.image)
    for sample in bare:
        text = (
            f'{sample.image}: expected {sample.annotation}, by line {sample.line} of '
            f'{path}. Add it, or remove the line'
        )
        findings.add(split, 'image without annotation', text, sample.image)
    absent, without = ({s.line for s in samples} for samples in (lost, bare))
    return [
        (s.image, None if s.line in without else s.annotation)
        for s in listed
        if s.line not in absent
    ]


def _plain_list(
    dataset: BaseSegDataset, split: str, findings: Findings
) -> list[tuple[str, str | None]]:
    """List the samples of mmseg's own data set, which takes every line for a name."""
    path, name = dataset.ann_file, type(dataset).__name__
    for number, line in enumerate(read_lines(dataset), 1):
        if not line:
            text = f'{path}, line {number} is blank: {name} takes it for a name'
            findings.add(split, 'faulty list', f'{text}. Remove it', path)
    samples = dataset.load_data_list()
    if '\ufeff' in samples[0]['img_path']:
        text = f'{path} begins with a byte order mark: {name} takes it for a letter'
        findings.add(split, 'faulty list', f'{text}. Save it without', path)
    return [(s['img_path'], s.get('seg_map_path')) for s in samples]
