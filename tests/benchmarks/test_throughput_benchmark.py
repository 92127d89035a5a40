"""benchmarks/throughput.py: what it runs and writes, in micro size; no timings."""

import importlib.util
import json
import sys

import pytest
import torch
from tiny_run import ROOT

NAMES = ['illama_tiny', 'deit_tiny']


@pytest.fixture(scope='module')
def benchmark():
    """The script as a module."""
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    path = ROOT / 'benchmarks' / 'throughput.py'
    spec = importlib.util.spec_from_file_location('throughput_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / 'benchmarks'))
    return module


def call(benchmark, out, *arguments, compiler=lambda model, **options: model):
    """Run main(); compiling and the processes that measure memory are replaced."""
    command = ['throughput.py', *map(str, arguments), '--out', str(out)]
    threads = str(torch.get_num_threads())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [*command, '--device', 'cpu', '--threads', threads])
        patch.setattr(benchmark, 'peak_in_new_process', lambda *args: 7.0)
        patch.setattr(torch, 'compile', compiler)
        benchmark.main()
    return json.loads((out / 'throughput.json').read_text())


@pytest.fixture(scope='module')
def result(benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    options = ['--sizes', 32, 48, '--batch-sizes', 1, 2, '--repeats', 2]
    options += ['--dtypes', 'float32', 'bfloat16']
    record = call(benchmark, out, '--models', *NAMES, *options)
    assert (out / 'throughput.png').stat().st_size > 10_000
    return record


def test_every_model_is_timed_at_every_size_batch_dtype_and_compilation(result):
    keys = ('size', 'batch', 'dtype', 'compiled', 'name')
    found = [tuple(row[key] for key in keys) for row in result['rows']]
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 2 * 2
    for row in result['rows']:
        assert 0 < row['min'] <= row['seconds'] <= row['max']
        assert row['images_per_second'] == pytest.approx(row['batch'] / row['seconds'])
        assert row['MiB'] == (None if row['compiled'] else 7)
        assert row['fault'] is None and row['paper'] is None


def test_an_illama_is_compared_with_the_deit_of_its_size_in_the_same_case(result):
    case = ('size', 'batch', 'dtype', 'compiled')
    rows = {(r['name'], *(r[key] for key in case)): r for r in result['rows']}
    for (name, *rest), row in rows.items():
        assert ('of_deit' in row) == (name == 'illama_tiny')
        if name == 'illama_tiny':
            deit = rows[('deit_tiny', *rest)]['images_per_second']
            assert row['of_deit'] == pytest.approx(row['images_per_second'] / deit)


def test_the_models_are_those_of_the_table(benchmark):
    illama = benchmark.build('illama_tiny', 224, 'cpu')
    assert sum(p.numel() for p in illama.parameters()) == 5_701_096
    assert not illama.training
    for name in ('illama_tiny', 'deit_tiny'):
        wide = benchmark.build(name, 384, 'cpu')
        assert wide.pos_embed.shape[1] == 577, name


def test_timm_is_told_the_size_where_a_model_has_positions(benchmark, monkeypatch):
    made = []

    def create(name, **options):
        made.append((name, options))
        return torch.nn.Identity()

    monkeypatch.setattr(benchmark.timm, 'create_model', create)
    for name in ('convnext_base', 'illama_large'):
        benchmark.build(name, 384, 'cpu')
    assert made == [
        ('convnext_base', {}),
        ('illama_large_patch16_224', dict(img_size=384)),
    ]


def test_bfloat16_is_computed_in_it(benchmark):
    seen = []
    model = torch.nn.Linear(2, 2)
    model.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    for dtype in ('float32', 'bfloat16'):
        benchmark.run(model, torch.ones(1, 2), dtype)
    assert seen == [torch.float32, torch.bfloat16]


def test_what_does_not_compile_or_fit_is_said_and_the_others_are_timed(
    benchmark, tmp_path, monkeypatch, capsys
):
    def broken(model, **options):
        def forward(image):
            if len(image) == 2:
                raise torch.OutOfMemoryError('2 GiB')
            raise RuntimeError('no compiler\nat all')

        return forward

    options = ['--sizes', 32, '--batch-sizes', 1, 2, '--repeats', 1]
    options += ['--models', 'deit_tiny', '--dtypes', 'float32']
    record = call(benchmark, tmp_path, *options, compiler=broken)
    faults = {(r['batch'], r['compiled']): r['fault'] for r in record['rows']}
    assert faults == {
        (1, False): None,
        (1, True): 'no compiler',
        (2, False): None,
        (2, True): 'out of memory',
    }
    assert 'deit_tiny     no compiler\n' in capsys.readouterr().out


def test_memory_is_that_of_the_whole_batch(benchmark, monkeypatch):
    measured = []
    monkeypatch.setattr(benchmark, 'peak', lambda call, device: measured.append(call))
    benchmark.measure_case('deit_tiny', '32', '3', 'bfloat16')
    ((_, image, dtype),) = [call.args for call in measured]
    assert image.shape == (3, 3, 32, 32) and dtype == 'bfloat16'


@pytest.mark.parametrize(
    'arguments', [['--batch-sizes', 0], ['--repeats', 0], ['--models', 'vit']]
)
def test_an_argument_out_of_range_is_refused(arguments, benchmark, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        call(benchmark, tmp_path, *arguments)
    assert error.value.code == 2 and arguments[0] in capsys.readouterr().err


def test_no_threads_are_refused(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['throughput.py', '--threads', '0'])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert '--threads' in capsys.readouterr().err.splitlines()[-1]
