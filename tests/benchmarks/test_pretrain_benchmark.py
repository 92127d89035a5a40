"""benchmarks/pretrain.py: its arguments, what it runs, what it writes; no timings."""

import importlib.util
import json
import multiprocessing
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODELS
from tiny_run import ROOT, start_fresh

from illama_seg.apis import load_config

pytestmark = pytest.mark.slow
MEMORY = {'bare': 100.0, 'step': 120.0, 'formula': 600.0}


@pytest.fixture(scope='module')
def benchmark():
    """The script as a module."""
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    path = ROOT / 'benchmarks' / 'pretrain.py'
    spec = importlib.util.spec_from_file_location('pretrain_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / 'benchmarks'))
    return module


def call(benchmark, *arguments, memory=MEMORY):
    """Run main(), its processes that measure memory replaced."""
    start_fresh()
    threads = torch.get_num_threads()
    command = ['pretrain.py', *map(str, arguments), '--threads', str(threads)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', command)
        patch.setattr(
            benchmark,
            'peak_in_new_process',
            lambda script, case, threads: memory[case[0]],
        )
        benchmark.main()


@pytest.fixture(scope='module')
def result(benchmark, tmp_path_factory):
    """What a quick run writes."""
    out = tmp_path_factory.mktemp('out')
    call(benchmark, '--quick', '--out', out)
    assert (out / 'pretrain.png').stat().st_size > 10_000
    return json.loads((out / 'pretrain.json').read_text())


@pytest.fixture
def cfg(benchmark, tmp_path):
    return benchmark.recipe(48, 4, 3, str(tmp_path))


# What is run


def test_the_step_is_the_recipe_but_for_data_size_batch_and_length(benchmark, cfg):
    recipe = load_config(benchmark.RECIPE)
    for loader in ('train_dataloader', 'val_dataloader'):
        theirs = recipe[loader].dataset.pipeline
        theirs[1].input_size = 48
        ours = cfg[loader].dataset
        assert ours.get('dataset', ours).pipeline == theirs
        changed = {'dataset', 'batch_size', 'num_workers'}
        assert {k: v for k, v in cfg[loader].items() if k not in changed} == {
            k: v for k, v in recipe[loader].items() if k not in changed
        }
    assert cfg.train_dataloader.num_workers == 2
    assert 'rand-m9' in str(cfg.train_dataloader)
    for key in ('default_hooks', 'optim_wrapper', 'val_evaluator'):
        assert cfg[key] == recipe[key], key
    assert [hook.type for hook in cfg.custom_hooks] == ['SoftMaskHook']
    assert cfg.model.data_preprocessor == recipe.model.data_preprocessor


def test_an_epoch_is_as_long_as_the_blocks_and_each_iteration_updates(benchmark, cfg):
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    start_fresh()
    runner = benchmark.build_trainer(cfg)
    loop = runner.build_train_loop(cfg.train_cfg)
    assert len(loop.dataloader) == 3 == loop.max_iters
    assert runner.optim_wrapper['accumulative_counts'] == 1


def test_the_bare_loop_trains_a_copy(benchmark):
    backbone = dict(embed_dims=8, num_layers=1, num_heads=2)
    backbone = dict(type='ILLaMA', arch=backbone, img_size=16, out_indices=-1)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(backbone, out_type='cls_token'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=8),
        )
    )
    model.init_weights()
    bare = benchmark.BareLoop(model, 16, 4, 'bfloat16')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bare.run(2)
    for key, value in bare.model.state_dict().items():
        assert not torch.equal(value, before[key]), key
        assert torch.equal(model.state_dict()[key], before[key]), key
    bare.infer()


@pytest.mark.parametrize(
    ('name', 'impl'), [('step', 'auto'), ('formula', 'reference'), ('bare', None)]
)
def test_memory_is_measured_of_the_run_that_is_named(benchmark, name, impl):
    start_fresh()
    measured = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, 'peak', lambda call, device: measured.append(call))
        benchmark.measure_case(name, '32', '2', 'float32')
    (call,) = measured
    if impl is None:
        assert isinstance(call.func.__self__, benchmark.BareLoop)
        return
    blocks = call.__self__.model.backbone.blocks
    assert call.__name__ == 'train' and {b.attn.impl for b in blocks} == {impl}


def test_the_processor_time_of_the_workers_is_waited_for_and_counted(benchmark):
    def work():
        start = time.process_time()
        while time.process_time() - start < 0.3:
            pass
        time.sleep(60)

    processor_seconds = sys.modules['interleaving'].processor_seconds
    process = multiprocessing.get_context('fork').Process(target=work, daemon=True)
    process.start()
    while processor_seconds()['workers'] == 0:
        time.sleep(0.01)
    sys.modules['interleaving'].wait_for_idle_workers()
    spent = processor_seconds()['workers']
    process.kill()
    process.join()
    assert 0.25 < spent < 1


# What is written


def test_step_and_bare_loop_are_compared_in_pairs(result):
    step, bare = result['rows'][:2]
    assert (step['name'], bare['name']) == ('step', 'bare')
    low, high = step['over_bare_range']
    # Of two pairs: the median is the mean.
    assert step['over_bare'] == pytest.approx((low + high) / 2)
    assert step['min'] / bare['max'] <= low <= high <= step['max'] / bare['min']
    for row in (step, bare):
        assert row['images_per_second'] * row['seconds'] == pytest.approx(row['batch'])
        assert row['processor_seconds_per_image'] > 0
    assert result['workers'] == 2 and result['cores'] >= 1


def test_the_parts_of_an_iteration_add_up_to_it(result):
    step, bare = result['rows'][:2]
    for row in (step, bare):
        assert sum(row['parts'].values()) == pytest.approx(row['seconds'])
    assert all(step['parts'][part] > 0 for part in step['parts'])
    assert {part for part, value in bare['parts'].items() if value} == {
        'rest',
        'optimiser',
    }


def test_the_pauses_of_log_checkpoint_and_evaluation_are_told(result):
    pauses = result['rows'][0]['pauses']
    assert pauses.pop('evaluation_images') == 360
    assert pauses.pop('checkpoint_MiB') > 20  # weights and two moments
    assert set(pauses) == {'log_line', 'checkpoint', 'evaluation', 'bare_inference'}
    assert all(seconds > 0 for seconds in pauses.values())


def test_memory_is_compared_with_the_bare_loop_and_the_formula(result):
    rows = {row['name']: row for row in result['rows'][2:]}
    assert {name: row['MiB'] for name, row in rows.items()} == MEMORY
    assert rows['step']['over_bare'] == 1.2 and rows['step']['of_formula'] == 0.2


def test_what_does_not_fit_in_memory_has_no_ratio(benchmark, tmp_path, capsys):
    args = SimpleNamespace(threads=1)
    with pytest.MonkeyPatch.context() as patch:
        memory = MEMORY | dict(formula=None)
        patch.setattr(
            benchmark,
            'peak_in_new_process',
            lambda script, case, threads: memory[case[0]],
        )
        rows = benchmark.measure_memory(args, 512, 'float32')
    assert [row['over_bare'] for row in rows] == [1.0, 1.2, None]
    assert not any(row['of_formula'] for row in rows)
    benchmark.draw(rows, tmp_path / 'memory.png', 'memory')
    assert 'formula  not measured\n' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('cores', 'threads', 'expected'), [(2, 2, 1.02), (2, 1, 1.0), (8, 2, 1.0)]
)
def test_the_floor_is_the_workers_share_of_the_cores(
    cores, threads, expected, benchmark, monkeypatch
):
    monkeypatch.setattr(benchmark.os, 'sched_getaffinity', lambda _: range(cores))
    monkeypatch.setattr(benchmark, 'DEVICE', 'cpu')
    assert benchmark.floor(0.05, 0.002, threads) == pytest.approx(expected)


# Arguments


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['--batch', 3], 'an even number'),
        (['--repeats', 0], 'at least 1'),
        (['--dtypes', 'float16'], 'invalid choice'),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, text, benchmark, capsys):
    with pytest.raises(SystemExit) as error:
        call(benchmark, *arguments)
    assert error.value.code == 2 and text in capsys.readouterr().err


def test_make_bench_runs_it():
    bench = (ROOT / 'Makefile').read_text().partition('\nbench:')[2]
    assert 'benchmarks/pretrain.py' in bench
