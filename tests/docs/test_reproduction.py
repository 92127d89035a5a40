"""docs/reproduce_the_paper.md says what the configs say and what can be counted."""

import json
import re

import pytest
import torch
from mmengine.fileio import load
from mmengine.registry import MODELS, DefaultScope
from pages import ROOT, section

from illama_seg.apis import get_config, list_models
from illama_seg.studies.complexity.counts import count_multiply_accumulates

PAGE = (ROOT / 'docs' / 'reproduce_the_paper.md').read_text()
STUDY = (ROOT / 'docs' / 'study.md').read_text()
RECORD = json.loads((ROOT / 'docs' / 'roadmap.json').read_text())['summary']
PAPERS = {
    model['Name']: value
    for path in load(ROOT / 'model-index.yml')['Import']
    for model in load(ROOT / path)['Models']
    if model['Metadata'].get('Reported By', '').startswith('paper')
    for result in model['Results']
    for value in result['Metrics'].values()
}


def tables(text):
    """Of each table its rows: column -> text, without the code marks."""
    for lines in re.findall(r'(?:^\|.*\|\n)+', text, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip('|').split('|')]
            for line in lines.splitlines()
        )
        yield [dict(zip(head, row, strict=True)) for row in rows]


def rows(title):
    (table,) = tables(section(PAGE, title))
    return table


def names(row):
    """Configs that a row is about, by its first column."""
    return re.findall(r'`(\w+)`', next(iter(row.values())))


def test_the_papers_figures_are_those_of_the_configs_and_none_lacks():
    found = {}
    for table in tables(PAGE):
        for row in table:
            figures = [
                float(re.match(r'[\d.]+', text)[0])
                for column, text in row.items()
                if re.fullmatch(r'(mIoU|top-1|Tiny|Base), paper', column) and text
            ]
            # A row of two configs has two figures.
            if set(names(row)) & set(list_models()):
                found |= dict(zip(names(row), figures, strict=False))
    assert found == PAPERS


def build(name):
    cfg = get_config(name)
    cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        return MODELS.build(cfg.model)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize('row', rows('Table 11: sizes'), ids=lambda row: row['config'])
def test_parameters_of_classifiers_are_the_authors(row):
    count = parameters(build(*names(row)))
    assert row['ours'] == row['authors'] == f'{count:,}'


@pytest.mark.parametrize(
    'row',
    rows('Table 6: multiply-accumulates and throughput'),
    ids=lambda row: row['config'],
)
def test_multiply_accumulates_of_classifiers_are_counted(row):
    counts = count_multiply_accumulates(build(*names(row)), (224, 224))
    whole, linear = (counts.total(products, False) / 1e9 for products in (True, False))
    assert row['ours, with the attention products'] == f'{whole:.2f}G'
    assert row['ours, without'] == f'{linear:.2f}G'
    assert row['multiply-accumulates at 224, paper'] == f'{whole:.1f}G'


@pytest.mark.parametrize('row', rows('Table 10: ADE20K'), ids=lambda row: row['config'])
def test_parameters_of_segmentors_are_counted(row):
    millions = parameters(build(*names(row))) / 1e6
    digits = len(row['parameters, ours'].rstrip('M').split('.')[1])
    assert row['parameters, ours'] == f'{millions:.{digits}f}M'
    assert float(row['parameters, paper'][:-1]) == pytest.approx(millions, abs=6e-3)


def in_words(run):
    found = RECORD[run]['accuracy']
    return f'{found["mean"]:.1f} ± {found["std"]:.1f}'


def test_micro_figures_are_those_of_the_record():
    steps = [name for name in RECORD if name[0].isdigit() and 'Eq. 2' not in name]
    table = rows('Table 17: from ViT to iLLaMA')
    assert [row['micro, digits, ours'] for row in table] == [*map(in_words, steps)]
    for run in set(RECORD) - {*steps, '5 by Eq. 2'}:
        assert in_words(run) in PAGE, run
    for run in RECORD:
        assert f'| {run} | {in_words(run)} |' in STUDY
