import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
from mmengine.logging import MessageHub
from tiny_run import ROOT, run_tool, start_fresh

from illama_seg.errors import UserError
from illama_seg.studies import common, run_soft_mask_ablation
from illama_seg.studies.ablations import soft_mask
from illama_seg.studies.ablations.soft_mask import ablation_runs, is_finished

CONFIGS = ROOT / 'configs'
DIGITS = CONFIGS / 'pretrain' / 'illama_micro_digits.py'
OPTIONS = {
    'model.backbone.arch.embed_dims': 16,
    'model.backbone.arch.num_layers': 1,
    'model.head.in_channels': 16,
    'train_dataloader.dataset.indices': 32,
    'val_dataloader.dataset.indices': 20,
    'train_dataloader.batch_size': 16,
    'effective_batch': 16,
    'param_scheduler.0.warmup': 0,
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 1,
    'custom_hooks.0.cutoff': 1,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.logger.interval': 1,
    'log_level': 'ERROR',
}


@pytest.fixture
def here(monkeypatch):
    """Train in this process; returns the work dirs, in order."""
    trained = []

    def train(cfg, amp):
        start_fresh()
        trained.append(cfg.work_dir)
        soft_mask.build_trainer(copy.deepcopy(cfg), amp, resume=True).train()

    monkeypatch.setattr(soft_mask, '_train_apart', train)
    return trained


def rates(run):
    """Soft mask rate of each iteration; None where there is none."""
    (log,) = run.glob('*/vis_data/scalars.json')
    rows = map(json.loads, log.read_text().splitlines())
    return [row.get('soft_mask_rate') for row in rows if 'loss' in row]


@pytest.mark.parametrize(('number', 'cutoff'), [(10, 25), (100, 50)])
def test_groups_are_those_of_the_papers_table(number, cutoff, tmp_path):
    config = CONFIGS / 'transfer' / f'illama_tiny_cifar{number}.py'
    options = {'custom_hooks.0.cutoff': cutoff, 'optim_wrapper.optimizer.lr': 1e-3}
    runs = ablation_runs(config, tmp_path, num_seeds=2, cfg_options=options)
    names = [run.work_dir.removeprefix(f'{tmp_path}/') for run in runs]
    assert names == ['vit/0', 'vit/1', 'none/0', 'none/1', 'linear/0', 'linear/1']
    assert [run.randomness.seed for run in runs] == [0, 1] * 3
    vit, none, linear = runs[::2]
    assert vit.model.backbone.attn_mask == 'bidirectional'
    assert {run.optim_wrapper.optimizer.lr for run in runs} == {1e-3}
    assert vit.custom_hooks == none.custom_hooks == []
    assert [(h.mode, h.cutoff) for h in linear.custom_hooks] == [('linear', cutoff)]
    assert none.model == linear.model


def test_masks_can_be_chosen_and_a_config_without_plain_vit_has_no_vit(tmp_path):
    runs = ablation_runs(DIGITS, tmp_path, masks=['constant', 'none'])
    groups = [run.work_dir.removeprefix(f'{tmp_path}/') for run in runs]
    assert groups == ['constant/0', 'none/0']
    assert runs[0].custom_hooks[0].mode == 'constant'


@pytest.mark.slow
def test_it_trains_what_is_not_finished_and_compares(here, tmp_path, capsys):
    table = run_soft_mask_ablation(DIGITS, tmp_path, cfg_options=OPTIONS)
    assert here == [f'{tmp_path}/none/0', f'{tmp_path}/linear/0']
    assert rates(tmp_path / 'none' / '0') == [None] * 4
    assert rates(tmp_path / 'linear' / '0') == [1, 0, 0, 0]
    numbers = json.loads((tmp_path / 'compare.json').read_text())
    assert list(numbers['summary']) == ['none', 'linear']
    assert (tmp_path / 'compare.png').stat().st_size > 10_000
    assert '| linear |' in table

    # Another seed is added, the finished ones are kept.
    here.clear()
    shutil.rmtree(tmp_path / 'linear')
    run_soft_mask_ablation(DIGITS, tmp_path, num_seeds=2, cfg_options=OPTIONS)
    assert here == [f'{tmp_path}/{name}' for name in ('none/1', 'linear/0', 'linear/1')]

    with pytest.raises(
        ValueError, match=r'none/0 has .*other settings \(optim_wrapper'
    ):
        options = {**OPTIONS, 'optim_wrapper.optimizer.lr': 1.0}
        run_soft_mask_ablation(DIGITS, tmp_path, cfg_options=options)


def test_an_interrupted_run_goes_on_and_counts_as_not_finished(here, tmp_path):
    run_soft_mask_ablation(DIGITS, tmp_path, masks=['none'], cfg_options=OPTIONS)
    run = tmp_path / 'none' / '0'
    (cfg,) = ablation_runs(DIGITS, tmp_path, masks=['none'], cfg_options=OPTIONS)
    assert is_finished(cfg)
    (run / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    assert not is_finished(cfg)
    (log,) = run.glob('*/vis_data/scalars.json')
    log.rename(run / 'before.json')
    run_soft_mask_ablation(DIGITS, tmp_path, masks=['none'], cfg_options=OPTIONS)
    assert len(here) == 2 and is_finished(cfg)
    assert len(rates(run)) == 2  # the second epoch alone


@pytest.mark.slow
def test_the_tool_trains_in_a_process_of_its_own(tmp_path, capsys):
    options = [f'{key}={value}' for key, value in OPTIONS.items()]
    command = ['--out', tmp_path, '--masks', 'none', '--cfg-options', *options]
    run_tool('analysis/soft_mask_ablation', DIGITS, *command)
    assert (tmp_path / 'none' / '0' / 'epoch_2.pth').is_file()
    assert not MessageHub._instance_dict  # a training here would have left its own
    assert f'{tmp_path}/compare.json' in capsys.readouterr().out


@pytest.mark.parametrize('error', [UserError('no data'), BrokenProcessPool('killed')])
def test_a_run_that_fails_is_named_and_finished_ones_are_kept(
    error, tmp_path, monkeypatch
):
    def fail(cfg, amp):
        raise error

    monkeypatch.setattr(soft_mask, '_train', fail)
    pool = lambda workers, mp_context: ThreadPoolExecutor(workers)  # noqa: E731
    monkeypatch.setattr(common, 'ProcessPoolExecutor', pool)
    with pytest.raises(SystemExit) as ended:
        run_tool('analysis/soft_mask_ablation', DIGITS, '--out', tmp_path)
    message = str(ended.value.code)
    assert message.startswith(f'error: {tmp_path}/none/0: ') and str(error) in message
    assert message.endswith('the same command continues from there')


@pytest.mark.parametrize(
    ('config', 'arguments', 'text'),
    [
        ('upernet_illama_demo.py', {}, 'only custom hook is SoftMaskHook'),
        ('pretrain/vit_micro_cifar10.py', {}, 'only custom hook is SoftMaskHook'),
        (
            DIGITS,
            dict(masks=['cosine']),
            r"masks=\['cosine'\]: expected some of",
        ),
        (DIGITS, dict(num_seeds=0), 'num_seeds=0'),
    ],
)
def test_what_cannot_be_ablated_is_named(config, arguments, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        ablation_runs(CONFIGS / config, tmp_path, **arguments)
