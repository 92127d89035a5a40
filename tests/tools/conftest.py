import pytest
from tiny_run import trained_once


@pytest.fixture(scope='session')
def run(tmp_path_factory):
    """A finished run of tools/train.py: data, work_dir, config, checkpoint, log."""
    return trained_once(tmp_path_factory.getbasetemp() / 'tiny')
