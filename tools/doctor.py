"""Report on the environment, and what is wrong with it: python tools/doctor.py

Prints versions, hardware and limits, then each known problem with its cure; --json FILE
writes the same. Exit status 1 if something is wrong. It must run where packages are
broken or missing, so it imports none itself: child processes try them.
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

# import name: (distributions that install it, lowest version), illama_seg/version.py's
# and what else a training needs. The second of OpenMMLab's is the original one.
PACKAGES = {
    'numpy': (('numpy',), '1.23'),
    'cv2': (
        (
            'opencv-python',
            'opencv-python-headless',
            'opencv-contrib-python',
            'opencv-contrib-python-headless',
        ),
        '4.5',
    ),
    'torch': (('torch',), '2.6'),
    'torchvision': (('torchvision',), '0.21'),
    'timm': (('timm',), '1.0'),
    'mmengine': (('onedl-mmengine', 'mmengine'), '0.10'),
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'), '2.0'),
    'mmseg': (('onedl-mmsegmentation', 'mmsegmentation'), '1.2'),
}
# Not needed, but they take part in what goes wrong.
BESIDE = ('transformers', 'setuptools')
FRESH = (
    'in a new environment: pip install -e . (it takes onedl-mmengine, onedl-mmcv and '
    'onedl-mmsegmentation, which need no compiler)'
)
# What an import that failed says -> the cure.
IMPORT_CURES = {
    r'libGL|libgthread|libxcb|libSM|libXext': 'pip uninstall -y opencv-python && pip '
    'install opencv-python-headless',
    r'_ARRAY_API|compiled using NumPy 1|numpy.core.multiarray': 'pip install -U the '
    'package named (it was compiled for NumPy 1), or pip install "numpy<2"',
    r'mmcv\._ext': f"mmcv has no compiled operators, mmcv-lite's case; {FRESH}",
    r'MMCV==\S+ is used but incompatible': 'pip install mmcv==2.1.0 beside '
    f'mmsegmentation 1.2.2, where it is to be had for your torch; else {FRESH}',
    r"No module named '(ftfy|regex)'": 'pip install ftfy regex',
    r"No module named '(packaging|filelock|safetensors|tqdm|sklearn|PIL|prettytable)": (
        'pip install -r requirements.txt'
    ),
    r"No module named 'pkg_resources'": 'pip install "setuptools<81"',
    r'operator torchvision::nms': 'pip install -U torch torchvision, both at once and '
    'from one index',
    r'Adafactor is already registered': 'pip install -U onedl-mmengine, or mmengine '
    '0.10.6 or newer',
    r'undefined symbol': 'it was compiled for another torch: reinstall it, or '
    f'start {FRESH}',
    r'lib(cudart|cublas|cudnn|nvrtc|cusparse|nccl)\S*\.so': 'pip install '
    '--force-reinstall torch; LD_LIBRARY_PATH may point to another CUDA',
    r'GLIBCXX_': 'an old libstdc++ is found first: conda install -c conda-forge '
    'libstdcxx-ng, or unset LD_LIBRARY_PATH',
}
# Tried in one child, in this order; it says what came of each as soon as it knows.
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
cuda = torch.cuda.is_available()
gpus = []
for i in range(torch.cuda.device_count() if cuda else 0):
    card = torch.cuda.get_device_properties(i)
    gpus.append(dict(
        name=card.name,
        memory_gib=round(card.total_memory / 2**30, 1),
        capability=[card.major, card.minor],
        bf16=card.major >= 8,
        flash_attention=card.major >= 8 and torch.backends.cuda.flash_sdp_enabled(),
    ))
print(json.dumps(dict(
    cuda=cuda,
    cuda_version=torch.version.cuda,
    architectures=torch.cuda.get_arch_list() if cuda else [],
    threads=torch.get_num_threads(),
    gpus=gpus,
)))
"""
# What the package has measured, or measures now, on this machine.
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
MIB = 2**20


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
    """Everything the report and the checks are made of; plain data."""
    names = [name for group, _ in PACKAGES.values() for name in group]
    versions = {name: v for name in (*names, *BESIDE) if (v := version(name))}
    errors = try_imports([*PACKAGES, 'mmcv.ops', 'mmseg.apis', 'illama_seg'])
    return dict(
        python=platform.python_version(),
        executable=sys.executable,
        system=platform.platform(),
        versions=versions,
        import_errors=errors,
        torch=ask(ASK_TORCH) if errors.get('torch') is None else {},
        measured=ask(ASK_PACKAGE) if errors.get('illama_seg') is None else {},
        nvidia_driver=nvidia_driver(),
        cpu=cpu(),
        shared_memory_mib=shared_memory(),
        open_files=open_files(),
        omp_num_threads=os.environ.get('OMP_NUM_THREADS'),
    )


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def try_imports(names: list[str], timeout: int = 600) -> dict[str, str | None]:
    """Name -> error, None for none; one that ends the process is found out too."""
    errors: dict[str, str | None] = {}
    while rest := [name for name in names if name not in errors]:
        try:
            done = run_python(TRY_IMPORTS, *rest, timeout=timeout)
            output, end = done.stdout, f'it ended the process ({done.returncode})'
        except subprocess.TimeoutExpired as error:
            output = error.stdout or b''
            output = output.decode() if isinstance(output, bytes) else output
            end = f'no end in {timeout} s'
        said = [json.loads(line) for line in output.splitlines() if is_json(line)]
        errors |= {line['name']: line['error'] for line in said if 'name' in line}
        unfinished = said[-1].get('trying') if said else rest[0]
        if unfinished:
            errors[unfinished] = end
    return errors


def ask(code: str) -> dict:
    """What code prints last, in a process of its own; nothing if it fails."""
    try:
        done = run_python(code, timeout=600)
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {}


def run_python(code: str, *arguments: str, timeout: int):
    command = [sys.executable, '-c', code, *arguments]
    # Beside this file lies illama_seg, installed or not.
    paths = [os.environ.get('PYTHONPATH', ''), str(Path(__file__).resolve().parents[1])]
    return subprocess.run(
        command,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=timeout,
    )


def is_json(line: str) -> bool:
    return line.startswith(('{"name"', '{"trying"'))


def nvidia_driver() -> str | None:
    """Version of the driver, where there is one; torch may not see it."""
    path = Path('/proc/driver/nvidia/version')
    if path.is_file():
        found = re.search(r'Kernel Module\D*([\d.]+)', path.read_text())
        return found[1] if found else 'unknown'
    return 'unknown' if shutil.which('nvidia-smi') else None


def cpu() -> dict:
    """Cores that this process may use, model and features."""
    path, text = Path('/proc/cpuinfo'), ''
    if path.is_file():
        text = path.read_text()
    name = re.search(r'model name\s*:\s*(.*)', text)
    flags = set((m[1] if (m := re.search(r'flags\s*:\s*(.*)', text)) else '').split())
    affinity = getattr(os, 'sched_getaffinity', None)
    return dict(
        name=name[1] if name else platform.machine(),
        cores=len(affinity(0)) if affinity else os.cpu_count(),
        features=sorted(flags & {'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'}),
    )


def shared_memory() -> int | None:
    """MiB free in /dev/shm, through which data loaders hand over their images."""
    path = Path('/dev/shm')
    return shutil.disk_usage(path).free // MIB if path.is_dir() else None


def open_files() -> int | None:
    """Files that a process may have open; None where there is no such limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


# Problems


def problems(facts: dict) -> Iterator[dict]:
    """What is wrong, and what is worth a note, each with its cure."""
    checks = (python, missing, twice, pairs, imports, gpu, limits)
    for check in checks:
        for level, what, cure in check(facts):
            yield dict(level=level, what=what, cure=cure)


def python(facts: dict) -> Iterator[tuple[str, str, str]]:
    if numbers(facts['python']) < (3, 10):
        yield 'wrong', f'Python {facts["python"]}', 'use Python 3.10 or newer'


def missing(facts: dict) -> Iterator[tuple[str, str, str]]:
    for name, (distributions, lowest) in PACKAGES.items():
        found = installed(facts, name)
        first = distributions[0]
        if not found and facts['import_errors'].get(name) is not None:
            yield 'wrong', f'{name} is missing', f'pip install "{first}>={lowest}"'
        elif found and max(map(numbers, found.values())) < numbers(lowest):
            (distribution, old), *_ = found.items()
            what = f'{distribution} {old} is too old: {lowest} or newer is needed'
            yield 'wrong', what, f'pip install -U "{first}>={lowest}"'


def twice(facts: dict) -> Iterator[tuple[str, str, str]]:
    """Distributions that write into one folder: the last one installed is mixed in."""
    for name, (distributions, _) in PACKAGES.items():
        found = installed(facts, name)
        if len(found) < 2:
            continue
        both = ' and '.join(f'{key} {value}' for key, value in found.items())
        # OpenCV of one version is the same files, but for the windows.
        same = name == 'cv2' and len(set(found.values())) == 1
        keep = 'opencv-python-headless' if name == 'cv2' else distributions[0]
        yield (
            'note' if same and not facts['import_errors'].get(name) else 'wrong',
            f'{both} are installed at once, and both write the folder {name}',
            f'pip uninstall -y {" ".join(found)} && pip install {keep}',
        )


def pairs(facts: dict) -> Iterator[tuple[str, str, str]]:
    """Versions that do not work together, though each is new enough."""
    have = facts['versions']
    torch, vision = have.get('torch', ''), have.get('torchvision', '')
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
    two = have.get('numpy', '').startswith('2.')
    if two and torch and numbers(torch) < (2, 3):
        yield (
            'wrong',
            f'torch {torch} was compiled for NumPy 1, and NumPy {have["numpy"]} is '
            'installed: "_ARRAY_API not found" (pytorch/pytorch#135013)',
            'pip install -U torch torchvision, or pip install "numpy<2"',
        )
    for name, found in installed(facts, 'cv2').items():
        if two and numbers(found) < (4, 10):
            yield (
                'wrong',
                f'{name} {found} was compiled for NumPy 1, and NumPy {have["numpy"]} '
                'is installed: "numpy.core.multiarray failed to import"',
                f'pip install -U {name}',
            )
    mmseg, mmcv = have.get('mmsegmentation', ''), have.get('mmcv', '')
    if mmseg and mmcv and numbers(mmseg) <= (1, 2, 2) and numbers(mmcv) >= (2, 2):
        yield (
            'wrong',
            f'mmsegmentation {mmseg} refuses mmcv {mmcv}: "MMCV==2.2.0 is used but '
            'incompatible" (open-mmlab/mmsegmentation#3729)',
            'pip install mmcv==2.1.0, where it is to be had for your torch; else '
            f'{FRESH}',
        )
    no_ops = facts['import_errors'].get('mmcv.ops')
    if mmseg and no_ops and facts['import_errors'].get('mmcv') is None:
        yield (
            'wrong',
            f'mmsegmentation {mmseg} needs the compiled operators of mmcv, and they do '
            f'not load: {last(no_ops)} (open-mmlab/mmcv#2059)',
            f'{FRESH}; or a wheel of mmcv 2.1.0 for your torch and CUDA',
        )
    mmengine = have.get('mmengine', '')
    if mmengine and torch and 'onedl-mmengine' not in have:
        if 'transformers' in have and numbers(mmengine) < (0, 10, 6):
            yield (
                'wrong',
                f'mmengine {mmengine} and transformers with torch {torch}: "Adafactor '
                'is already registered in optimizer" (open-mmlab/mmengine#1609)',
                'pip install -U "mmengine>=0.10.6"',
            )
        if numbers(torch) >= (2, 6) and numbers(mmengine) <= (0, 10, 7):
            yield (
                'note',
                f'mmengine {mmengine} cannot resume with torch {torch}: "Weights only '
                'load failed" (open-mmlab/mmengine#1655)',
                'pip uninstall -y mmengine && pip install onedl-mmengine; or, for '
                'checkpoints that you trust, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1',
            )


def imports(facts: dict) -> Iterator[tuple[str, str, str]]:
    """What is installed and does not load; once, where others stand on it."""
    told, incomplete = set(), any(missing(facts))
    for name, error in facts['import_errors'].items():
        package = name.partition('.')[0]
        absent = package in PACKAGES and not installed(facts, package)
        # The operators are only asked of mmcv by the original mmseg, see `pairs`.
        if error is None or absent or name == 'mmcv.ops' or last(error) in told:
            continue
        if incomplete and name in ('mmseg.apis', 'illama_seg'):
            continue
        told.add(last(error))
        cure = next(
            (cure for text, cure in IMPORT_CURES.items() if re.search(text, error)),
            f'{sys.executable} -c "import {name}" says more; else {FRESH}',
        )
        yield 'wrong', f'import {name}: {last(error)}', cure


def gpu(facts: dict) -> Iterator[tuple[str, str, str]]:
    torch = facts['torch']
    if not torch:
        return
    if facts['nvidia_driver'] and not torch['cuda']:
        if torch['cuda_version'] is None:
            why = 'this torch is built for the CPU only'
            cure = (
                'pip install --force-reinstall torch torchvision, from the index for '
            )
            cure += 'your CUDA: https://pytorch.org/get-started/locally'
        else:
            why = f'this torch is built for CUDA {torch["cuda_version"]}'
            cure = (
                'nvidia-smi shows the CUDA that the driver knows: update the driver, '
            )
            cure += (
                'or take a torch for that CUDA; in a container: docker run --gpus all'
            )
        driver = facts['nvidia_driver']
        yield 'wrong', f'torch sees no GPU, the driver ({driver}) is there: {why}', cure
    for card in torch['gpus']:
        major, minor = card['capability']
        built = [int(a.rpartition('_')[2].rstrip('af')) for a in torch['architectures']]
        # A binary runs on later cards of the same major version; ptx on all later ones.
        ptx = any(a.startswith('compute') for a in torch['architectures'])
        fits = any(n // 10 == major and n % 10 <= minor for n in built)
        if built and not fits and not (ptx and max(built) <= 10 * major + minor):
            yield (
                'wrong',
                f'{card["name"]} (sm_{major}{minor}) is not among what this torch is '
                f'built for ({", ".join(torch["architectures"])}): "no kernel image is '
                'available"',
                'take the torch for another CUDA: https://pytorch.org/get-started/locally',
            )
        if not card['bf16']:
            yield (
                'note',
                f'{card["name"]} has no bfloat16, nor flash attention',
                '--amp compares float16, with a loss scale, there',
            )


def limits(facts: dict) -> Iterator[tuple[str, str, str]]:
    shared, files = facts['shared_memory_mib'], facts['open_files']
    if shared is not None and shared < 2048:
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
    omp, cores = facts['omp_num_threads'] or '', facts['cpu']['cores'] or 1
    on_cpu = facts['torch'] and not facts['torch']['cuda']
    if omp.isdecimal() and (int(omp) > cores or (on_cpu and int(omp) < cores)):
        yield (
            'note',
            f'OMP_NUM_THREADS={omp} on {cores} cores',
            'unset OMP_NUM_THREADS, unless other processes take the other cores',
        )


def installed(facts: dict, name: str) -> dict[str, str]:
    """Distribution -> version of those that install an import name."""
    have = facts['versions']
    return {dist: have[dist] for dist in PACKAGES[name][0] if dist in have}


def numbers(text: str) -> tuple[int, ...]:
    """'2.6.1rc1+cu126' -> (2, 6, 1)."""
    return tuple(map(int, re.match(r'\d+(\.\d+)*', text)[0].split('.')))


def last(error: str) -> str:
    """The last line that says something, shortened."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return (lines[-1] if lines else error)[:200]


# Report


def report(facts: dict, found: list[dict]) -> None:
    torch, cpus = facts['torch'], facts['cpu']
    print(f'{facts["system"]}, Python {facts["python"]} ({facts["executable"]})\n')
    for name in PACKAGES:
        pairs = installed(facts, name).items()
        text = ', '.join(f'{v} ({dist})' for dist, v in pairs) or 'not installed'
        broken = '' if facts['import_errors'].get(name) is None else '   BROKEN'
        print(f'  {name:<14}{text}{broken if pairs else ""}')
    for name in ('mmseg.apis', 'illama_seg'):
        loads = facts['import_errors'].get(name) is None
        print(f'  {name:<14}{"loads" if loads else "does not load"}')
    no_ops = facts['import_errors'].get('mmcv.ops')
    ops = 'not compiled; only the original mmsegmentation needs them'
    print(f'  mmcv.ops      {ops if no_ops else "load"}')
    print()
    for card in torch.get('gpus', []):
        print(
            f'  GPU           {card["name"]}, {card["memory_gib"]} GiB, bfloat16 '
            f'{yes(card["bf16"])}, flash attention {yes(card["flash_attention"])}'
        )
    if not torch.get('gpus'):
        print(f'  GPU           none (driver: {facts["nvidia_driver"] or "none"})')
    features = ', '.join(cpus['features']) or 'none of avx2, avx512, amx'
    threads = torch.get('threads', 'unknown')
    print(f'  CPU           {cpus["name"]}, {cpus["cores"]} cores; {features}')
    print(
        f'  threads       {threads} in torch, OMP_NUM_THREADS='
        f'{facts["omp_num_threads"] or "(not set)"}'
    )
    if measured := facts['measured']:
        print(f'  waiting       {measured["waiting"]}')
        print(f'  precision     {measured["precision"]} ({measured["device"]})')
        wrong = measured['integers']
        print(f'  8 bits        {f"in float64: {wrong}" if wrong else "in integers"}')
        print(f'  choices in    {measured["choices"]} (may be removed)')
    shared = facts['shared_memory_mib']
    print(f'  /dev/shm      {"none" if shared is None else f"{shared:,} MiB free"}')
    print(f'  open files    {facts["open_files"] or "no limit"}\n')
    for problem in found:
        print(f'  {problem["level"].upper():<7}{problem["what"]}')
        print(f'         cure: {problem["cure"]}')
    wrong = sum(problem['level'] == 'wrong' for problem in found)
    print(f'{wrong} wrong' if wrong else 'nothing wrong')


def yes(value: bool) -> str:
    return 'yes' if value else 'no'


if __name__ == '__main__':
    main()
