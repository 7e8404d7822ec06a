"""The density table: complete, sourced, and refused when it is not."""

import tomllib
from importlib import resources

import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.synthetic import load_rocks

OWN = resources.files("gravmap.synthetic").joinpath("rocks.toml").read_text(encoding="utf-8")


def test_own_table_is_complete_and_within_published_bounds():
    rocks = load_rocks()
    assert rocks.names[1:3] == ("Archean", "Proterozoic")
    assert np.isfinite(rocks.mean[1:]).all()
    # Smithson 1971: means of metamorphic terrains lie between 2700 and 2860.
    assert 2700 <= rocks.mean[2] <= rocks.mean[1] <= 2860
    # Granite is lighter than what it intrudes, and sandstone lighter still.
    assert rocks.mean[9] < rocks.mean[10] < rocks.mean[1:8].min()


def test_every_number_names_its_source():
    table = tomllib.loads(OWN)
    for part in (
        *table["class"],
        *(table[name] for name in ("reference", "lens", "ophiolite", "basement", "cover", "moho")),
    ):
        assert part["source"], part


def test_own_file_can_be_given(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(OWN.replace("mean = 2635.0", "mean = 2600.0"), encoding="utf-8")
    assert load_rocks(path).mean[10] == 2600


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("index = 10", "index = 11"), "class 11"),
        (("index = 10", "index = 9"), "no class 10"),
        (("mean = 2635.0", "mean = 2.635"), "outside 1000"),
        (("spread = 25.0", "spread = -25.0"), "negative"),
        (("[moho]", "[mohorovicic]"), "moho"),
        (("mean = 2635.0", "mean = "), "readable"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, change, says):
    path = tmp_path / "wrong.toml"
    path.write_text(OWN.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=says):
        load_rocks(path)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="readable"):
        load_rocks(tmp_path / "none.toml")
