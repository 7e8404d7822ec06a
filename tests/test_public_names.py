"""What docs/api.md lists is exported and has an example; the blocks of docs/notebook.md run in order."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS = re.findall(r"^\| `(gravmap\.\w+)` \| (.*) \|$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
PUBLIC = {package: re.findall(r"`(\w+)`", names) for package, names in ROWS}


def test_the_public_names_are_few():
    assert len(PUBLIC) == 9
    assert 25 <= sum(map(len, PUBLIC.values())) <= 45


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_exports_what_the_page_lists(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package])
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", [f"{package}.{name}" for package, names in PUBLIC.items() for name in names])
def test_every_public_name_has_an_example(name):
    package, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(package), attribute)
    assert not isinstance(thing, ModuleType), "a module of the same name hides it"
    assert "Examples\n" in (thing.__doc__ or "")
    assert ">>>" in thing.__doc__


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "notebook.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert 1 < names["rms"] < 50
    assert names["leak"] == 0
    assert 0 <= names["result"]["test"]["fwiou"] <= 1
    assert names["faults"] == []
    assert (tmp_path / "maps" / "first" / "lithology.tif").exists()
