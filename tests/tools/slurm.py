"""Stands in for Slurm on a machine without GPUs: as `srun`, `scontrol` and `python`.

test_distributed.py puts it on the PATH under these names. What is real: the variables
that Slurm sets, as mmengine reads them, and all that follows from them.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path


def srun(arguments):
    """Start ``--ntasks`` processes of what follows the options, and wait for them."""
    (command,) = (i for i, word in enumerate(arguments) if word == 'python')
    options = dict(word.split('=', 1) for word in arguments[:command])
    print(*arguments[:command], flush=True)
    variables = dict(SLURM_NTASKS=options['--ntasks'], SLURM_NODELIST='node[1]')
    tasks = [
        subprocess.Popen(
            arguments[command:],
            env=os.environ
            | variables
            | dict(SLURM_PROCID=str(number), SLURM_LOCALID=str(number)),
        )
        for number in range(int(options['--ntasks']))
    ]
    return max(task.wait() for task in tasks)


def python(arguments):
    """Run a tool on one thread."""
    import torch

    torch.set_num_threads(1)
    sys.argv = [word for word in arguments if word != '-u']
    runpy.run_path(sys.argv[0], run_name='__main__')
    sys.stdout.flush()
    # Without taking gloo down: seldom a process was aborted when the other had ended.
    os._exit(0)


if __name__ == '__main__':
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == 'scontrol':
        assert arguments == ['show', 'hostname', 'node[1]']
        print('localhost')
    else:
        sys.exit({'srun': srun, 'python': python}[name](arguments))
