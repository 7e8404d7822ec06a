import contextlib
import sys

import pytest

from gravmap.mapping import predict


@contextlib.contextmanager
def _without_report():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[predict.__module__], "finish_map", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def rasters_only():
    """Predictions write their rasters only: pictures, report and record, which take seconds, are tested elsewhere."""
    with _without_report():
        yield


@pytest.fixture
def rasters_this_time():
    """As `rasters_only`, for one test of a module whose other tests need the complete map."""
    with _without_report():
        yield
