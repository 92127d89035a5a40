"""Peak memory of a forward pass on a CPU, measured in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from torch import nn

from illama_seg.apis.configs import load_config
from illama_seg.errors import UserError
from illama_seg.machine import choices
from illama_seg.machine.memory import peak_mib
from illama_seg.studies.common import build_model, image_channels, run_apart

MIB = 2**20
# A program: arguments are the file, then the shape of the images.
FILE_PASS = """
import sys
sys.modules['torch'] = None  # as where it is not installed
import numpy as np
from illama_seg.deploy import ExportedModel
from illama_seg.machine.memory import peak_mib
ExportedModel(sys.argv[1]).logits(np.zeros([*map(int, sys.argv[2:])], np.float32))
sys.stdout.write(str(peak_mib()))
"""


def forward_pass(model: nn.Module, image: torch.Tensor, dtype: torch.dtype) -> None:
    """Run images (N, 3, H, W) through a model in a dtype and wait for the result."""
    device = image.device
    amp = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with amp, torch.inference_mode():
        model(image)  # mode 'tensor': the logits
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def peak_in_child(*case: Any) -> float | None:
    """Return the peak memory of a new process in MiB, None where it was killed."""
    try:
        return run_apart(_peak, torch.get_num_threads(), *case)
    except BrokenProcessPool:
        return None


def _peak(
    threads: int,
    config: str,
    cfg_options: dict | None,
    shape: tuple[int, int],
    dtype: torch.dtype,
    chosen: dict[str, str],
    batch_size: int,
) -> float:
    torch.set_num_threads(threads)
    choices.resume(chosen)
    model = build_model(load_config(config, cfg_options))
    image = torch.randn(batch_size, image_channels(model), *shape)
    forward_pass(model, image, dtype)
    return peak_mib()


def peak_of_file(file: Path, shape: Sequence[int]) -> float | None:
    """Return the peak memory of an exported file's process in MiB, without torch.

    Args:
        file: path.
        shape: (B, C, H, W) of the images.

    Returns:
        None where the process was killed.

    Raises:
        UserError: if the file does not run on such images.
    """
    threads = {'OMP_NUM_THREADS': str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, '-c', FILE_PASS, str(file), *map(str, shape)],
        env=os.environ | threads,
        capture_output=True,
        text=True,
    )
    if done.returncode < 0:
        return None
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1].partition(': ')[2])
    return float(done.stdout)
