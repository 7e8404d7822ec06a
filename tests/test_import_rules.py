"""Data walks through the rooms in one direction; so do the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gravmap"
ROOMS = ["gravity", "geology", "tiling", "network", "learning", "search", "mapping"]
DATA_WING = {"gravity", "geology", "tiling"}
NETWORK_WING = {"network", "learning", "search"}
# These use every room, and only the command line uses them.
JOINING = {"reproduce", "prior_check"}
BESIDE = {"synthetic"} | JOINING
RASTERS = {"rasterio", "geopandas", "rioxarray", "xarray", "shapely", "netCDF4"}
TERMINAL = {"click", "rich"}


def imports(path: Path) -> set[str]:
    """Every dotted name a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                folder = path.parent
                for _ in range(node.level - 1):
                    folder = folder.parent
                base = ".".join(folder.relative_to(ROOT).parts)
                module = f"{base}.{node.module}" if node.module else base
            else:
                module = node.module or ""
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_only_to_earlier_rooms(path):
    room = room_of(path)
    names = imports(path)
    tops = {name.split(".")[0] for name in names}
    rooms = {name.split(".")[1] for name in names if name.startswith("gravmap.")} & set(ROOMS)
    assert not tops & TERMINAL, "only cli/ talks to the terminal"
    assert not tops & {"gravmap_cli", "cli"}
    if room in ROOMS:
        later = set(ROOMS[ROOMS.index(room) + 1 :])
        assert not rooms & later
        # What stands beside the rooms and uses several of them is not for a room to use.
        assert not {name.split(".")[1] for name in names if name.startswith("gravmap.")} & BESIDE
    elif room == "synthetic":
        assert rooms <= {"gravity", "geology"}
    elif room not in JOINING:
        assert not rooms, "the foundations know no room"
    if room in NETWORK_WING:
        assert not tops & RASTERS
        assert not rooms & DATA_WING, "the two wings do not import each other"
    # Tiles as a PyTorch dataset; gravmap.tiling loads the module only when the class is used.
    if room not in NETWORK_WING | JOINING | {"mapping"} and path != PACKAGE / "tiling" / "tile_dataset.py":
        assert not tops & {"torch", "torchvision"}


def test_the_rule_catches_a_planted_import(tmp_path, monkeypatch):
    planted = tmp_path / "gravmap" / "gravity" / "bad.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("from gravmap.tiling import windows\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "gravmap")
    with pytest.raises(AssertionError):
        test_imports_point_only_to_earlier_rooms(planted)


def loaded_by(code: str) -> set[str]:
    probe = f"import sys\n{code}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HELP = "import gravmap_cli\ntry:\n    gravmap_cli.gravmap(['--help'])\nexcept SystemExit:\n    pass"


def test_help_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "xarray", "rasterio", "geopandas", "numpy", "scipy", "matplotlib", "rich"}
    assert not loaded_by(HELP) & heavy


@pytest.mark.parametrize(
    "words",
    ["fetch -n", "residual -n", "rasterize -n", "tile -n", "legend check x --legend ics", "legend draft x --field y"],
)
def test_the_data_commands_never_load_torch(words, tmp_path):
    code = (
        "import gravmap_cli\ntry:\n"
        f"    gravmap_cli.gravmap(['-w', {str(tmp_path)!r}, *{words.split()!r}])\nexcept SystemExit:\n    pass"
    )
    assert "torch" not in loaded_by(code)


def test_the_data_wing_loads_without_torch():
    assert "torch" not in loaded_by("import gravmap.gravity, gravmap.geology, gravmap.tiling, gravmap.synthetic")


def test_the_network_wing_loads_without_rasters():
    # Nor what only files and pictures need: training steps can be measured with torch, numpy and scipy alone.
    loaded = loaded_by("import gravmap.network, gravmap.learning")
    assert not loaded & (RASTERS | {"safetensors", "matplotlib", "pyproj", "pandas"})
