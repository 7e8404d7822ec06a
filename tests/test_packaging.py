"""What is written twice, because conda and Docker do not read pyproject.toml, agrees with it."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BOUNDS = dict(re.fullmatch(r"([\w.-]+)(.*)", each).groups() for each in PROJECT["dependencies"])
NAMES_OF_CONDA = {"pytorch": "torch", "netcdf4": "netCDF4"}


def test_conda_has_the_bounds_of_pip():
    lines = re.findall(r"^  - ([\w-]+)([<>=].*)$", (ROOT / "environment.yml").read_text(), flags=re.MULTILINE)
    found = {NAMES_OF_CONDA.get(name, name): bound for name, bound in lines}
    assert found.pop("python").split(",")[0] == PROJECT["requires-python"]
    assert len(found) >= 9
    assert {name: BOUNDS[name] for name in found} == found


@pytest.mark.parametrize(("file", "options"), [("Dockerfile", "$TORCH_OPTIONS "), ("docs/install.md", " OPTIONS")])
def test_pytorch_installed_first_has_the_bounds_of_pip_and_takes_its_options(file, options):
    bounds = f'"torch{BOUNDS["torch"]}" "torchvision{BOUNDS["torchvision"]}"'
    (line,) = [each for each in (ROOT / file).read_text().splitlines() if bounds in each]
    assert options in line
    assert options.strip(" $") in (ROOT / "docs/install.md").read_text()


def test_docker_copies_what_the_package_is_built_from():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "gravmap", "cli"} <= kept
    assert all((ROOT / name).exists() for name in kept)
