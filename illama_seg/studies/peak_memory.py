"""Peak memory of a forward pass on a CPU, measured in a process of its own."""

import platform
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from torch import nn

from illama_seg.apis.configs import load_config
from illama_seg.machine import choices
from illama_seg.studies.common import build_model, image_channels, run_apart

MIB = 2**20


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
    # On Linux getrusage would start at the parent's peak.
    status = Path('/proc/self/status')
    if status.is_file():
        return int(status.read_text().split('VmHWM:')[1].split()[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if platform.system() == 'Darwin' else 1024)
