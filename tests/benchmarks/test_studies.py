"""Studies on CamVid: groups, contrasts, and the files of their runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_run import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import camvid_runs
import decoder_study
import dense_gap
import positions

from illama_seg.apis import load_config, parse_cfg_options
from illama_seg.backbones import ILLaMA

STUDIES = [decoder_study.STUDY, dense_gap.STUDY]
named = pytest.mark.parametrize('study', STUDIES, ids=lambda study: study.name)


@named
def test_every_group_has_a_config_and_every_side_an_evaluation(study):
    sides = [side for _, *pair in study.contrasts for side in pair]
    for name, evaluation in sides + [s for each in study.panels.values() for s in each]:
        assert evaluation in study.groups[name].evaluations
    for name, group in study.groups.items():
        assert len(group.pretrainings) >= len(group.seeds)
        for seed, other in group.shared.items():
            assert seed in group.seeds and seed in study.groups[other].seeds, name
        for seed in group.seeds:
            options = parse_cfg_options(group.options_of(seed))
            cfg = load_config(ROOT / f'configs/{group.config}.py', options)
            settings = {k: v for k, v in cfg.model.backbone.items() if k != 'init_cfg'}
            assert settings.pop('type') == 'ILLaMA'
            ILLaMA(**settings)


def test_a_run_that_is_another_groups_too_has_the_same_settings():
    """Else its numbers would be of another training."""
    for study in STUDIES:
        for name, group in study.groups.items():
            for seed, other in group.shared.items():
                configs = []
                for part in (group, study.groups[other]):
                    options = parse_cfg_options(part.options_of(seed))
                    path = ROOT / f'configs/{part.config}.py'
                    configs.append(load_config(path, options).to_dict())
                    configs[-1].pop('work_dir')
                assert configs[0] == configs[1], (name, seed)


def write(folder, scores):
    hits = np.full((camvid_runs.PARTS, 11), 500).tolist()
    unions = np.full((camvid_runs.PARTS, 11), 2000).tolist()
    for (group, seed), miou in scores.items():
        evaluation = dict(mIoU=miou, hits=hits, unions=unions)
        numbers = dict(group=group, seed=seed, evaluations={'': evaluation})
        (folder / f'{group}_{seed}.json').write_text(json.dumps(numbers))


def test_contrasts_are_paired_by_seed_and_the_picture_is_drawn(tmp_path):
    scores = {
        ('strict_tokens', 0): 40.0,
        ('strict_tokens', 1): 50.0,
        ('strict_linear', 0): 41.0,
        ('strict_linear', 1): 49.5,
        ('strict_linear', 2): 9.0,
    }
    write(tmp_path, scores)
    text = camvid_runs.report(decoder_study.STUDY, tmp_path)
    assert '| strict, class tokens |  | 45.0 ± 7.1 | 40.0, 50.0 |' in text
    assert 'E1, primary: strict, class tokens minus strict, linear' in text
    assert '-0.2 ± 1.1 | -1.0, +0.5 |' in text
    camvid_runs.draw(decoder_study.STUDY, tmp_path, tmp_path / 'rows.png')
    assert (tmp_path / 'rows.png').stat().st_size > 10_000


def test_a_shared_run_is_trained_once(tmp_path, monkeypatch):
    trained = []

    def train(group, seed, work_dir):
        trained.append((work_dir.parent.name, seed))
        return Path('none')

    monkeypatch.setattr(camvid_runs, 'train', train)
    monkeypatch.setattr(
        camvid_runs, 'evaluate', lambda *_: dict(mIoU=float(_[1][-1][-1]))
    )
    a = camvid_runs.Group('a', 'x', ('at={pretraining}',), (0, 1), pretrainings=(4, 7))
    b = camvid_runs.Group('b', 'x', (), (0,), shared={0: 'a'})
    study = camvid_runs.Study('s', dict(a=a, b=b), [], {})
    for name, seed in (('b', 0), ('a', 0), ('a', 1)):
        camvid_runs.run(study, name, seed, tmp_path, tmp_path)
    assert trained == [('a', 0), ('a', 1)]
    found = camvid_runs.scores(tmp_path)
    assert found['a', ''][1]['mIoU'] == 7
    assert found['a', ''][0] == found['b', ''][0] == dict(mIoU=4.0)


def test_an_image_is_turned_and_its_labels_back(monkeypatch):
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    seen = []

    def predict(model, pixels):
        seen.append(pixels)
        return pixels[..., 0]

    monkeypatch.setattr(camvid_runs, 'predict', predict)
    turned = camvid_runs.Evaluation(turned=True)
    labels = camvid_runs.segment(None, image, turned)
    np.testing.assert_array_equal(seen[0], image[::-1, ::-1])
    np.testing.assert_array_equal(labels, image[..., 0])


def test_accuracies_of_the_same_images_are_compared_image_by_image():
    """The standard error is that of the mean of the differences -1, 0 and 1."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(400) < 0.7, rng.random(400) < 0.6
    found = positions.paired(ours, theirs)
    each = ours.astype(float) - theirs
    half = 1.96 * each.std() / len(each) ** 0.5
    np.testing.assert_allclose(found['difference'], 100 * each.mean())
    ends = [100 * (each.mean() - half), 100 * (each.mean() + half)]
    np.testing.assert_allclose(found['interval'], ends)
    assert (found['only_this'], found['only_raster']) == (
        (each > 0).sum(),
        (each < 0).sum(),
    )
