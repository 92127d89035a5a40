"""Report on the environment, and what is wrong with it: python tools/doctor.py

Prints versions, measurements and limits, then each known problem with its cure; --json
FILE writes the same. The exit status is 1 if something is wrong. `python -m
torch.utils.collect_env` prints more about the machine. This tool must run where
packages are broken or missing: it imports none, child processes try them. Over 300
lines: it can import nothing of this package either.
"""

from __future__ import annotations  # to be told of an older Python

import argparse
import contextlib
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
    'libGL|libgthread|libxcb|libSM|libXext': 'pip uninstall -y opencv-python && pip '
    'install opencv-python-headless',
    'No module named': 'pip install -r requirements.txt',
    'operator torchvision::nms': 'pip install -U torch torchvision, from one index',
    'undefined symbol|_ARRAY_API': 'pip install -U the package named: it was compiled '
    f'for another torch or NumPy; or start {NEW_ENVIRONMENT}',
    r'lib(cudart|cublas|cudnn|nvrtc|cusparse|nccl)\S*\.so': 'pip install '
    '--force-reinstall torch; LD_LIBRARY_PATH may point to another CUDA',
}
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
device = 'cuda' if torch.cuda.is_available() else 'cpu'
print(json.dumps(dict(
    waiting=threads.describe_wait_policy(),
    precision=precision.choose_precision(device).reason,
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
    errors = try_imports([*PACKAGES, 'mmseg.apis', 'illama_seg'])
    driver, shared = Path('/proc/driver/nvidia/version'), Path('/dev/shm')
    affinity = getattr(os, 'sched_getaffinity', None)
    versions = {}
    for name in (name for group, _ in PACKAGES.values() for name in group):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    files = None  # no limit
    with contextlib.suppress(ImportError):  # Windows
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = None if soft == resource.RLIM_INFINITY else soft
    return dict(
        python=platform.python_version(),
        versions=versions,
        import_errors=errors,
        torch=ask(ASK_TORCH) if errors['torch'] is None else {},
        measured=ask(ASK_PACKAGE) if errors['illama_seg'] is None else {},
        nvidia_driver=driver.is_file() or shutil.which('nvidia-smi') is not None,
        cores=len(affinity(0)) if affinity else os.cpu_count(),
        shared_memory_mib=shared.is_dir() and shutil.disk_usage(shared).free // 2**20,
        open_files=files,
        omp_num_threads=os.environ.get('OMP_NUM_THREADS'),
    )


def try_imports(names: list[str], timeout: int = 600) -> dict[str, str | None]:
    """Import packages in child processes; map each to what it says if it fails."""
    if try_import(', '.join(names), timeout) is None:
        return dict.fromkeys(names)
    return {name: try_import(name, timeout) for name in names}


def try_import(name: str, timeout: int) -> str | None:
    try:
        done = run_python(f'import {name}', timeout)
    except subprocess.TimeoutExpired:
        return f'no end in {timeout} s'
    end = f'it ended the process ({done.returncode})'
    return (done.stderr.strip() or end) if done.returncode else None


def ask(code: str) -> dict:
    """Run code in a child process; return the JSON of its last line, {} if it fails."""
    try:
        done = run_python(code)
        if done.returncode and 'illama_seg.errors.' in done.stderr:
            print(f'not measured: {last(done.stderr)}')
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {}


def run_python(code: str, timeout: int = 600) -> subprocess.CompletedProcess:
    # illama_seg is in the folder above this file's, installed or not.
    paths = [os.environ.get('PYTHONPATH', ''), str(Path(__file__).resolve().parents[1])]
    return subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


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
            what = (
                f'torchvision {vision} is not for torch {torch}: "operator '
                'torchvision::nms does not exist" (pytorch/vision#8985)'
            )
            cure = f'pip install -U "torchvision==0.{minor}.*" from the index of torch'
            yield 'wrong', what, cure


def twice(facts: dict) -> Found:
    """Distributions that write into one folder, where their files get mixed."""
    for name, (distributions, _) in PACKAGES.items():
        found = installed(facts, name)
        if len(found) < 2:
            continue
        both = ' and '.join(f'{key} {value}' for key, value in found.items())
        # OpenCV's distributions of one version differ in the windows only.
        same = name == 'cv2' and len(set(found.values())) == 1
        level = 'note' if same and not facts['import_errors'].get(name) else 'wrong'
        what = f'{both} are installed at once, and both write the folder {name}'
        keep = 'opencv-python-headless' if name == 'cv2' else distributions[0]
        yield level, what, f'pip uninstall -y {" ".join(found)} && pip install {keep}'


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
    """A GPU that torch does not see."""
    torch = facts['torch']
    if not torch or torch['cuda'] or not facts['nvidia_driver']:
        return
    built, cure = 'the CPU only', 'reinstall it and torchvision: https://pytorch.org'
    if torch['cuda_version']:
        built = f'CUDA {torch["cuda_version"]}'
        cure = (
            'update the driver, or install torch for the CUDA that nvidia-smi shows; '
            'in a container: docker run --gpus all'
        )
    yield 'wrong', f'torch sees no GPU: this torch is built for {built}', cure


def limits(facts: dict) -> Found:
    """Limits of the machine that end or slow a training."""
    shared, files = facts['shared_memory_mib'], facts['open_files']
    if shared is not False and shared < 2048:
        what = (
            f'{shared} MiB of shared memory in /dev/shm: data loaders end with "Bus '
            'error" when it is full (pytorch/pytorch#5040)'
        )
        cure = (
            'docker run --shm-size=8g, or --ipc=host; else --cfg-options '
            'train_dataloader.num_workers=0 train_dataloader.persistent_workers=False'
        )
        yield 'wrong' if shared < 512 else 'note', what, cure
    if files is not None and files < 4096:
        what = (
            f'{files} open files allowed: data loaders may end with "received 0 items '
            'of ancdata" or "Too many open files" (pytorch/pytorch#973)'
        )
        cure = 'ulimit -n 65536 before training, or fewer num_workers'
        yield 'wrong' if files < 512 else 'note', what, cure
    omp, cores = facts['omp_num_threads'] or '', facts['cores'] or 1
    on_cpu = facts['torch'] and not facts['torch']['cuda']
    if omp.isdecimal() and (int(omp) > cores or (on_cpu and int(omp) < cores)):
        cure = 'unset OMP_NUM_THREADS, unless other processes need the other cores'
        yield 'note', f'OMP_NUM_THREADS={omp} on {cores} cores', cure


def installed(facts: dict, name: str) -> dict[str, str]:
    """Map the installed distributions of an import name to their versions."""
    have = facts['versions']
    return {dist: have[dist] for dist in PACKAGES[name][0] if dist in have}


def numbers(text: str) -> tuple[int, ...]:
    """Parse a version: '2.6.1rc1+cu126' -> (2, 6, 1)."""
    return tuple(map(int, re.match(r'\d+(\.\d+)*', text)[0].split('.')))


def last(text: str) -> str:
    """Return the last line, shortened."""
    return text.strip().splitlines()[-1].strip()[:200]


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
        rows['waiting'] = measured['waiting']
        rows['precision'] = f'{measured["precision"]} ({measured["device"]})'
        rows['choices in'] = f'{measured["choices"]} (may be removed)'
    rows['/dev/shm'] = 'none' if shared is False else f'{shared:,} MiB free'
    rows['open files'] = facts['open_files'] or 'no limit'
    print(*(f'  {name:<14}{text}' for name, text in rows.items()), '', sep='\n')
    for problem in found:
        print(f'  {problem["level"].upper():<7}{problem["what"]}')
        print(f'         cure: {problem["cure"]}')
    count = sum(problem['level'] == 'wrong' for problem in found)
    print(f'{count} wrong' if count else 'nothing wrong')


if __name__ == '__main__':
    main()
