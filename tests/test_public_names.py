"""The names of docs/api.md are there, and its examples run."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

API = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text()


def test_every_import_of_the_page_works():
    lines = re.findall(r"^from gravmap\.[\w.]+ import .*$", API, flags=re.MULTILINE)
    assert len(lines) >= 7
    for line in lines:
        exec(line.split("#")[0], {})


def test_the_crust_of_the_page_goes_into_the_residual_of_the_page():
    from gravmap.gravity import residual_fields
    from gravmap.synthetic import make_crust

    crust = make_crust(seed=1, shape=(40, 60), sub=1, margin=8)
    fields = residual_fields(crust.gravity, [10_000.0])
    assert {"bouguer", "regional_10km", "residual_10km"} <= set(fields.data_vars)
    assert fields["residual_10km"].dims == ("lat", "lon")
    assert crust.surface.shape == crust.truth.shape == (40, 60)


@pytest.mark.parametrize("package", ["learning.evaluation", "learning.calibration", "search", "prior_check"])
def test_public_names_are_not_hidden_by_modules_of_the_same_name(package):
    module = importlib.import_module(f"gravmap.{package}")
    for name in module.__all__:
        assert not isinstance(getattr(module, name), ModuleType), name
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018
