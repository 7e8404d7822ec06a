import contextlib
import sys

import pytest

from gravmap.mapping import predict


@contextlib.contextmanager
def _no_more_than_rasters():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[predict.__module__], "finish_map", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def rasters_only():
    """Predictions end with their rasters: pictures, page and record, which take seconds, are tested elsewhere."""
    with _no_more_than_rasters():
        yield


@pytest.fixture
def rasters_this_time():
    """As `rasters_only`, for one test of a module whose others want the whole map."""
    with _no_more_than_rasters():
        yield
