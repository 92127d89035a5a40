import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_classifier import CONFIG, OPTIONS, build, save

from illama_seg.apis import load_config
from illama_seg.studies import build_classifier, measure_attention_rank
from illama_seg.studies.attention_rank.rank import (
    cumulative_singular_values,
    rank_index,
)


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Checkpoint, folder, numbers and table of sharp attention and of random."""
    folder = tmp_path_factory.mktemp('rank')
    model = build()
    for block in model.backbone.blocks:
        block.attn.qkv.weight.data.mul_(30)
    checkpoint = save(model, folder / 'run' / 'digits.pth')
    numbers, table = measure_attention_rank(
        CONFIG, [checkpoint, 'random'], out=folder / 'out', cfg_options=OPTIONS
    )
    return checkpoint, folder / 'out', numbers, table


def test_the_rank_is_that_of_the_models_own_maps(measured):
    checkpoint, _, numbers, _ = measured
    sharp, random = numbers['models']
    assert (sharp['name'], sharp['images'], sharp['layers']) == ('run/digits', 30, 2)
    assert random['name'] == 'illama_micro_digits (random weights)'
    # 2 layers, 2 heads, before and after the mask; 16 patches and the class token.
    assert len(sharp['maps']) == 8 and {row['tokens'] for row in sharp['maps']} == {17}
    classifier = build_classifier(load_config(CONFIG, OPTIONS), checkpoint, 'cpu')
    data = [np.asarray(image, np.uint8) for image in _test_images()]
    curves = []
    attention = classifier.module.backbone.blocks[0].attn
    attention.register_forward_pre_hook(
        lambda module, args: curves.append(
            cumulative_singular_values(module.maps(*args)[1])
        )
    )
    for image in data:
        classifier.logits([classifier.load(dict(img=image))])
    expected = rank_index(torch.cat(curves).mean(0), 0.8)
    found = [
        row['index']
        for row in sharp['maps']
        if (row['layer'], row['kind']) == (1, 'masked')
    ]
    assert found == expected.tolist()


def test_the_reports_page_has_each_layers_indices(measured, reported):
    numbers = measured[2]
    head, rows = reported('attention_rank.json', numbers)
    assert tuple(head) == ('model', 'maps', 'N', 'layer 1', 'layer 2')
    assert len(rows) == 4 and tuple(rows[0][:3]) == ('run/digits', 'softmax', '17')
    found = [row['index'] for row in numbers['models'][0]['maps']
             if (row['layer'], row['kind']) == (2, 'softmax')]  # fmt: skip
    assert rows[0][4] == ' '.join(map(str, found))


def _test_images():
    """30 of the 50 digits of the test data, spread evenly."""
    from mmengine.registry import DATASETS

    cfg = load_config(CONFIG, OPTIONS)
    data = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=[]))
    return [data.get_data_info(round(n * 49 / 29))['img'] for n in range(30)]


def test_random_weights_attend_evenly_and_the_mask_alone_makes_rank(measured):
    _, _, numbers, _ = measured
    rows = numbers['models'][1]['maps']
    assert {row['index'] for row in rows if row['kind'] == 'softmax'} == {1}
    assert min(row['index'] for row in rows if row['kind'] == 'masked') > 3


def test_files_and_table_hold_the_same_numbers(measured):
    _, folder, numbers, table = measured
    assert json.loads((folder / 'attention_rank.json').read_text()) == numbers
    assert cv2.imread(str(folder / 'attention_rank.png')).shape[1] > 800
    line = next(x for x in table.splitlines() if 'run/digits' in x and 'masked' in x)
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    assert cells[2:] == ['17', *_by_layer(numbers['models'][0], 'masked')]


def _by_layer(model, kind):
    for layer in (1, 2):
        rows = [r for r in model['maps'] if (r['layer'], r['kind']) == (layer, kind)]
        yield ' '.join(str(row['index']) for row in rows)


def test_a_vit_of_timm_and_earlier_models_stand_beside_on_images_of_a_folder(
    measured, tmp_path
):
    for name in 'abc':
        noise = np.random.default_rng(ord(name)).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f'{name}.png')
    numbers, table = measure_attention_rank(
        CONFIG,
        ['timm:test_vit=random'],
        images=[tmp_path],
        out=tmp_path / 'out',
        beside=[measured[1] / 'attention_rank.json'],
        num_images=2,
        layers=[1],
        cfg_options=OPTIONS,
    )
    vit, *earlier = numbers['models']
    assert earlier == measured[2]['models'] and vit['images'] == 2
    assert {row['kind'] for row in vit['maps']} == {'softmax'}
    assert 'test_vit (random weights)' in table and 'layer 2' not in table


# Mistakes


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_images=0), 'num_images=0: expected at least 1'),
        (dict(share=1.0), 'share=1.0: expected a share between 0 and 1'),
        (dict(images=['nowhere']), 'no image or folder nowhere'),
        (dict(beside=['none.json']), "beside='none.json': no such file"),
        (dict(layers=[2, 0]), r'layers=\[2, 0\]: expected at least 1'),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, text, tmp_path):
    options = dict(dict(num_images=1, cfg_options=OPTIONS), **options)
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        measure_attention_rank(CONFIG, ['random'], out=tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


def test_layers_that_no_model_has_are_named_and_the_figures_kept(tmp_path):
    with pytest.raises(ValueError, match=r'layers=\[3\]: expected numbers from 1 to 2'):
        measure_attention_rank(
            CONFIG,
            ['random'],
            out=tmp_path,
            num_images=1,
            layers=[3],
            cfg_options=OPTIONS,
        )
    kept = json.loads((tmp_path / 'attention_rank.json').read_text())
    assert [model['layers'] for model in kept['models']] == [2]


def test_a_model_that_fails_does_not_cost_the_one_before(tmp_path):
    sources = ['random', tmp_path / 'none.pth']
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        measure_attention_rank(
            CONFIG, sources, out=tmp_path, num_images=1, cfg_options=OPTIONS
        )
    kept = json.loads((tmp_path / 'attention_rank.json').read_text())
    assert len(kept['models']) == len(kept['summary']) / 2 == 1


def test_a_folder_that_cannot_be_written_is_met_before_anything_is_measured():
    with pytest.raises(ValueError, match=r'/proc/none.: cannot be written'):
        measure_attention_rank(CONFIG, ['a.pth'], out='/proc/none', cfg_options=OPTIONS)


def test_a_model_without_attention_is_refused(tmp_path):
    with pytest.raises(ValueError, match='ResNet has no attention maps'):
        measure_attention_rank(CONFIG, ['timm:test_resnet=random'], out=tmp_path)


def test_a_file_of_another_share_or_kind_beside_is_refused(measured, tmp_path):
    _, folder, *_ = measured
    (tmp_path / 'other.json').write_text('{"models": [{"name": "a"}]}')
    for path, share in (
        (tmp_path / 'other.json', 0.8),
        (folder / 'attention_rank.json', 0.9),
    ):
        with pytest.raises(ValueError, match=r'expected the attention_rank\.json of'):
            measure_attention_rank(
                CONFIG, ['random'], out=tmp_path, beside=[path], share=share
            )
