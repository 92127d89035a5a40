"""Two processes train, evaluate and resume as one would: DDP, FSDP, EMA, bfloat16."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import two_processes as shared
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny_run import CONFIG, make_ade20k

from illama_seg.apis import build_trainer, load_config
from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import convert_checkpoint
from illama_seg.engine import ShardedRunner
from illama_seg.layers import resize_pos_embed

SCRIPT = Path(shared.__file__)


@pytest.fixture(autouse=True)
def _unformatted(monkeypatch):
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', shared.unformatted)


def make_uneven(data):
    """One validation image wider than the other, one training image of other shares."""
    for kind in ('images', 'annotations'):
        (path,) = (data / kind / 'validation').glob('*_1.*')
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.concatenate([image, image], axis=1))
    path = data / 'annotations' / 'training' / 'training_0.png'
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[1:-8] = labels[-1, -1]
    cv2.imwrite(str(path), labels)


def make_weights(folder):
    """A backbone as a pretrained file, and a classifier of digits, not trained."""
    arch = dict(embed_dims=24, num_layers=4, num_heads=3)
    backbone = ILLaMA(arch=arch, img_size=64, out_indices=-1)
    backbone.init_weights()
    torch.save(backbone.state_dict(), folder / 'backbone.pth')
    classifier = MODELS.build(Config.fromfile(shared.DIGITS).model)
    classifier.init_weights()
    torch.save({'state_dict': classifier.state_dict()}, folder / 'classifier.pth')


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What two processes computed: folder, data and, by process, ``main``'s results."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('two')
    data = make_ade20k(folder / 'ade20k')
    make_uneven(data)
    make_weights(folder)
    files = folder, data, folder / 'backbone.pth', folder / 'classifier.pth'
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    process = subprocess.run(
        [sys.executable, *torchrun, str(SCRIPT), *map(str, files)],
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONFAULTHANDLER': '1'},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-5000:]
    ranks = [torch.load(folder / f'rank{rank}.pt') for rank in range(2)]
    return SimpleNamespace(folder=folder, data=data, ranks=ranks)


def difference(one, other):
    """Largest difference of two sets of tensors, over the largest value of each."""
    assert one.keys() == other.keys()
    return max(
        ((one[key].double() - other[key].double()).abs().max() / (scale or 1)).item()
        for key in one
        for scale in [other[key].double().abs().max().item()]
    )


def gradients(two, name):
    one, other = (results['gradients'][name] for results in two.ranks)
    assert difference(one, other) == 0
    return one


def trained(two, name):
    return [results['trainings'][name] for results in two.ranks]


# Gradients


def test_gradients_are_those_of_one_process_with_the_double_batch(two):
    # Norms of groups of channels: they know nothing of the other images of a batch.
    assert difference(gradients(two, 'groups'), shared.GRADIENTS['groups']()) < 1e-4


def test_adapters_and_heads_alone_get_those_gradients_too(two):
    found = gradients(two, 'LoRA')
    assert difference(found, shared.GRADIENTS['LoRA']()) < 1e-4
    inside = [name for name in found if name.startswith('backbone.')]
    assert len(inside) == 2 * 5 * 4 and all('.lora_' in name for name in inside)


def test_batch_norms_of_half_a_batch_give_other_gradients(two):
    # Why the configs set sync_bn, which needs GPUs, for runs of several processes.
    alone = shared.GRADIENTS['batch norm']()
    assert difference(gradients(two, 'batch norm'), alone) > 0.1


def test_gradients_in_bfloat16_are_those_of_one_process_but_for_its_rounding(two):
    found = gradients(two, 'bfloat16')
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert difference(found, gradients(two, 'groups')) > 1e-4
    assert difference(found, shared.GRADIENTS['bfloat16']()) < 0.05


def test_a_classifier_that_accumulates_takes_the_step_of_the_whole_batch(two):
    one, other = (results['update'] for results in two.ranks)
    assert difference(one, other) == 0
    alone = shared.update_of_a_classifier(images_at_once=8, counts=1)
    start = dict(shared.classifier().named_parameters())
    assert difference(one, start) > 1e-2
    assert difference(one, alone) < 1e-5


@pytest.mark.parametrize('variant', ['with_cp', 'reentrant'])
def test_activations_computed_again_give_the_same_gradients(variant, two):
    # with_cp is torch's variant without reentry; mmengine's switch takes the other.
    assert difference(gradients(two, variant), gradients(two, 'stored')) < 1e-6


def test_every_parameter_of_every_head_and_output_gets_a_gradient(two):
    for results in two.ranks:
        assert results['unused'] == [[]] * 2 * len(shared.MODELS_OF_CONFIGS)


def test_a_parameter_that_nothing_uses_would_have_stopped_the_training(two):
    for results in two.ranks:
        assert 'Expected to have finished reduction' in results['forgetful']


# Trainings


def test_every_process_starts_from_the_pretrained_weights(two):
    file = torch.load(two.folder / 'backbone.pth')
    one, other = (result['start'] for result in trained(two, 'averaged'))
    assert difference(one, other) == 0
    loaded = {key: one[f'backbone.{key}'] for key in file}
    assert difference(loaded, file) == 0


@pytest.mark.parametrize('name', ['averaged', 'copied', 'sharded'])
def test_the_processes_end_with_the_same_weights(name, two):
    one, other = trained(two, name)
    assert one['losses'] != other['losses']  # each had its own images
    statistics = ('running_mean', 'running_var')  # of batches, which differ
    ends = [
        {k: value for k, value in each['end'].items() if not k.endswith(statistics)}
        for each in (one, other)
    ]
    assert difference(*ends) == 0
    assert difference(ends[0], {key: one['start'][key] for key in ends[0]}) > 1e-3


def test_the_weights_are_the_same_without_a_rehearsal(two):
    for one, other in zip(
        trained(two, 'averaged'), trained(two, 'not rehearsed'), strict=True
    ):
        assert one['losses'] == other['losses']
        assert difference(one['end'], other['end']) == 0


def test_a_rehearsal_that_fails_in_one_process_ends_all_of_them(two):
    # What they have in common goes on: the trainings come after it.
    (kind, text, done), (own_kind, own_text, _) = (r['failure'] for r in two.ranks)
    assert own_kind == 'RehearsalError' and done == 0
    assert own_text.startswith('rehearsal of the metric: ')
    assert kind == 'UserError' and text == f'process 1: {own_text}'


def test_a_process_that_rehearses_waits_for_no_statistics_of_others(two):
    assert [results['synchronised'] for results in two.ranks] == [(2, 3, 4, 4)] * 2


@pytest.mark.parametrize('name', ['fitted', 'fitted shards'])
def test_every_process_starts_from_the_file_of_load_from_fitted(name, two):
    file = torch.load(two.folder / 'backbone.pth')
    one, other = (result['start'] for result in trained(two, name))
    assert difference(one, other) == 0
    loaded = {key: one[f'backbone.{key}'] for key in file}
    pos_embed = file.pop('pos_embed'), loaded.pop('pos_embed')
    assert difference(loaded, file) == 0
    expected = resize_pos_embed(pos_embed[0], (4, 4), (6, 4), 'last')
    assert (pos_embed[1] - expected).abs().max() == 0


# Averaged weights (EMA), in bfloat16


def goes_on(two, file, folder, config=CONFIG, **options):
    """What one process finds that resumes for an iteration."""
    start = shutil.copy(two.folder / file, folder)
    (folder / 'last_checkpoint').write_text(str(start))
    last = int(Path(start).stem.removeprefix('iter_')) + 1
    options |= {'train_cfg.max_iters': last, 'train_cfg.val_interval': 10}
    shared.start_fresh()
    cfg = load_config(config, shared.training_options(two.data) | options, folder)
    runner = build_trainer(cfg, resume=True)
    watch = shared.Watch()
    runner.register_hook(watch)
    runner.train()
    return watch


def saved(two, name, iteration):
    path = two.folder / name / f'iter_{iteration}.pth'
    return torch.load(path, weights_only=False)


def parameters(state):
    names = ('running_mean', 'running_var', 'num_batches_tracked')
    return {key: value for key, value in state.items() if not key.endswith(names)}


def test_averages_follow_the_weights_and_are_validated_and_saved(two):
    for result in trained(two, 'averaged'):
        first, second = map(parameters, result['after'])
        expected = {key: 0.9 * first[key] + 0.1 * second[key] for key in first}
        assert difference(expected, second) > 1e-4
        assert difference(parameters(result['end_averages'][0]), expected) < 1e-6
        assert difference(parameters(result['validated']), expected) < 1e-6
        assert difference(parameters(result['end']), second) == 0
        content = saved(two, 'averaged', 2)
        # What every tool reads is averaged; what the training goes on with is beside.
        assert difference(parameters(content['state_dict']), expected) < 1e-6
        raw = {k[7:]: v for k, v in content['ema_state_dict'].items() if k != 'steps'}
        assert difference(parameters(raw), second) == 0
        dtypes = {value.dtype for value in second.values()}
        assert dtypes == {torch.float32}


def test_averages_are_resumed(two, tmp_path):
    watch = goes_on(two, 'averaged/iter_2.pth', tmp_path, **shared.AVERAGED)
    before, (start,) = trained(two, 'averaged')[0], watch.averages
    average = parameters(start)
    assert difference(average, parameters(before['end_averages'][0])) == 0
    assert difference(parameters(watch.start), parameters(before['end'])) == 0
    (third,) = map(parameters, watch.after)
    expected = {key: 0.9 * average[key] + 0.1 * third[key] for key in average}
    content = torch.load(tmp_path / 'iter_3.pth', weights_only=False)
    assert difference(parameters(content['state_dict']), expected) < 1e-6


# Weights spread over the processes (FSDP)


def test_each_process_holds_about_half_of_weights_and_moments(two):
    copied, sharded = trained(two, 'copied'), trained(two, 'sharded')
    total = copied[0]['total']
    assert [result['held'] for result in copied] == [total, total]
    for kind in ('held', 'held_moments'):
        parts = [result[kind] for result in sharded]
        assert sum(parts) == total
        assert all(0.45 < part / total < 0.55 for part in parts)


def test_losses_scores_and_weights_are_those_of_copied_weights(two):
    # Both resume what copied weights trained, accumulate gradients in bfloat16 and
    # validate on the way; the sharded one computes activations again.
    for copied, sharded in zip(
        trained(two, 'copied'), trained(two, 'sharded'), strict=True
    ):
        assert len(sharded['losses']) == 4
        assert sharded['losses'] == pytest.approx(copied['losses'], rel=1e-4)
        assert sharded['miou'] == pytest.approx(copied['miou'], abs=0.1)
        assert difference(sharded['start'], copied['start']) == 0
        assert difference(sharded['end'], copied['end']) < 1e-2


def test_a_checkpoint_of_sharded_weights_is_whole_and_plain(two):
    copied, sharded = (saved(two, name, 6) for name in ('copied', 'sharded'))
    assert sharded.keys() == copied.keys()
    kinds = {type(value) for value in sharded['state_dict'].values()}
    assert kinds == {torch.Tensor}
    assert difference(sharded['state_dict'], copied['state_dict']) < 1e-2
    states, expected = (each['optimizer']['state'] for each in (sharded, copied))
    assert states.keys() == expected.keys()
    for number, state in expected.items():
        for key, value in state.items():
            assert type(states[number][key]) is torch.Tensor
            assert states[number][key].shape == value.shape


def test_a_checkpoint_of_sharded_weights_is_converted(two, tmp_path):
    file = two.folder / 'sharded' / 'iter_6.pth'
    report = convert_checkpoint(file, tmp_path / 'a.pth')
    assert len(report.keys) == len(saved(two, 'sharded', 6)['state_dict'])


def test_one_process_goes_on_from_sharded_weights(two, tmp_path):
    file = 'sharded/iter_6.pth'
    watch = goes_on(two, file, tmp_path, shared.SHARDED)
    assert len(watch.losses) == 1
    assert difference(watch.start, saved(two, 'sharded', 6)['state_dict']) == 0


def test_averages_of_sharded_weights_are_refused(monkeypatch):
    runner = object.__new__(ShardedRunner)
    runner._distributed, runner._hooks = True, [EMAHook()]
    monkeypatch.setattr(Runner, 'register_hooks', lambda *args: None)
    with pytest.raises(ValueError, match='EMAHook copies the model'):
        runner.register_hooks()


def test_a_runner_that_there_is_not_is_a_mistake(two, tmp_path):
    options = shared.training_options(two.data) | {'runner_type': 'FlexibleRunner'}
    with pytest.raises(ValueError, match="runner_type='FlexibleRunner': expected"):
        build_trainer(load_config(CONFIG, options, tmp_path))


# Evaluations


def scores_of_segmentor(folder):
    scores = json.loads((folder / 'scores.json').read_text())
    return dict(metrics=metrics_in(folder), scores=scores)


def metrics_in(folder):
    (path,) = folder.glob('*/*.json')
    metrics = json.loads(path.read_text())
    return {key: metrics[key] for key in metrics if 'time' not in key}


def test_a_segmentor_is_scored_as_by_one_process(two, tmp_path):
    # It was trained sharded; nothing is in a test.
    biased = two.folder / 'biased.pth'
    shared.evaluate_segmentor(tmp_path, two.data, biased)
    alone = scores_of_segmentor(tmp_path)
    together = scores_of_segmentor(two.folder / 'together' / 'miou')
    assert 0 < alone['scores']['mIoU'] < 100
    assert alone['scores']['images'] == together['scores']['images'] == 3
    assert together == alone


def test_a_classifier_is_scored_as_by_one_process(two, tmp_path):
    file = two.folder / 'classifier.pth'
    shared.evaluate_classifier(tmp_path, file)
    alone = metrics_in(tmp_path)
    together = metrics_in(two.folder / 'together' / 'top1')
    assert 0 < alone['accuracy/top5'] < 100
    assert together == alone
