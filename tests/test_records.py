"""Records: what is no sound JSON or TOML of the right shape is refused with file and key, everything else is kept."""

import json
from dataclasses import dataclass, field
from typing import NotRequired

import pytest
from typing_extensions import TypedDict

from gravmap.errors import InputError
from gravmap.records import Count, Pair, check_record, parse_record, read_record, record


@record
class Part(TypedDict):
    size: float
    names: NotRequired[list[str]]


@record
class Whole(TypedDict):
    parts: list[Part]
    count: NotRequired[Count]
    pair: NotRequired[Pair]


@record
@dataclass(frozen=True)
class Settings:
    shape: tuple[int, int]
    weights: dict[str, float] = field(default_factory=dict)


def refused(text, kind=Whole, **options):
    with pytest.raises(InputError) as caught:
        parse_record(text, kind, "x.json", "Make it again.", **options)
    assert caught.value.hint == "Make it again."
    return caught.value.message


def test_a_sound_record_comes_back_with_the_keys_of_other_versions():
    stored = {"parts": [{"size": 1, "colour": {"deep": [None]}}], "pair": [1, 2.5], "later": "x"}
    assert check_record(stored, Whole, "x.json") == stored
    assert check_record({"shape": [2, 3], "later": 1}, Settings, "x.json") == Settings((2, 3))
    assert parse_record("widths = [1, 2]\n", dict[str, list[float]], "x.toml", toml=True) == {"widths": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (3, "its content is 3; it should be a table of keys."),
        ([], "its content is a list"),
        ({}, "parts is missing."),
        ({"parts": None}, "parts is null"),
        ({"parts": [{"size": "1"}]}, 'parts[0].size is "1"; it should be a number.'),
        ({"parts": [{"size": True}]}, "parts[0].size is true"),
        ({"parts": [{"size": float("nan")}]}, "parts[0].size is NaN; it should be a finite number."),
        ({"parts": [{"size": 1, "names": ["a", 2]}]}, "parts[0].names[1] is 2"),
        ({"parts": [], "count": -1}, "count is -1; it should be greater than or equal to 0."),
        ({"parts": [], "count": 1.5}, "count is 1.5; it should be a whole number."),
        ({"parts": [], "pair": [1]}, "it should have at least 2 items"),
        ({"parts": [], "later": 10**40}, "later is a whole number beyond 64 bits."),
        ({"parts": [], "later": ["a\0b"]}, "later[0] holds a character that no text has."),
        ({"parts": [], "later": {"\ud800": 1}}, "a key of later holds a character that no text has."),
    ],
)
def test_a_wrong_value_is_named_with_its_key(stored, words):
    message = refused(json.dumps(stored))
    assert message.startswith("x.json: ")
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 6000, "nested too deeply"),
        ("[" * 300 + "]" * 300, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "a number of thousands of digits"),
        ('{"a": ', "is not valid JSON"),
        ("", "is not valid JSON"),
    ],
)
def test_text_that_is_no_record_is_refused(text, words):
    assert words in refused(text)
    assert refused(f"a = {text}", toml=True)


def test_dataclasses_are_checked_without_conversion():
    assert "shape[1]" in refused('{"shape": [1, "2"]}', Settings)
    assert "weights.a" in refused('{"shape": [1, 2], "weights": {"a": null}}', Settings)


def test_files_that_cannot_be_records_are_refused_by_name(tmp_path):
    path = tmp_path / "x.toml"
    with pytest.raises(InputError, match=r"x\.toml is missing\.\n`gravmap tile` makes it\."):
        read_record(path, Whole, "gravmap tile")
    path.write_bytes(b"\xef\xbb\xbfparts = []\n")  # with the mark that Windows editors put first
    assert read_record(path, Whole) == {"parts": []}
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_record(path, Whole)
    with pytest.raises(InputError, match="is not a file"):
        read_record(tmp_path, Whole)
    with path.open("wb") as stream:
        stream.truncate(1 << 27)
    with pytest.raises(InputError, match="too large"):
        read_record(path, Whole)


def test_a_byte_order_mark_is_left_out():
    assert parse_record('\ufeff{"a": 1}', dict[str, int], "text") == {"a": 1}
    assert parse_record("\ufeffa = 1", dict[str, int], "text", toml=True) == {"a": 1}
