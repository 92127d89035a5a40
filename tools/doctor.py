"""Report on the environment, and what is wrong with it: python tools/doctor.py

Prints versions, measurements and limits, then each known problem with its cure; --json
FILE writes the same. The exit status is 1 if something is wrong. `python -m
torch.utils.collect_env` prints more about the machine. This tool must run where
packages are broken or missing: it imports none, child processes try them.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# import name: (distributions that install it, lowest version), as in
# illama_seg/version.py, and what else a training needs.
PACKAGES = {
    'numpy': (('numpy',), '1.23'),
    'cv2': (('opencv-python', 'opencv-python-headless'), '4.5'),
    'torch': (('torch',), '2.6'),
    'torchvision': (('torchvision',), '0.21'),
    'timm': (('timm',), '1.0'),
    'mmengine': (('onedl-mmengine', 'mmengine'), '0.10'),
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'), '2.0'),
    'mmseg': (('onedl-mmsegmentation', 'mmsegmentation'), '1.2'),
}
NEW_ENVIRONMENT = 'in a new environment: pip install -e .'
# Pattern in the message of an import that failed: cure.
IMPORT_CURES = {
    r'libGL|libgthread|libxcb|libSM|libXext': 'pip uninstall -y opencv-python && pip '
    'install opencv-python-headless',
    r'No module named': 'pip install -r requirements.txt',
    r'operator torchvision::nms': 'pip install -U torch torchvision, both at once and '
    'from one index',
    r'undefined symbol|_ARRAY_API': 'pip install -U the package named: it was compiled '
    f'for another torch or NumPy; or start {NEW_ENVIRONMENT}',
    r'lib(cudart|cublas|cudnn|nvrtc|cusparse|nccl)\S*\.so': 'pip install '
    '--force-reinstall torch; LD_LIBRARY_PATH may point to another CUDA',
}
# Run in a child process, which prints each name and result at once.
TRY_IMPORTS = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps({'trying': name}), flush=True)
    try:
        importlib.import_module(name)
        error = None
    except BaseException as e:
        error = f'{type(e).__name__}: {e}'
    print(json.dumps({'name': name, 'error': error}), flush=True)
"""
ASK_TORCH = """
import json, torch
print(json.dumps(dict(
    cuda=torch.cuda.is_available(),
    cuda_version=torch.version.cuda,
    threads=torch.get_num_threads(),
    gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
)))
"""
# Measurements of the package, made now or stored.
ASK_PACKAGE = """
import illama_seg
import json, torch
from illama_seg.machine import choices, precision, threads
from illama_seg.quantization import wrong_products
device = 'cuda' if torch.cuda.is_available() else 'cpu'
print(json.dumps(dict(
    waiting=threads.describe_wait_policy(),
    precision=precision.choose_precision(device).reason,
    integers=wrong_products(),
    device=choices.device_name(device),
    choices=str(choices.cache_file()),
)))
"""
Found = Iterator[tuple[str, str, str]]  # level, problem, cure


def main() -> None:
    parser = argparse.ArgumentParser(description='Report on the environment')
    parser.add_argument('--json', type=Path, help='file to write the report to as well')
    args = parser.parse_args()
    facts = gather()
    found = list(problems(facts))
    report(facts, found)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**facts, 'problems': found}, indent=1))
    sys.exit(any(problem['level'] == 'wrong' for problem in found))


# Facts


def gather() -> dict:
    """Collect what the report and the checks need, as plain data."""
    names = [name for group, _ in PACKAGES.values() for name in group]
    errors = try_imports([*PACKAGES, 'mmseg.apis', 'illama_seg'])
    driver = Path('/proc/driver/nvidia/version').is_file()
    shared = Path('/dev/shm')
    affinity = getattr(os, 'sched_getaffinity', None)
    return dict(
        python=platform.python_version(),
        versions={name: v for name in names if (v := version(name))},
        import_errors=errors,
        torch=ask(ASK_TORCH) if errors.get('torch') is None else {},
        measured=ask(ASK_PACKAGE) if errors.get('illama_seg') is None else {},
        nvidia_driver=driver or shutil.which('nvidia-smi') is not None,
        cores=len(affinity(0)) if affinity else os.cpu_count(),
        shared_memory_mib=shared.is_dir() and shutil.disk_usage(shared).free // 2**20,
        open_files=open_files(),
        omp_num_threads=os.environ.get('OMP_NUM_THREADS'),
    )


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def try_imports(names: list[str], timeout: int = 600) -> dict[str, str | None]:
    """Import each name in a child process; return its error, or None."""
    errors: dict[str, str | None] = {}
    while rest := [name for name in names if name not in errors]:
        try:
            done = run_python(TRY_IMPORTS, *rest, timeout=timeout)
            output, end = done.stdout, f'it ended the process ({done.returncode})'
        except subprocess.TimeoutExpired as error:
            output = error.stdout or b''
            output = output.decode() if isinstance(output, bytes) else output
            end = f'no end in {timeout} s'
        lines = re.findall(r'^\{"(?:name|trying)".*', output, re.M)
        said = [json.loads(line) for line in lines]
        errors |= {line['name']: line['error'] for line in said if 'name' in line}
        unfinished = said[-1].get('trying') if said else rest[0]
        if unfinished:
            errors[unfinished] = end
    return errors


def ask(code: str) -> dict:
    """Run code in a child process; return the JSON of its last line, {} if it fails.

    Says why it failed, where the child does.
    """
    stderr = ''
    try:
        done = run_python(code, timeout=600)
        stderr = done.stderr or ''
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        if 'illama_seg.errors.' in stderr:
            print(f'not measured: {stderr.strip().splitlines()[-1]}')
        return {}


def run_python(code: str, *arguments: str, timeout: int):
    # illama_seg is in the folder above this file's, installed or not.
    paths = [os.environ.get('PYTHONPATH', ''), str(Path(__file__).resolve().parents[1])]
    return subprocess.run(
        [sys.executable, '-c', code, *arguments],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def open_files() -> int | None:
    """Return the number of files a process may open, or None for no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


# Problems


def problems(facts: dict) -> Iterator[dict]:
    """Yield each problem: level ('wrong' or 'note'), what, cure."""
    for check in (missing, twice, imports, gpu, limits):
        for level, what, cure in check(facts):
            yield dict(level=level, what=what, cure=cure)


def missing(facts: dict) -> Found:
    """Python and packages that are missing, too old, or not made for each other."""
    if numbers(facts['python']) < (3, 10):
        yield 'wrong', f'Python {facts["python"]}', 'use Python 3.10 or newer'
    for name, (distributions, lowest) in PACKAGES.items():
        found = installed(facts, name)
        first = distributions[0]
        if not found and facts['import_errors'].get(name) is not None:
            yield 'wrong', f'{name} is missing', f'pip install "{first}>={lowest}"'
        elif found and max(map(numbers, found.values())) < numbers(lowest):
            (distribution, old), *_ = found.items()
            what = f'{distribution} {old} is too old: {lowest} or newer is needed'
            yield 'wrong', what, f'pip install -U "{first}>={lowest}"'
    torch, vision = map(facts['versions'].get, ('torch', 'torchvision'))
    if torch and vision and numbers(torch)[0] == 2:
        minor = numbers(torch)[1] + 15  # 0.21 belongs to 2.6
        tags = {v.partition('+')[2] for v in (torch, vision)} - {''}
        if numbers(vision)[:2] != (0, minor) or len(tags) > 1:
            yield (
                'wrong',
                f'torchvision {vision} is not for torch {torch}: "operator '
                'torchvision::nms does not exist" (pytorch/vision#8985)',
                f'pip install -U "torchvision==0.{minor}.*" from the index that torch '
                'came from',
            )


def twice(facts: dict) -> Found:
    """Distributions that write into one folder, where their files get mixed."""
    for name, (distributions, _) in PACKAGES.items():
        found = installed(facts, name)
        if len(found) < 2:
            continue
        both = ' and '.join(f'{key} {value}' for key, value in found.items())
        # OpenCV's distributions of one version differ in the windows only.
        same = name == 'cv2' and len(set(found.values())) == 1
        keep = 'opencv-python-headless' if name == 'cv2' else distributions[0]
        yield (
            'note' if same and not facts['import_errors'].get(name) else 'wrong',
            f'{both} are installed at once, and both write the folder {name}',
            f'pip uninstall -y {" ".join(found)} && pip install {keep}',
        )


def imports(facts: dict) -> Found:
    """Installed packages that do not load; each cause once."""
    told, incomplete = set(), any(missing(facts))
    for name, error in facts['import_errors'].items():
        package = name.partition('.')[0]
        absent = package in PACKAGES and not installed(facts, package)
        depends = incomplete and name in ('mmseg.apis', 'illama_seg')
        if error is None or absent or depends or last(error) in told:
            continue
        told.add(last(error))
        cure = next(
            (cure for text, cure in IMPORT_CURES.items() if re.search(text, error)),
            f'{sys.executable} -c "import {name}" says more; else {NEW_ENVIRONMENT}',
        )
        yield 'wrong', f'import {name}: {last(error)}', cure


def gpu(facts: dict) -> Found:
    torch = facts['torch']
    where = 'https://pytorch.org/get-started/locally'
    if torch and facts['nvidia_driver'] and not torch['cuda']:
        built, cure = 'the CPU only', f'reinstall torch and torchvision from {where}'
        if torch['cuda_version']:
            built = f'CUDA {torch["cuda_version"]}'
            cure = (
                'update the driver, or install torch for the CUDA that nvidia-smi '
                'shows; in a container: docker run --gpus all'
            )
        yield 'wrong', f'torch sees no GPU: this torch is built for {built}', cure


def limits(facts: dict) -> Found:
    shared, files = facts['shared_memory_mib'], facts['open_files']
    if shared is not False and shared < 2048:
        yield (
            'wrong' if shared < 512 else 'note',
            f'{shared} MiB of shared memory in /dev/shm: data loaders end with "Bus '
            'error" when it is full (pytorch/pytorch#5040)',
            'docker run --shm-size=8g, or --ipc=host; else --cfg-options '
            'train_dataloader.num_workers=0 train_dataloader.persistent_workers=False',
        )
    if files is not None and files < 4096:
        yield (
            'wrong' if files < 512 else 'note',
            f'{files} open files allowed: data loaders may end with "received 0 items '
            'of ancdata" or "Too many open files" (pytorch/pytorch#973)',
            'ulimit -n 65536 before training, or fewer num_workers',
        )
    omp, cores = facts['omp_num_threads'] or '', facts['cores'] or 1
    on_cpu = facts['torch'] and not facts['torch']['cuda']
    if omp.isdecimal() and (int(omp) > cores or (on_cpu and int(omp) < cores)):
        yield (
            'note',
            f'OMP_NUM_THREADS={omp} on {cores} cores',
            'unset OMP_NUM_THREADS, unless other processes need the other cores',
        )


def installed(facts: dict, name: str) -> dict[str, str]:
    """Map the installed distributions of an import name to their versions."""
    have = facts['versions']
    return {dist: have[dist] for dist in PACKAGES[name][0] if dist in have}


def numbers(text: str) -> tuple[int, ...]:
    """Parse a version: '2.6.1rc1+cu126' -> (2, 6, 1)."""
    return tuple(map(int, re.match(r'\d+(\.\d+)*', text)[0].split('.')))


def last(error: str) -> str:
    """Return the last line with text, shortened."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return (lines[-1] if lines else error)[:200]


# Report


def report(facts: dict, found: list[dict]) -> None:
    rows = {'python': f'{facts["python"]} ({sys.executable})'}
    for name in (*PACKAGES, 'mmseg.apis', 'illama_seg'):
        loads = facts['import_errors'].get(name) is None
        rows[name] = 'loads' if loads else 'does not load'
        if name in PACKAGES:
            pairs = installed(facts, name).items()
            versions = ', '.join(f'{v} ({dist})' for dist, v in pairs)
            absent = 'unknown version' if loads else 'not installed'
            rows[name] = f'{versions or absent}{"" if loads else "   BROKEN"}'
    torch, shared = facts['torch'], facts['shared_memory_mib']
    rows['GPUs'] = ', '.join(torch.get('gpus', ())) or 'none'
    threads = f'{torch.get("threads", "unknown")} in torch, {facts["cores"]} cores'
    rows['threads'] = f'{threads}, OMP_NUM_THREADS={facts["omp_num_threads"]}'
    if measured := facts['measured']:
        wrong = measured['integers']
        rows['waiting'] = measured['waiting']
        rows['precision'] = f'{measured["precision"]} ({measured["device"]})'
        rows['8 bits'] = f'in float64: {wrong}' if wrong else 'in integers'
        rows['choices in'] = f'{measured["choices"]} (may be removed)'
    rows['/dev/shm'] = 'none' if shared is False else f'{shared:,} MiB free'
    rows['open files'] = facts['open_files'] or 'no limit'
    for name, text in rows.items():
        print(f'  {name:<14}{text}')
    print()
    for problem in found:
        print(f'  {problem["level"].upper():<7}{problem["what"]}')
        print(f'         cure: {problem["cure"]}')
    count = sum(problem['level'] == 'wrong' for problem in found)
    print(f'{count} wrong' if count else 'nothing wrong')


if __name__ == '__main__':
    main()
