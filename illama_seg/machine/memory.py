"""Memory of this process."""

import platform
from pathlib import Path


def peak_mib() -> float:
    """Return the peak resident memory of this process in MiB."""
    # On Linux getrusage would start at the parent's peak.
    status = Path('/proc/self/status')
    if status.is_file():
        return int(status.read_text().split('VmHWM:')[1].split()[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == 'Darwin' else 1024)
