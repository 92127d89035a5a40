import json
from pathlib import Path

import pytest
from tiny_roadmap import ABLATION, RECIPE, short

from illama_seg.studies.ablations.roadmap import (
    SCHEDULES,
    roadmap_runs,
    run_roadmap,
    summarise,
    table_of,
)


def test_runs_are_the_steps_the_multiplied_masks_and_the_schedules():
    runs = roadmap_runs(RECIPE, ABLATION)
    masks = {name: cfg.model.backbone.attn_mask for name, cfg in runs.items()}
    assert len(runs) == 15
    assert masks['1 ViT'] == 'bidirectional'
    assert masks['4 causal'] == 'strict' and masks['4 by Eq. 2'] == 'soft'
    first = runs['4 by Eq. 2'].model.backbone
    assert first.cls_position == 'first' and not first.with_rotary
    hooks = {name: [h.mode for h in cfg.custom_hooks] for name, cfg in runs.items()}
    assert hooks['9 soft mask'] == ['constant']
    steps = [cfg for name, cfg in runs.items() if name not in SCHEDULES.values()]
    assert {cfg.train_cfg.max_epochs for cfg in steps} == {30}
    assert {cfg.optim_wrapper.optimizer.lr for cfg in steps} == {2e-3}


def test_schedules_differ_in_the_hook_alone():
    runs = roadmap_runs(RECIPE, ABLATION)
    three = [runs[name].to_dict() for name in SCHEDULES.values()]
    modes = [[hook['mode'] for hook in run.pop('custom_hooks')] for run in three]
    assert modes == [[], ['constant'], ['linear']]
    assert three[0] == three[1] == three[2]
    assert three[0]['model']['backbone']['attn_mask'] == 'soft'
    assert three[0]['model']['backbone']['patch_size'] == 1
    cutoffs = {hook.cutoff for cfg in runs.values() for hook in cfg.custom_hooks}
    assert cutoffs == {15, 8}


def test_summary_is_mean_and_sample_deviation():
    seeds = [dict(accuracy=[0, 90.0], loss=[2.0]), dict(accuracy=[0, 94.0], loss=[1.0])]
    row = summarise({'a': seeds})['a']
    assert row['accuracy']['mean'] == 92
    assert row['accuracy']['std'] == pytest.approx(8**0.5)
    assert '92.0 ± 2.8' in str(table_of({'a': row}))


@pytest.mark.slow
def test_images_and_numbers_are_written(tmp_path, monkeypatch):
    import illama_seg.studies.ablations.roadmap as module

    original = module.roadmap_runs
    monkeypatch.setattr(
        module,
        'roadmap_runs',
        lambda *args: {
            name: cfg
            for name, cfg in short(original(*args)).items()
            if name in ('9 soft mask', *SCHEDULES.values())
        },
    )
    table = run_roadmap(RECIPE, ABLATION, out=tmp_path, num_seeds=1, num_workers=1)
    assert '9 soft mask' in table
    numbers = json.loads((tmp_path / 'roadmap.json').read_text())
    assert set(numbers['curves']) == {'none', 'constant', 'linear'}
    assert Path(tmp_path / 'roadmap.png').stat().st_size > 10_000
    assert Path(tmp_path / 'soft_mask.png').stat().st_size > 10_000
