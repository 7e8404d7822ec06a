import pytest

from gravmap.mapping import predict


@pytest.fixture(scope="module")
def rasters_only():
    """Predictions end with their rasters: pictures, page and record, which take seconds, are tested elsewhere."""
    import sys

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[predict.__module__], "finish_map", lambda *_: None)
        yield
