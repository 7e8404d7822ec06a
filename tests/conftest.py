"""What every test needs set before anything is imported."""

import os

import pytest

# The tests run in two processes: more threads than cores would make torch many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def no_pictures(monkeypatch):
    """Runs end without curves and reliability as pictures, a third of the time of one that is a few steps long."""
    import gravmap.learning.training.finish

    monkeypatch.setattr(gravmap.learning.training.finish, "draw_curves", lambda *_: None)
    monkeypatch.setattr(gravmap.learning.training.finish, "draw_reliability", lambda *_: None)
