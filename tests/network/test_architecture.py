"""Architecture records: validation and the round trip through JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gravmap.errors import OptionError
from gravmap.network.architecture import Architecture
from gravmap.network.presets import cycle, reference, small, tiny


@pytest.mark.parametrize("make", [reference, small, tiny])
def test_json_gives_the_same_record_back(make):
    record = make()
    again = Architecture.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again == record
    assert hash(again) == hash(record)


def test_scales_and_widths_follow_the_path():
    record = reference()
    assert [record.scale(2, cell) for cell in (0, 3, 4, 11, 12, 21)] == [0, 0, 1, 1, 2, 2]
    # chi cycles through 4, 6, 8, 6; the width is chi * 8, 16, 32 at the scale of the cell's output
    assert [record.width(2, cell) for cell in (0, 1, 2, 3)] == [32, 48, 64, 48]
    assert [record.width(2, cell) for cell in (4, 12, 14)] == [4 * 16, 4 * 32, 8 * 32]
    assert record.width(0, 21) == 48


def test_branches_share_cells_until_their_paths_part():
    record = reference()
    assert record.shared_cells(1, 0) == 8
    assert record.shared_cells(2, 0) == 4
    assert record.shared_cells(2, 1) == 4
    assert reference(share_prefix=False).shared_cells(1, 0) == 0
    # another operator in cell 2 of one branch parts them there
    ops = list(record.ops)
    ops[1] = (*record.ops[1][:2], "conv", *record.ops[1][3:])
    assert dataclasses.replace(record, ops=tuple(ops)).shared_cells(1, 0) == 2


def test_two_branches_on_one_path_share_everything():
    assert cycle(3, ((), ()), ("conv",), (2,)).shared_cells(1, 0) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": ()}, "0 branches"),
        ({"paths": ((),) * 4}, "4 branches"),
        ({"paths": ((), (2,))}, "2 paths"),
        ({"paths": ((), (2,), (3, 1))}, "rising"),
        ({"paths": ((), (2,), (1, 5))}, "below 5"),
        ({"paths": ((), (2,), (0, 1, 2))}, "rising"),
        ({"depth": 4}, "4 "),
        ({"depth": 0}, "at least one"),
        ({"ops": (("conv",) * 5, ("conv",) * 5, ("conv", "conv", "warp", "conv", "conv"))}, "warp"),
        ({"ops": (("conv",) * 5, ("conv",) * 5, ("conv", "skip", "skip", "conv", "conv"))}, "cells 1 to 2"),
        ({"chis": ((2,) * 5, (2,) * 5, (2, 2, 0, 2, 2))}, "whole numbers"),
        ({"chis": ((2,) * 5, (2,) * 5, (2, 2, 2.5, 2, 2))}, "whole numbers"),
        ({"chis": ((2,) * 5, (2,) * 5, (2, 2, True, 2, 2))}, "whole numbers"),
        ({"head": (8, 8)}, "three widths"),
        ({"encoder": (8, -8, 8)}, "whole numbers"),
        ({"arm_norm": "group"}, "group"),
    ],
)
def test_an_inconsistent_architecture_is_refused(change, message):
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(tiny(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown fields colour"),
        ({"ops": None}, "ops is None, not a list of lists of operators"),
        ({"paths": 3}, "paths is 3, not a list of lists"),
        ({"paths": [[], ["2"], [1, 3]]}, "paths is"),
        ({"head": "abc"}, "head is 'abc', not three whole numbers"),
        ({"depth": "5"}, "depth is '5', not a whole number"),
        ({"arm": 1}, "arm is 1, not true or false"),
        ({"deform": "yes"}, "deform is 'yes', not true or false"),
        ({"arm_norm": None}, "arm_norm is None"),
    ],
)
def test_an_invalid_record_is_refused(change, message):
    with pytest.raises(OptionError, match=message):
        Architecture.from_dict(tiny().to_dict() | change)


def test_a_missing_field_is_named():
    record = tiny().to_dict()
    del record["chis"]
    with pytest.raises(OptionError, match="missing fields chis"):
        Architecture.from_dict(record)
