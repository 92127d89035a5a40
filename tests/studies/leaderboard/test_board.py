"""Protocols, recipes, intervals and the files of a leaderboard."""

import copy
import json
import statistics

import cv2
import numpy as np
import pytest
from hypothesis import given, strategies as st
from mmengine.config import Config
from tiny_run import CONFIG, ROOT

from illama_seg.apis import load_config
from illama_seg.errors import MissingFileError, UserError
from illama_seg.reports import write_board_page
from illama_seg.studies import compare_runs, run_leaderboard
from illama_seg.studies.comparison.protocol import differences, protocol_of
from illama_seg.studies.leaderboard.board import interval
from illama_seg.studies.leaderboard.draw import draw_board
from illama_seg.studies.leaderboard.recipe import RECIPES, changed, settle, under_recipe
from illama_seg.studies.leaderboard.runs import Run, train_missing

CAMVID = ROOT / 'configs/queries/illama_micro_linear_camvid.py'
QUERIES = ROOT / 'configs/queries/illama_tiny_queries_ade20k.py'


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=9))
def test_the_interval_holds_the_mean_by_students_t(values):
    """By the table's quantiles for 1 to 8 degrees of freedom."""
    quantiles = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306
    half = quantiles[len(values) - 2] * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    np.testing.assert_allclose(
        interval(values), [mean - half, mean + half], rtol=1e-3, atol=1e-3 + half * 1e-3
    )


def test_one_difference_has_no_interval():
    assert interval([1.0]) is None


@pytest.mark.parametrize(
    ('change', 'setting'),
    [
        ({'train_dataloader.dataset.data_root': 'other'}, 'training data'),
        ({'val_dataloader.dataset.indices': 5}, 'validation data'),
        ({'model.data_preprocessor.size': (256, 256)}, 'crop'),
        ({'train_cfg.max_iters': 7}, 'iterations'),
        ({'train_dataloader.batch_size': 3}, 'batch'),
        ({'optim_wrapper.accumulative_counts': 2}, 'batch'),
        ({'model.test_cfg.stride': (256, 256)}, 'inference'),
        ({'model.backbone.arch': 'small'}, None),
        ({'optim_wrapper.optimizer.lr': 1.0}, None),
    ],
    ids=str,
)
def test_runs_that_do_not_compare_differ_in_a_setting(change, setting):
    cfg, other = load_config(CONFIG), load_config(CONFIG, change)
    found = differences({'a': protocol_of(cfg), 'b': protocol_of(other)})
    assert list(found) == ([setting] if setting else [])


@pytest.mark.parametrize('dataset', RECIPES)
@pytest.mark.parametrize('config', [CONFIG, CAMVID, QUERIES], ids=lambda p: p.stem)
def test_a_recipe_leaves_the_model_and_replaces_all_else(config, dataset):
    cfg, recipe = load_config(config), load_config(RECIPES[dataset])
    found = under_recipe(copy.deepcopy(cfg), dataset)
    assert protocol_of(found) == protocol_of(recipe)
    classes = recipe.model.decode_head.num_classes
    assert found.model.decode_head.num_classes == classes
    if cfg.model.get('auxiliary_head'):
        assert found.model.auxiliary_head.num_classes == classes
    if 'num_queries' in cfg.model.backbone:
        assert found.model.backbone.num_queries == classes
    for key in (
        'optim_wrapper',
        'param_scheduler',
        'train_dataloader',
        'val_evaluator',
    ):
        assert found[key] == recipe[key], key
    loss, own = (
        part.model.decode_head.loss_decode.get('class_weight')
        for part in (found, recipe)
    )
    assert loss == own
    for key in ('type', 'arch', 'out_indices', 'init_cfg'):
        assert found.model.backbone.get(key) == cfg.model.backbone.get(key)
    assert found.model.backbone.img_size == recipe.model.backbone.img_size


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UserError, match='expected one of demo, camvid, ade20k'):
        under_recipe(load_config(CONFIG), 'coco')


def test_all_runs_have_one_precision_and_their_last_checkpoint(monkeypatch):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', 'bfloat16')
    cfg = settle(load_config(ROOT / 'configs/upernet_illama_micro_camvid.py'))
    assert cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.default_hooks.checkpoint.save_best is None


def test_a_changed_setting_is_named():
    cfg, other = load_config(CONFIG), load_config(CONFIG, {'train_cfg.max_iters': 7})
    other.work_dir = 'elsewhere'
    assert changed(other, cfg) == 'train_cfg.max_iters=7, and 160000 before'
    again = Config.fromstring(cfg.pretty_text, '.py')
    assert changed(cfg, again) == ''


def test_configs_of_different_recipes_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match=r'(?s)differ in more.*crop: .*512x512.*--data'):
        run_leaderboard([CONFIG, CAMVID], tmp_path)
    with pytest.raises(UserError, match='two configs of one name'):
        run_leaderboard([CONFIG, CONFIG], tmp_path)
    with pytest.raises(UserError, match='expected the config of a segmentor'):
        run_leaderboard([ROOT / 'configs/pretrain/illama_micro_digits.py'], tmp_path)
    with pytest.raises(UserError, match='expected at least 1'):
        run_leaderboard([CONFIG], tmp_path, seeds=0)
    with pytest.raises(UserError, match=r'does not fit .*upernet_illama_tiny'):
        run_leaderboard([CONFIG], tmp_path, cfg_options={'train_cfg.max_iters.x': 1})
    assert not list(tmp_path.iterdir())


def test_joined_data_sets_are_told_apart_by_their_parts():
    parts = [dict(type='A', data_root=root) for root in 'xy']
    first, second = (
        Config(
            dict(
                model={},
                train_dataloader=dict(
                    dataset=dict(type='ConcatDataset', datasets=parts[:count])
                ),
            )
        )
        for count in (1, 2)
    )
    found = differences({'a': protocol_of(first), 'b': protocol_of(second)})
    assert found == {'training data': {'a': 'A x', 'b': 'A x and A y'}}


@pytest.mark.slow
def test_a_run_that_fails_names_its_log(tmp_path):
    run = Run('absent', tmp_path / 'absent.py', 3, tmp_path / '3', 4)
    text = r'(?s)absent, seed 3: error: .*absent\.py.*See .*run\.log\. Finished runs'
    with pytest.raises(UserError, match=text):
        train_missing([run], 1)


def test_the_step_of_a_run_is_its_last_logged_iteration(tmp_path):
    run = Run('a', tmp_path / 'a.py', 0, tmp_path, 40)
    assert run.step() == 0
    log = tmp_path / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(
        '{"loss": 1, "step": 10}\n{"loss": 1, "step": 20}\n{"mIoU": 3}\n{"lo'
    )
    assert run.step() == 20
    (tmp_path / 'test').mkdir()
    (tmp_path / 'test/scores.json').write_text('{}')
    assert run.step() == 40


def test_the_picture_and_the_page_have_every_model(tmp_path):
    rows = [
        dict(name=name, mIoU=[value, value + 2], mean=value + 1.0, std=1.4)
        | dict(multiply_accumulates=1e9 * value, difference=None)
        for name, value in (('one', 20.0), ('two', 30.0), ('three', 25.0))
    ]
    draw_board(rows, tmp_path / 'leaderboard.png')
    assert cv2.imread(str(tmp_path / 'leaderboard.png')).shape[1] > 1000
    with pytest.raises(MissingFileError, match=r'no leaderboard\.json'):
        write_board_page(tmp_path)
    content = dict(models=rows, protocol=dict(crop='1x2'), seeds=[0, 1], tables=[])
    (tmp_path / 'leaderboard.json').write_text(json.dumps(content))
    for row in rows:
        (tmp_path / row['name']).mkdir()
        (tmp_path / row['name'] / f'{row["name"]}.py').write_text(
            f'x = {row["name"]!r}'
        )
    text = write_board_page(tmp_path).read_text()
    assert text.count('<img') == 1 and 'crop' in text
    assert all(f'<summary>{row["name"]}' in text for row in rows)


def test_runs_of_another_recipe_are_compared_with_a_note(tmp_path):
    for name, iterations in (('a', 7), ('b', 9)):
        log = tmp_path / name / '20260101_000000/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text('{"loss": 1, "step": 1}\n{"mIoU": 3, "step": 1}')
        cfg = load_config(CONFIG, {'train_cfg.max_iters': iterations})
        cfg.dump(tmp_path / name / 'config.py')
    table = compare_runs([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'out')
    assert 'differ in more than the model:\niterations: a 7, b 9' in table
    numbers = json.loads((tmp_path / 'out/compare.json').read_text())
    assert numbers['differences'] == {'iterations': {'a': '7', 'b': '9'}}
