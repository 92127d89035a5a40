import json
from pathlib import Path

import pytest

from illama_seg.apis.roadmap import (
    LINEAR,
    NO_MASK,
    roadmap_runs,
    run_roadmap,
    summarise,
    table_of,
    train_runs,
)

CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPE, ABLATION = CONFIGS / 'pretrain/illama_micro_digits.py', CONFIGS / 'ablation'


def short(runs):
    for cfg in runs.values():
        cfg.train_cfg.max_epochs = 2
        cfg.param_scheduler[0].warmup = 1
        for hook in cfg.custom_hooks:
            hook.cutoff = 1
    return runs


def test_runs_are_the_steps_the_multiplied_masks_and_the_schedules():
    runs = roadmap_runs(RECIPE, ABLATION)
    masks = {name: cfg.model.backbone.attn_mask for name, cfg in runs.items()}
    assert len(runs) == 14
    assert masks['1 ViT'] == 'bidirectional'
    assert masks['4 causal'] == 'strict' and masks['4 by Eq. 2'] == 'soft'
    first = runs['4 by Eq. 2'].model.backbone
    assert first.cls_position == 'first' and not first.with_rotary
    hooks = {name: [h.mode for h in cfg.custom_hooks] for name, cfg in runs.items()}
    assert hooks['9 soft mask'] == ['constant'] and hooks[LINEAR] == ['linear']
    assert hooks[NO_MASK] == [] and masks[NO_MASK] == 'soft'
    assert {cfg.train_cfg.max_epochs for cfg in runs.values()} == {30}


def test_a_finished_run_is_not_repeated(tmp_path):
    runs = short(roadmap_runs(RECIPE, ABLATION))
    two = {name: runs[name] for name in ('4 causal', '9 soft mask')}
    records = train_runs(two, [0], tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('record.json')}
    assert len(files) == 2
    assert train_runs(two, [0], tmp_path) == records
    assert {path: path.stat().st_mtime_ns for path in files} == files
    # What a setting has changed is trained again.
    two['4 causal'].model.data_preprocessor.mixup = 0.5
    train_runs(two, [0], tmp_path)
    changed = [path for path, at in files.items() if path.stat().st_mtime_ns != at]
    assert [path.parts[-3] for path in changed] == ['4_causal']


def test_records_hold_a_value_for_each_epoch(tmp_path):
    runs = short(roadmap_runs(RECIPE, ABLATION))
    (record,) = train_runs({'9': runs['9 soft mask']}, [3], tmp_path)['9']
    assert len(record['accuracy']) == len(record['loss']) == 2
    assert record['soft_mask_rate'] == pytest.approx([1.0, 0.0])
    assert all(0 <= value <= 100 for value in record['accuracy'])


def test_summary_is_mean_and_sample_deviation():
    seeds = [dict(accuracy=[0, 90.0], loss=[2.0]), dict(accuracy=[0, 94.0], loss=[1.0])]
    row = summarise({'a': seeds})['a']
    assert row['accuracy']['mean'] == 92
    assert row['accuracy']['std'] == pytest.approx(8**0.5)
    assert '92.0 ± 2.8' in table_of({'a': row})


def test_pictures_and_numbers_are_written(tmp_path, monkeypatch):
    import illama_seg.apis.roadmap as module

    original = module.roadmap_runs
    monkeypatch.setattr(
        module,
        'roadmap_runs',
        lambda *args: {
            name: cfg
            for name, cfg in short(original(*args)).items()
            if name in ('9 soft mask', LINEAR, NO_MASK)
        },
    )
    table = run_roadmap(RECIPE, ABLATION, tmp_path, num_seeds=1)
    assert '9 soft mask' in table
    numbers = json.loads((tmp_path / 'roadmap.json').read_text())
    assert set(numbers['curves']) == {'none', 'constant', 'linear'}
    assert (tmp_path / 'roadmap.png').stat().st_size > 10_000
    assert (tmp_path / 'soft_mask.png').stat().st_size > 10_000
