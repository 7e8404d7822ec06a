"""Packages depend on each other in one direction, no two modules on each other, and heavy imports load late."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gravmap"
PACKAGES = ["download", "gravity", "geology", "tiling", "network", "learning", "search", "mapping"]
RASTER_PACKAGES = {"download", "gravity", "geology", "tiling"}
TORCH_PACKAGES = {"network", "learning", "search"}
# These use every package, and only the command line uses them.
JOINING = {"reproduce", "prior_check"}
OTHERS = {"synthetic"} | JOINING
RASTERS = {"rasterio", "geopandas", "rioxarray", "xarray", "shapely", "netCDF4"}
TERMINAL = {"click", "rich"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every dotted name a file imports, at any depth: inside functions, too, but not for type checkers alone."""
    names = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
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


def check_no_cycle(folder: Path, prefix: str = "") -> None:
    """Raise graphlib.CycleError where modules of a folder import each other; `prefix` of how they name each other."""
    modules = {module_name(path): path for path in folder.rglob("*.py")}
    short = {name.removeprefix(prefix): name for name in modules}
    graph = {}
    for name, path in modules.items():
        found = {short[each] for each in imports(path) if each in short} - {name}
        # `from package import module` needs the package's __init__ only to find the module.
        graph[name] = {each for each in found if not any(other.startswith(f"{each}.") for other in found)}
    graphlib.TopologicalSorter(graph).prepare()


def package_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_only_to_earlier_packages(path):
    package = package_of(path)
    names = imports(path)
    tops = {name.split(".")[0] for name in names}
    packages = {name.split(".")[1] for name in names if name.startswith("gravmap.")} & set(PACKAGES)
    assert not tops & TERMINAL, "only cli/ talks to the terminal"
    assert not tops & {"gravmap_cli", "cli"}
    if package in PACKAGES:
        later = set(PACKAGES[PACKAGES.index(package) + 1 :])
        assert not packages & later
        # What uses several of the packages is not for one of them to use.
        assert not {name.split(".")[1] for name in names if name.startswith("gravmap.")} & OTHERS
    elif package == "synthetic":
        assert packages <= {"gravity", "geology"}
    elif package not in JOINING:
        assert not packages, "the foundations import no package"
    if package in TORCH_PACKAGES:
        assert not tops & RASTERS
        assert not packages & RASTER_PACKAGES, "torch packages and raster packages do not import each other"
    if package == "download":
        assert not tops & RASTERS, "downloading handles files, not what is in them"
    if package in RASTER_PACKAGES - {"download"}:
        assert "download" not in packages, "these packages are given files and do not download them"
    # Tiles as a PyTorch dataset; gravmap.tiling loads the module only when the class is used.
    if package not in TORCH_PACKAGES | JOINING | {"mapping"} and path != PACKAGE / "tiling" / "tile_dataset.py":
        assert not tops & {"torch", "torchvision"}


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in ("data", "sampling")], ids=str)
def test_datasets_and_crops_do_not_use_training_or_evaluation(path):
    later = {"training", "evaluation", "calibration"} | ({"sampling"} if path.parent.name == "data" else set())
    used = {name.split(".")[2] for name in imports(path) if name.startswith("gravmap.learning.")}
    assert not used & later


def test_the_rule_catches_a_planted_import(tmp_path, monkeypatch):
    planted = tmp_path / "gravmap" / "gravity" / "bad.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("from gravmap.tiling import windows\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "gravmap")
    with pytest.raises(AssertionError):
        test_imports_point_only_to_earlier_packages(planted)


@pytest.mark.parametrize(("folder", "prefix"), [("gravmap", ""), ("cli", ""), ("benchmarks", "benchmarks.")])
def test_no_modules_import_each_other(folder, prefix):
    check_no_cycle(ROOT / folder, prefix)


def test_a_cycle_through_a_function_is_seen(tmp_path, monkeypatch):
    package = tmp_path / "gravmap"
    package.mkdir()
    (package / "one.py").write_text("from gravmap.two import g\n")
    (package / "two.py").write_text("def f():\n    from gravmap import one\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(graphlib.CycleError, match=r"gravmap\.one"):
        check_no_cycle(package)


def loaded_by(code: str) -> set[str]:
    probe = f"import sys\n{code}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HELP = "import gravmap_cli\ntry:\n    gravmap_cli.gravmap(['--help'])\nexcept SystemExit:\n    pass"


def test_help_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "xarray", "rasterio", "geopandas", "numpy", "scipy", "matplotlib", "rich"}
    assert not loaded_by(HELP) & {*heavy, "pystac"}


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


def test_raster_packages_load_without_torch():
    assert "torch" not in loaded_by(
        "import gravmap.download, gravmap.gravity, gravmap.geology, gravmap.tiling, gravmap.synthetic"
    )


def test_torch_packages_load_without_raster_packages():
    # Nor what only files and pictures need: training steps can be measured with torch, numpy and scipy alone.
    loaded = loaded_by("import gravmap.network, gravmap.learning, gravmap.search")
    assert not loaded & (RASTERS | {"safetensors", "matplotlib", "pyproj", "pandas"})
