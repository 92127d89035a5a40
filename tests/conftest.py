"""Fixtures that all tests share."""

import fnmatch
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from tiny_run import start_fresh, train_once

DATA = Path(__file__).parent / 'data'

# Beside others of its kind a process has one core.
workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
torch.set_num_threads(min(2 if workers == 1 else 1, torch.get_num_threads()))
if workers > 1:
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # of the processes it starts
# The same arithmetic in every process, whatever is fastest: tests of 'auto' unset it.
os.environ.setdefault('ILLAMA_SEG_ATTENTION', 'fixed')
os.environ.setdefault('ILLAMA_SEG_LINEAR', 'fixed')
settings.register_profile(
    'illama_seg', deadline=None, max_examples=25, derandomize=True, database=None
)
settings.load_profile('illama_seg')


@pytest.fixture(autouse=True, scope='module')
def _fresh():
    """Begin every file of tests as a process does: without a default scope, say."""
    start_fresh()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def golden():
    """Name -> array: what the released code computes for ``golden_checkpoint``."""
    with np.load(DATA / 'illama_micro_expected.npz') as arrays:
        return dict(arrays)


@pytest.fixture(scope='session')
def golden_checkpoint():
    """Path of a micro model's weights in the released format."""
    return DATA / 'illama_micro_official.pth'


@pytest.fixture(scope='session')
def relative_error():
    """Largest difference of two arrays over the largest value expected."""

    def error(actual, expected):
        actual = torch.as_tensor(actual).detach().double()
        expected = torch.as_tensor(expected).detach().double()
        assert actual.shape == expected.shape
        return ((actual - expected).abs().max() / expected.abs().max()).item()

    return error


@pytest.fixture(scope='session')
def run(tmp_path_factory):
    """A finished run of tools/train.py: data, work_dir, config, checkpoint, log."""
    return train_once(tmp_path_factory.mktemp('run') / 'tiny')


@pytest.fixture
def reported():
    """Read the report's first table of what a tool writes: columns and rows."""
    from illama_seg.reports.sections import SECTIONS
    from illama_seg.reports.tables import page_tables

    def read(file, numbers):
        assert any(fnmatch.fnmatch(file, section.files) for section in SECTIONS)
        table, *_ = page_tables(numbers)
        return table.columns, table.rows

    return read


BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


@pytest.fixture(scope='module')
def browser():
    """Chromium without a window, by Playwright, whose event loop ends with it."""
    api = pytest.importorskip('playwright.sync_api')
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f'none of {", ".join(BROWSERS)} is installed')
    with api.sync_playwright() as playwright:
        # Its sandbox refuses root, and a container without user namespaces.
        browser = playwright.chromium.launch(
            executable_path=found,
            args=['--no-sandbox', '--use-fake-device-for-media-stream'],
        )
        yield browser
        browser.close()
