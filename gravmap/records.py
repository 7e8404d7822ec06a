"""Reading of JSON and TOML files: one function checks size, depth, numbers, text and types, and names the file and key.

The types are dataclasses and typed dictionaries with the decorator :func:`record`; pydantic checks them. Keys that a
type does not name are kept in a typed dictionary, because another version may have written them. Here are the types of
files that several packages read; the others are beside the functions that read them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypeVar

from typing_extensions import TypedDict, is_typeddict

from gravmap.errors import GravmapError, InputError

try:
    from annotated_types import Ge as Ge
    from annotated_types import Gt as Gt
    from annotated_types import Le as Le
    from annotated_types import Len as Len
except ModuleNotFoundError:  # pydantic, which reads these, brings them; training on a bare machine reads no record
    Ge = Gt = Le = Len = lambda *bounds: bounds  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_MAX_BYTES = 1 << 26
_MAX_DEPTH = 64
_MAX_WHOLE = 2**63 - 1  # the largest whole number that an array or a file of another program holds

Count = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
Pair = Annotated[list[float], Len(2, 2)]
Bounds = Annotated[list[float], Len(4, 4)]


def record(cls: type[T]) -> type[T]:
    """Class decorator of a dataclass or typed dictionary that is read from a file.

    Numbers are finite, nothing is converted but a whole number to a float, and unknown keys are accepted.
    """
    extra = "ignore" if dataclasses.is_dataclass(cls) else "allow"
    cls.__pydantic_config__ = {"strict": True, "allow_inf_nan": False, "extra": extra}  # type: ignore[attr-defined]
    return cls


def read_record(path: Path, kind: type[T], made_by: str = "", *, hint: str | None = None, toml: bool = False) -> T:
    """Read a JSON or TOML file (by its suffix) whose content has the given type.

    Parameters
    ----------
    path : Path
        The file, in UTF-8. A name in ``.toml`` is TOML, all others JSON.
    kind : type
        A type with the decorator :func:`record`, or one of plain types such as ``dict[str, float]``.
    made_by : str
        The command that makes the file, for the error message; empty for a file that the user writes.
    hint : str, optional
        What to do where the file is invalid, instead of running that command.
    toml : bool
        Read it as TOML whatever its name.

    Returns
    -------
    object of type `kind`
        As read, with the keys of a typed dictionary that its type does not name.

    Raises
    ------
    InputError
        The file is missing, not readable, too large, not valid JSON or TOML, nested too deeply, or holds a value that
        its type does not allow.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.records import read_record
    >>> path = Path(tempfile.mkdtemp(), "widths.json")
    >>> _ = path.write_text('{"basin": [1.5, "two"]}')
    >>> read_record(path, dict[str, list[float]], "gravmap train")
    Traceback (most recent call last):
    ...
    gravmap.errors.InputError: ...widths.json: basin[1] is "two"; it should be a number.
    `gravmap train` makes it again.
    """
    hint = hint or (f"`{made_by}` makes it again." if made_by else "Correct the file.")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is not a file.", f"`{made_by}` makes it." if made_by else None)
        if found.st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large: {found.st_size / 1e6:.0f} MB for a file of settings.", hint)
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is missing.", f"`{made_by}` makes it." if made_by else None) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error}.", hint) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the permissions.") from None
    return parse_record(text, kind, str(path), hint, toml=toml or path.suffix == ".toml")


def parse_record(text: Any, kind: type[T], where: str, hint: str | None = None, *, toml: bool = False) -> T:
    """Check the text of a JSON or TOML record, such as an attribute of a file, as :func:`read_record` does.

    Parameters
    ----------
    text : str
        JSON, or TOML with `toml`.
    kind : type
        As in :func:`read_record`.
    where : str
        What the text is, for the error message: a file's name, or "the attribute NAME of FILE".
    hint : str, optional
        What to do where it is invalid.

    Raises
    ------
    InputError
        As :func:`read_record`.
    """
    language = "TOML" if toml else "JSON"
    if not isinstance(text, str):
        raise InputError(f"{where} is not text.", hint)
    text = text.removeprefix("\ufeff")  # editors on Windows begin with it
    try:
        # A date of TOML is text here, as in JSON.
        value = json.loads(json.dumps(tomllib.loads(text), default=str)) if toml else json.loads(text)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply.", hint) from None
    except ValueError as error:
        # Of a number with thousands of digits, which Python refuses to convert, no position is known.
        reason = "it holds a number of thousands of digits" if "digits" in str(error) else str(error)
        raise InputError(f"{where} is not valid {language}: {reason.rstrip('.')}.", hint) from None
    return check_record(value, kind, where, hint)


def check_record(value: Any, kind: type[T], where: str, hint: str | None = None) -> T:
    """Check a value read from JSON or TOML, as :func:`read_record` does.

    Raises
    ------
    InputError
        As :func:`read_record`.
    """
    from pydantic import ValidationError

    _check_plain(value, where, hint)
    try:
        # As JSON: there lists stand for tuples and objects for dataclasses without any other conversion.
        checked: T = _adapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        raise InputError(f"{where}: {_describe(error.errors(include_url=False)[0])}", hint) from None
    except GravmapError as error:
        raise InputError(f"{where}: {error.message}", error.hint or hint) from None
    # A dictionary as it was read: hashes are taken of some, which a 1 made 1.0 would change.
    as_read: T = value
    return checked if dataclasses.is_dataclass(kind) else as_read


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if kind not in _ADAPTERS:
        typed = is_typeddict(kind) or dataclasses.is_dataclass(kind)  # these have the settings of `record`
        _ADAPTERS[kind] = TypeAdapter(kind, config=None if typed else {"strict": True, "allow_inf_nan": False})
    return _ADAPTERS[kind]


def _check_plain(value: Any, where: str, hint: str | None) -> None:
    """Refuse what no record needs and what fails far from here: deep nesting, huge numbers, text that is no text."""
    level = [("", value)]
    for _ in range(_MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for key, each in level:
            if isinstance(each, dict):
                for name in each:
                    _check_text(name, where, f"a key of {key}" if key else "a key", hint)
                below += [(f"{key}.{name}" if key else str(name), one) for name, one in each.items()]
            elif isinstance(each, list):
                below += [(f"{key}[{place}]", one) for place, one in enumerate(each)]
            elif isinstance(each, str):
                _check_text(each, where, key or "it", hint)
            elif isinstance(each, int) and abs(each) > _MAX_WHOLE:
                raise InputError(f"{where}: {key or 'it'} is a whole number beyond 64 bits.", hint)
        if not below:
            return
        level = below
    raise InputError(f"{where} is nested too deeply: more than {_MAX_DEPTH} levels.", hint)


def _check_text(text: str, where: str, key: str, hint: str | None) -> None:
    if "\0" in text or (not text.isascii() and re.search("[\ud800-\udfff]", text)):
        raise InputError(f"{where}: {key[:80]} holds a character that no text has.", hint)


def _describe(error: Any) -> str:
    """The first fault that pydantic found, in words: the key, its value, and what it should be."""
    key = ""
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if error["type"] == "missing":
        return f"{key} is missing."
    wanted = str(error["msg"]).replace("dictionary", "table").replace(" after validation", "")
    wanted = re.sub(r"^(Input|List|Tuple|String|Dictionary) should", "it should", wanted)
    wanted = re.sub(r"an object|an instance of \w+|an? (valid )?(table|object)", "a table of keys", wanted)
    wanted = wanted.replace("a valid integer", "a whole number").replace("a valid number", "a number")
    wanted = (
        wanted.replace("a valid array", "a list")
        .replace("a valid string", "text")
        .replace("a valid boolean", "true or false")
    )
    return f"{key or 'its content'} is {_shown(error['input'])}; {wanted[0].lower()}{wanted[1:]}."


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


@record
class ChannelRecord(TypedDict):
    """One input channel of a network in ``model.json``; see `InputChannels.to_list`."""

    kind: str
    field: NotRequired[str]
    unit: NotRequired[str]
    spread: NotRequired[Positive]
    centre: NotRequired[float]
    masked: NotRequired[bool]
    low: NotRequired[float]
    high: NotRequired[float]
    colours: NotRequired[list[Annotated[list[float], Len(3, 3)]]]


@record
class ClassRecord(TypedDict):
    """One class of a map or network."""

    index: Annotated[int, Ge(0), Le(255)]
    name: str
    colour: NotRequired[Annotated[str, "#RRGGBB"]]
    age: NotRequired[str | None]


@record
class SourceRecord(TypedDict):
    """One input file: its role, name, SHA-256 and provenance, as far as they are known."""

    role: NotRequired[str]
    path: NotRequired[str]
    file: NotRequired[str]
    sha256: NotRequired[str]
    found_at: NotRequired[str]
    read_as: NotRequired[dict[str, str]]
    attributes: NotRequired[dict[str, str]]
    channels: NotRequired[dict[str, str]]


RESAMPLED_FROM = "resampled_from_deg"
"""Attribute of a grid that was refined, and key of the recipe of its fields: the node spacing that it had, degrees."""

STATED_HEIGHT = "stated_height_m"
"""Attribute and key alike: the height that a file states, metres, where the user gave another."""


@record
class FieldRecipe(TypedDict, total=False):
    """How the fields of ``fields.nc`` were made; see :func:`gravmap.gravity.fields_file.field_recipe`."""

    quantity: str
    unit: str
    method: str
    operator_version: int
    input_height_m: float | None
    heights_m: list[float]
    spacing_deg: Pair
    resampled_from_deg: Pair
    stated_height_m: float
    channels: list[str]
    by_channel: dict[str, dict[str, Any]]


@record
class RunSplit(TypedDict):
    """Settings of the split that a run was trained on; empty for simulated crusts."""

    name: NotRequired[str]
    kind: NotRequired[str]
    fold: NotRequired[Count]
    folds: NotRequired[Count]
    block_deg: NotRequired[Pair]
    buffer_deg: NotRequired[float]
    seed: NotRequired[int]


@record
class PriorRecord(TypedDict):
    """The prior that simulated crusts were drawn from."""

    name: str
    sha256: str
    text: str


@record
class CrustsRecord(TypedDict):
    """``taught_on`` of a run: the simulated crusts that it was trained on; empty if it was trained on a region."""

    on: NotRequired[str]
    prior: NotRequired[PriorRecord]
    count: NotRequired[Count]
    shape: NotRequired[Annotated[list[Count], Len(2, 2)]]
    channels: NotRequired[list[str]]
    seeds: NotRequired[dict[str, list[Count]]]


@record
class CoverScores(TypedDict):
    """Scores of the network and of baselines under the cover of a range of distances or thicknesses."""

    nodes: Count
    network: NotRequired[dict[str, float | None]]
    nearest_outcrop: NotRequired[dict[str, float | None]]
    label_diffusion: NotRequired[dict[str, float | None]]
    foreign_gravity: NotRequired[dict[str, float | None]]
    network_likeliest: NotRequired[dict[str, float | None]]


@record
class UnderCover(TypedDict, total=False):
    """Scores under the cover of simulated crusts."""

    strata: dict[str, CoverScores]
    cover: dict[str, CoverScores]
    crusts: list[Any]


@record
class ThicknessScore(TypedDict, total=False):
    """Scores of the thickness of the cover at some nodes of test crusts; None where it is not defined."""

    nodes: Count
    rmse_m: float | None
    bias_m: float | None
    rank_correlation: float | None
    coverage: float | None


@record
class ThicknessScores(TypedDict):
    """Scores of the thickness of the cover on test crusts; beside these, those by stratum."""

    all: ThicknessScore


@record
class WindowScoreRecord(TypedDict):
    """Scores of whole held-out windows, each with the same weight (`gravmap.learning.evaluation.window_scores`)."""

    windows: Count
    pa: float | None
    mpa: float | None
    mpa_all_classes: float | None
    miou: float | None
    fwiou: float | None


@record
class ScoreRecord(TypedDict, total=False):
    """Scores on the tuning or test blocks."""

    places: Count
    pa: float | None
    mpa: float | None
    mpa_all_classes: float | None
    miou: float | None
    fwiou: float | None
    kappa: float | None
    macro_f1: float | None
    absent: list[str]
    per_class: dict[str, dict[str, float | None]]
    confusion: list[list[Count]]
    loss: float | None
    under_cover: UnderCover
    thickness: ThicknessScores
    by_window: WindowScoreRecord


@record
class ScoresRecord(TypedDict, total=False):
    """Content of a run's ``scores.json``."""

    tune: ScoreRecord | None
    test: ScoreRecord | None
    best_epoch: Count
    epochs: Count
    precision: str
    split: RunSplit
    seconds: float


@record
class PretrainedRecord(TypedDict):
    """``recipe.init`` of a run: the run whose weights it started from."""

    run: str
    folder: str
    weights_sha256: str
    inputs: list[ChannelRecord]
    classes: list[ClassRecord]
    class_table: NotRequired[str]
    field_recipe: FieldRecipe
    scales_deg: NotRequired[list[float]]
    taught_on: NotRequired[CrustsRecord]


@record
class OriginRecord(TypedDict, total=False):
    """What is read of :class:`PretrainedRecord` where a run is described."""

    run: str
    taught_on: CrustsRecord


@record
class RecipeRecord(TypedDict, total=False):
    """What is read of a run's ``recipe``, all of which is a :class:`gravmap.learning.TrainConfig`."""

    recipe: str
    init: OriginRecord | None
    from_tiles: bool
    epochs: int
    context: str | None


@record
class ModelRecord(TypedDict, total=False):
    """Content of a run's ``model.json``; :class:`gravmap.learning.training.checkpoint.ModelSpec` describes the keys.

    Each key may be missing here: what describes a run reads records of every version, what runs its network does not.
    """

    model: str
    architecture: dict[str, Any]
    inputs: list[ChannelRecord]
    classes: Annotated[list[ClassRecord], Len(1, 254)]
    tile_size_px: Annotated[int, Ge(1), Le(1 << 16)]
    scales_deg: list[Positive]
    field_recipe: FieldRecipe
    split: RunSplit
    seed: int
    recipe: RecipeRecord
    versions: dict[str, str]
    sources: list[SourceRecord]
    scores: dict[str, ScoreRecord | None]
    legend_toml: str
    region_wsen: list[float]
    area_sha256: str
    taught_on: CrustsRecord
    format: int
    tensors_sha256: str
    description_sha256: str
    weights_sha256: str
    files: dict[str, str]


_OF_NETWORK = ("model", "architecture", "inputs", "classes", "tile_size_px", "scales_deg", "field_recipe", "split")
_COMPLETE = (*_OF_NETWORK, "seed", "area_sha256", "weights_sha256")


def read_model(folder: Path, *, complete: bool = False) -> ModelRecord:
    """Read ``model.json`` of a run.

    Parameters
    ----------
    folder : Path
        The run.
    complete : bool
        Refuse a record that lacks what a network needs to be run: architecture, inputs, classes, windows, split.

    Raises
    ------
    InputError
        As :func:`read_record`, or the record is not complete.
    """
    path = folder / "model.json"
    found = read_record(path, ModelRecord, "gravmap train")
    lacking = [key for key in _COMPLETE if key not in found] if complete else []
    if lacking:
        raise InputError(f"{path} lacks {', '.join(lacking)}.", "`gravmap train` makes it again.")
    return found
