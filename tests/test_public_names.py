"""The API reference documents what the packages export, and each name has an example."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
PACKAGES = re.findall(r"^\.\. automodule:: (gravmap\.\w+)$", PAGE.read_text(), flags=re.MULTILINE)
PUBLIC = {package: importlib.import_module(package).__all__ for package in PACKAGES}


def test_the_public_names_are_few():
    assert len(PUBLIC) == 9
    assert 25 <= sum(map(len, PUBLIC.values())) <= 45


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_lists_what_it_exports(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module)), "names imported on first use are missing in the reference"
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", [f"{package}.{name}" for package, names in PUBLIC.items() for name in names])
def test_every_public_name_has_an_example(name):
    package, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(package), attribute)
    assert not isinstance(thing, ModuleType), "a module of the same name hides it"
    assert "Examples\n" in (thing.__doc__ or "")
    assert ">>>" in thing.__doc__
