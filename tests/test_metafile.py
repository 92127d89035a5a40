"""The files that mim reads say what the configs, the README and the paper say."""

import ast
import re
from pathlib import Path

import pytest
from mmengine.fileio import load

from illama_seg.apis import list_models
from illama_seg.apis.configs import find_config
from illama_seg.apis.models import _released
from illama_seg.checkpoints import RELEASED

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
FILES = {path: load(ROOT / path) for path in load(ROOT / 'model-index.yml')['Import']}
COLLECTIONS = {
    collection['Name']
    for file in FILES.values()
    for collection in file.get('Collections', [])
}
MODELS = [model for file in FILES.values() for model in file['Models']]
every_model = pytest.mark.parametrize('model', MODELS, ids=lambda model: model['Name'])


def docstring(model):
    return ast.get_docstring(ast.parse((ROOT / model['Config']).read_text()))


def figures_of(model):
    """(metric, value, who reports it) by the config's docstring, else the README."""
    text = docstring(model)
    paper = re.search(r"the paper's figure\): ([\d.]+) (mIoU|top-1)", text)
    if paper:
        metric = 'mIoU(ms+flip)' if paper[2] == 'mIoU' else 'Top 1 Accuracy'
        return [(metric, float(paper[1]), 'paper')]
    if top1 := re.search(r'([\d.]+) top-1 measured', text):
        return [('Top 1 Accuracy', float(top1[1]), 'this project')]
    row = rf'\| ([\d.]+): `{model["Name"]}\.py`'
    miou = re.search(r'Measured: ([\d.]+) mIoU', text)
    miou = miou or re.search(row, README)
    return [('mIoU', float(miou[1]), 'this project')] if miou else []


def test_the_index_has_every_metafile():
    assert set(FILES) == {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'configs').rglob('metafile.yml')
    }


def test_every_config_is_listed_once_in_the_metafile_of_its_folder():
    assert sorted(model['Name'] for model in MODELS) == list_models()
    for path, file in FILES.items():
        for model in file['Models']:
            config = Path(model['Config'])
            assert config.parent == Path(path).parent
            assert config.stem == model['Name'] and (ROOT / config).is_file()


# A part of the name -> collection; else it is ours.
PEERS = {
    'convnext': 'ConvNeXt',
    'deit3': 'DeiT III',
    'dinov3': 'DINOv3',
    'eva02': 'EVA-02',
    'segformer': 'SegFormer',
    'swin': 'Swin',
    'visionllama': 'VisionLLaMA',
    'vit': 'ViT',
}


@every_model
def test_the_collection_is_ours_or_the_peers(model):
    parts = [collection for part, collection in PEERS.items() if part in model['Name']]
    assert [model['In Collection']] == (parts or ['iLLaMA'])
    assert model['In Collection'] in COLLECTIONS


@every_model
def test_figures_are_the_configs_and_marked_as_the_papers_or_ours(model):
    # In the metadata, since `mim search` shows that of it.
    who = model['Metadata'].get('Reported By', '')
    found = [
        (metric, value, who.split(',')[0])
        for result in model.get('Results', [])
        for metric, value in result['Metrics'].items()
    ]
    assert found == figures_of(model)
    assert bool(who) == bool(found)
    assert all(table in docstring(model) for table in re.findall(r'Table \d+', who))
    for result in model.get('Results', []):
        assert result['Dataset'] == model['Metadata']['Training Data']


def test_figures_of_both_kinds_are_found():
    reporters = [who for model in MODELS for _, _, who in figures_of(model)]
    assert reporters.count('paper') >= 35 and reporters.count('this project') >= 3


def test_figures_of_the_readme_marked_as_the_papers_are_the_metafiles():
    rows = re.findall(r'\| `(\w+)\.py` \|.*\| ([\d.]+) \(paper\) \|$', README, re.M)
    assert len(rows) >= 4
    by_name = {model['Name']: model for model in MODELS}
    for name, value in rows:
        assert by_name[name]['Results'][0]['Metrics'] == {'mIoU(ms+flip)': float(value)}


def test_weights_are_the_eight_released_files_of_that_accuracy():
    weights = {m['Weights']: m for m in MODELS if 'Weights' in m}
    assert set(weights) == {file.url for file in RELEASED.values()}
    for file in RELEASED.values():
        model = weights[file.url]
        assert model['Results'][0]['Metrics'] == {'Top 1 Accuracy': file.top1}
        assert file.arch in model['Name']


@every_model
def test_weights_are_found_by_name(model):
    assert _released(find_config(model['Name'])) == model.get('Weights')
