"""Fixture of the tests that choose by measurement."""

import pytest

from illama_seg.machine import choices


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Path of a file of choices of this test's own, on a quiet machine."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(choices, '_switches', lambda: 0)
    monkeypatch.setattr(choices, '_spent', 0.0)
    choices.forget()
    yield tmp_path / 'illama_seg' / 'measured.json'
    choices.forget()
