"""The pages of docs/tutorials run as they stand, and the site builds without a warning and without the internet."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load():
    spec = importlib.util.spec_from_file_location("run_tutorials", ROOT / "docs" / "run_tutorials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tutorials = load()


@pytest.mark.slow
@pytest.mark.parametrize("page", tutorials.PAGES)
def test_a_tutorial_runs(page, tmp_path):
    names = tutorials.run(page, tmp_path)
    if page == "first_map":
        assert 0.4 < names["right"] < 0.7
    if page == "notebook":
        assert 1 < names["rms"] < 50
        assert names["leak"] == 0
        assert 0 <= names["result"]["test"]["fwiou"] <= 1
        assert names["faults"] == []
        assert (tmp_path / "maps" / "first" / "lithology.tif").exists()


@pytest.mark.parametrize("page", tutorials.PAGES)
def test_every_picture_of_a_tutorial_is_there_and_no_other(page):
    folder = ROOT / "docs" / "images" / page
    made = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert made == set(tutorials.pictures(page)), "run `make pictures`"


def page_of(text, monkeypatch, tmp_path):
    (tmp_path / "tutorials").mkdir()
    (tmp_path / "tutorials" / "page.md").write_text(text)
    monkeypatch.setattr(tutorials, "DOCS", tmp_path)
    return tutorials.run("page", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nfalse\ntrue\n```\n",
        "```bash\necho one two three\n```\n\n```text\none three\n```\n",
        "![A map](../images/page/maps/here/map.png)\n",
    ],
    ids=["a command fails", "other output", "no picture"],
)
def test_a_page_that_is_not_true_is_refused(text, monkeypatch, tmp_path):
    with pytest.raises(AssertionError):
        page_of(text, monkeypatch, tmp_path)


def test_a_true_page_passes(monkeypatch, tmp_path):
    text = "```bash\necho one; echo two three\n```\n\n```text\none two ...\n```\n\n```python\nx = 3\n```\n"
    assert page_of(text, monkeypatch, tmp_path)["x"] == 3


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_reads_offline(tmp_path):
    pytest.importorskip("sphinx", reason="pip install gravmap[docs]")
    pytest.importorskip("pydata_sphinx_theme", reason="pip install gravmap[docs]")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(ROOT / "docs"), "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 30
    loads = re.compile(r"<(?:script|img|iframe)[^>]+src=\"(https?://[^\"]+)|<link[^>]+href=\"(https?://[^\"]+)")
    assert not [(page.name, found.group()) for page in pages for found in loads.finditer(page.read_text("utf-8"))]
    reference = (tmp_path / "site" / "api.html").read_text("utf-8")
    assert all(f'id="gravmap.{name}"' in reference for name in ("gravity.upward_continue", "learning.RegionDataset"))
