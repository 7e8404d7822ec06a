"""`gravmap explore`: writes a page, opens it where there is a browser, and says where it is."""

import json
import sys
import webbrowser
from pathlib import Path

import pytest
from click.testing import CliRunner

from gravmap_cli import explore as explore_command
from gravmap_cli import gravmap
from toys.explorable import make_explorable, write_record


def run(*words):
    return CliRunner().invoke(gravmap, ["explore", *map(str, words)])


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("bokeh")
    make_explorable(tmp_path / "map")
    return tmp_path / "map"


def test_it_writes_the_page_and_says_where_it_is(folder):
    done = run(folder)
    assert done.exit_code == 0, done.output
    assert f"{folder / 'explore.html'}: 45 x 30 cells" in done.output
    assert f"Open it in a browser: {(folder / 'explore.html').as_uri()}" in done.output
    assert "Warning" not in done.output


def test_a_second_call_opens_the_page_that_is_there(folder):
    run(folder)
    before = (folder / "explore.html").stat().st_mtime_ns
    done = run(folder)
    assert done.exit_code == 0
    assert "shows this map already" in done.output
    assert (folder / "explore.html").stat().st_mtime_ns == before


def test_the_page_of_another_map_is_replaced_only_when_told_to(folder):
    run(folder)
    record = folder / "provenance.json"
    write_record(folder, "another")
    record.write_text(record.read_text().replace("2026-11-23", "2026-11-24"))
    assert run(folder).exit_code == 3
    done = run(folder, "--overwrite", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["file"] == str(folder / "explore.html")
    assert found["bytes"] == (folder / "explore.html").stat().st_size
    assert (found["opened"], found["missing"]) == (False, [])


def test_a_map_of_an_earlier_version_is_shown_with_a_warning(folder):
    (folder / "gravity.tif").unlink()
    done = run(folder)
    assert done.exit_code == 0
    assert "has no gravity.tif, as maps of earlier versions of gravmap" in done.output
    assert "`gravmap predict --overwrite`" in done.output


def test_what_is_no_map_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        done = run(place)
        assert done.exit_code == 3
        assert "gravmap predict --region junggar" in done.output
    assert not list(tmp_path.iterdir())


def test_without_bokeh_it_says_what_to_install(tmp_path, monkeypatch):
    make_explorable(tmp_path / "map")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    done = run(tmp_path / "map")
    assert done.exit_code == 1
    assert 'pip install "gravmap[explore]"' in done.output


@pytest.mark.parametrize(
    ("terminal", "screen", "opens"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_browser_is_opened_on_a_terminal_with_a_screen_alone(terminal, screen, opens, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(webbrowser, "open", lambda address: asked.append(address) or True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if screen:
        monkeypatch.setenv("DISPLAY", ":0")
    else:
        monkeypatch.delenv("DISPLAY", raising=False)
    page = Path(tmp_path, "explore.html")
    assert explore_command._open(page) is opens
    assert asked == ([page.as_uri()] if opens else [])


def test_a_browser_that_does_not_start_is_none(monkeypatch, tmp_path):
    def fail(address):
        raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "open", fail)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("DISPLAY", ":0")
    assert explore_command._open(tmp_path / "explore.html") is False
