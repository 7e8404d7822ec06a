"""Priors: distributions of the parameters of crusts, read from TOML files that give the source of each number."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from scipy.special import ndtr, ndtri

from gravmap.errors import InputError, OptionError
from gravmap.records import parse_record
from gravmap.synthetic.geometry import RandomStreams
from gravmap.synthetic.setting import CLASSES, RockTable, Setting
from gravmap.workspace import check_name

FORMS = "a number, [low, high], {log = [low, high]}, {normal = [mean, sd]} or {lognormal = [median, sigma]}"
_NORMAL = ("normal", "lognormal")


@dataclass(frozen=True)
class Draw:
    """The distribution of one quantity.

    Attributes
    ----------
    kind : str
        ``fixed``; ``uniform`` or ``log`` (uniform in the logarithm) between `low` and `high`; ``normal`` or
        ``lognormal`` around `middle`, truncated at `low` and `high`.
    middle : float
        Mean, median, or middle of the range.
    width : float
        Standard deviation (of a lognormal: of the natural logarithm); 0 for the other kinds.
    low, high : float
        Smallest and largest possible value.
    """

    kind: str
    middle: float
    width: float
    low: float
    high: float

    def at(self, probability: float) -> float:
        """Quantile of the distribution at a probability (0 to 1)."""
        if self.kind == "fixed":
            return self.middle
        if self.kind == "uniform":
            value = self.low + probability * (self.high - self.low)
        elif self.kind == "log":
            value = self.low * (self.high / self.low) ** probability
        else:
            inside = [float(ndtr(self._standard(end))) for end in (self.low, self.high)]
            normal = float(ndtri(inside[0] + probability * (inside[1] - inside[0])))
            value = self.middle + self.width * normal
            if self.kind == "lognormal":
                value = self.middle * math.exp(self.width * normal)
        return min(max(value, self.low), self.high)

    def _standard(self, value: float) -> float:
        """Standardised distance of a value from the middle."""
        if self.kind == "normal":
            return (value - self.middle) / self.width
        return math.log(value / self.middle) / self.width if value > 0 else -math.inf

    def to_dict(self) -> dict[str, Any]:
        """As in the file of a prior, with the bounds."""
        if self.kind == "fixed":
            return {"fixed": self.middle}
        if self.kind in _NORMAL:
            return {self.kind: [self.middle, self.width], "low": self.low, "high": self.high}
        return {self.kind: [self.low, self.high]}


def read_draw(written: Any, least: float, most: float) -> Draw:
    """Parse a quantity of a prior file.

    Parameters
    ----------
    written : number, list of two, or dict
        The value from the TOML file.
    least, most : float
        Valid range. A number or a range must lie inside; a normal or lognormal distribution is truncated there.

    Returns
    -------
    Draw

    Raises
    ------
    ValueError
        The value has none of the known forms, low is not below high, or it is outside the valid range.
    """
    if _is_number(written):
        draw = Draw("fixed", float(written), 0.0, float(written), float(written))
    elif isinstance(written, list):
        draw = _between("uniform", written)
    elif isinstance(written, dict) and set(written) == {"log"}:
        draw = _between("log", written["log"])
    elif (
        isinstance(written, dict)
        and len(set(written) & set(_NORMAL)) == 1
        and set(written) <= {*_NORMAL, "low", "high"}
    ):
        draw = _around(written, least, most)
    else:
        raise ValueError(f"is {written!r}; expected {FORMS}")
    if draw.low < least or draw.high > most:
        found = f"{draw.low:g}" if draw.low == draw.high else f"{draw.low:g} to {draw.high:g}"
        raise ValueError(f"is {found}, outside {least:g} to {most:g}")
    return draw


def _between(kind: str, pair: Any) -> Draw:
    low, high = _pair(pair)
    if low >= high:
        raise ValueError(f"is a range from {low:g} to {high:g}; the first number must be the smaller one")
    if kind == "log":
        if low <= 0:
            raise ValueError(f"is a logarithmic range from {low:g}; it must start above 0")
        return Draw(kind, math.sqrt(low * high), 0.0, low, high)
    return Draw(kind, 0.5 * (low + high), 0.0, low, high)


def _around(written: dict[str, Any], least: float, most: float) -> Draw:
    (kind,) = set(written) & set(_NORMAL)
    middle, width = _pair(written[kind])
    ends = [written.get("low", least), written.get("high", most)]
    if not all(_is_number(end) for end in ends):
        raise ValueError(f"has bounds {ends} that are not numbers")
    low, high = float(ends[0]), float(ends[1])
    if width <= 0 or (kind == "lognormal" and middle <= 0):
        raise ValueError(f"is {kind} around {middle:g} with a width of {width:g}; both must be above 0")
    if not low <= middle <= high or low == high:
        raise ValueError(f"has its middle {middle:g} outside its bounds {low:g} to {high:g}")
    return Draw(kind, middle, width, low, high)


def _pair(pair: Any) -> tuple[float, float]:
    if not (isinstance(pair, list) and len(pair) == 2 and all(_is_number(end) for end in pair)):
        raise ValueError(f"is {pair!r}; two numbers are needed")
    return float(pair[0]), float(pair[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


PRIORS = ("central-asia", "wide")
"""Names of the priors in the package."""

# Table and key in the file -> field of Setting or RockTable, and its valid range.
_SETTING: dict[str, tuple[str, float, float]] = {
    "place.latitude_deg": ("latitude_deg", -70, 70),
    "strike.warp_km": ("warp_km", 0, 150),
    "strike.warp_length_km": ("warp_length_km", 100, 1000),
    "strike.fault_spacing_km": ("fault_spacing_km", 50, 3000),
    "strike.fault_shift_km": ("fault_shift_km", 15, 200),
    "belts.width_km": ("belt_width_km", 15, 160),
    "belts.sigma": ("belt_sigma", 0, 1),
    "belts.wiggle_km": ("belt_wiggle_km", 0, 30),
    "belts.base_km": ("belt_base_km", 2.5, 11),
    "belts.base_spread_km": ("belt_base_spread_km", 0, 4),
    "uplift.length_km": ("uplift_length_km", 15, 200),
    "uplift.throw": ("uplift_throw", 0, 2),
    "ages.fold_km": ("fold_km", 5, 80),
    "ages.fold_stretch": ("fold_stretch", 1, 8),
    "ages.belts": ("age_of_belts", 0, 3),
    "ages.on_uplift": ("age_on_uplift", 0, 2),
    "granites.half_axis_km": ("granite_km", 3, 30),
    "granites.sigma": ("granite_sigma", 0, 1),
    "granites.thickness": ("granite_thickness", 0.2, 1.5),
    "basics.half_axis_km": ("basic_km", 1, 20),
    "basics.fault_km": ("basic_fault_km", 0.5, 50),
    "basins.permian_km": ("permian_km", 0.2, 5),
    "basins.length_km": ("basin_length_km", 8, 80),
    "basins.on_uplift": ("basin_on_uplift", 0, 2),
    "cover.share": ("cover_share", 0, 1),
    "cover.deepest_km": ("cover_deepest_km", 0.2, 10),
    "cover.cenozoic_share": ("cenozoic_share", 0, 1),
    "cover.cenozoic_variation": ("cenozoic_variation", 0, 1),
    "cover.texture": ("cover_texture", 0, 0.6),
    "cover.on_uplift": ("cover_on_uplift", 0, 1),
    "moho.depth_km": ("moho_depth_km", 35, 75),
    "moho.relief_km": ("moho_relief_km", 0, 8),
    "moho.length_km": ("moho_length_km", 60, 400),
    "moho.root_km": ("moho_root_km", 0, 12),
    "field.low_pass_km": ("low_pass_km", 0, 200),
    "field.noise_mgal": ("noise_mgal", 0, 20),
    "field.noise_length_km": ("noise_length_km", 2, 100),
}
_LIGHTEST, _DENSEST = 1500.0, 3500.0  # kg/m3, valid range of rock densities
_ROCKS: dict[str, tuple[str, float, float]] = {
    "reference.density": ("reference", 2400, 2900),
    "lens.excess": ("lens_excess", -300, 500),
    "lens.smallest_share": ("lens_smallest", 0, 0.5),
    "lens.largest_share": ("lens_largest", 0, 0.5),
    "basement.mean": ("basement_mean", 2400, 3100),
    "basement.spread": ("basement_spread", 0, 200),
    "cover.cenozoic_deficit": ("cenozoic_deficit", 0, 1000),
    "cover.cenozoic_scale_km": ("cenozoic_scale_km", 0.3, 20),
    "cover.mesozoic_deficit": ("mesozoic_deficit", 0, 1000),
    "cover.mesozoic_scale_km": ("mesozoic_scale_km", 0.3, 20),
    "cover.spread": ("cover_spread", 0, 0.5),
    "moho.contrast": ("moho_contrast", 100, 700),
}
_CLASS: dict[str, tuple[float, float]] = {
    "share": (0, 100),
    "mean": (_LIGHTEST, _DENSEST),
    "spread": (0, 200),
}
_CLASS_WORDS = {"index", "name", "stands_for", "source"}
_LIKE = "`gravmap crust` writes a complete one as a template: prior.toml, beside the crust."


@dataclass(frozen=True, eq=False)
class Prior:
    """Distributions of the parameters of crusts (`Setting`).

    Attributes
    ----------
    name, title : str
        Short name, and description.
    draws : dict of str to Draw
        Distributions by ``table.key``; those of classes by ``class.INDEX.key``.
    sources : dict of str to str
        Source of each table and class.
    names : tuple of str
        Names of the classes 1..10.
    text : str
        Content of the TOML file.

    Examples
    --------
    >>> from gravmap.synthetic import load_prior
    >>> prior = load_prior("central-asia")
    >>> prior.draws["cover.share"].kind
    'normal'
    >>> prior.draw(seed=0) == prior.draw(seed=0), prior.draw(seed=0) == prior.draw(seed=1)
    (True, False)
    """

    name: str
    title: str
    draws: dict[str, Draw]
    sources: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def sha256(self) -> str:
        """Hash of all distributions; names, sources and comments do not affect it."""
        numbers = {key: draw.to_dict() for key, draw in sorted(self.draws.items())}
        return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Name, hash, distributions and sources; JSON-serialisable."""
        return {
            "name": self.name,
            "title": self.title,
            "sha256": self.sha256,
            "quantities": {key: draw.to_dict() for key, draw in self.draws.items()},
            "sources": dict(self.sources),
        }

    def typical(self) -> Setting:
        """Parameters in the middle of the prior: each at the mean, median or middle of its range."""
        return self._setting(lambda key, draw: draw.middle)

    def draw(self, seed: int) -> Setting:
        """Draw the parameters of one crust.

        Parameters
        ----------
        seed : int
            Seed, >= 0. Every quantity has an independent random stream: another distribution of one does not change
            the draws of the others.
        """
        streams = RandomStreams(seed)
        return self._setting(lambda key, draw: draw.at(float(streams.stream(f"prior {key}").uniform())))

    def _setting(self, value: Callable[[str, Draw], float]) -> Setting:
        numbers = {key: value(key, draw) for key, draw in self.draws.items()}

        def per_class(key: str) -> tuple[float, ...]:
            return tuple(numbers[f"class.{index}.{key}"] for index in range(1, CLASSES + 1))

        rocks: dict[str, Any] = {name: numbers[key] for key, (name, _, _) in _ROCKS.items()}
        # The two ranges may overlap, so the draws are sorted.
        rocks["lens_smallest"], rocks["lens_largest"] = sorted((rocks["lens_smallest"], rocks["lens_largest"]))
        setting: dict[str, Any] = {name: numbers[key] for key, (name, _, _) in _SETTING.items()}
        weights = per_class("share")
        scale = 100 / sum(weights)
        table = RockTable(mean=per_class("mean"), spread=per_class("spread"), **rocks)
        return Setting(shares_percent=tuple(weight * scale for weight in weights), rocks=table, **setting)


def load_prior(name_or_path: str | Path = "central-asia") -> Prior:
    """Load a prior of the package, or one from a TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        ``central-asia``, ``wide``, or the path of a TOML file with the same tables.

    Returns
    -------
    Prior

    Raises
    ------
    OptionError
        The name is that of no prior and no file.
    InputError
        The file cannot be read, lacks a class or a quantity, or has an unknown key or an invalid value.

    Examples
    --------
    >>> from gravmap.synthetic import load_prior
    >>> from gravmap.synthetic.prior import PRIORS
    >>> PRIORS
    ('central-asia', 'wide')
    >>> load_prior("wide").typical().latitude_deg
    40.5
    """
    if str(name_or_path) in PRIORS:
        home = resources.files("gravmap.synthetic").joinpath("priors", f"{name_or_path}.toml")
        return read_prior(home.read_text(encoding="utf-8"), f"the prior {name_or_path}")
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        near = difflib.get_close_matches(str(path), PRIORS, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise OptionError(
            f"There is no prior {str(path)!r}.{meant}",
            f"Priors are {' and '.join(PRIORS)}; a prior of your own is given by its .toml file.",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"The prior file {path} does not exist.", f"Priors in the package are {' and '.join(PRIORS)}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The prior file {path} cannot be read: {error}.", _LIKE) from None
    return read_prior(text, str(path))


def read_prior(text: str, where: str) -> Prior:
    """Parse the TOML text of a prior; `where` names it in messages.

    Raises
    ------
    InputError
        As `load_prior`.
    """
    table = parse_record(text, dict[str, Any], where, _LIKE, toml=True)
    head = table.pop("prior", None)
    if not isinstance(head, dict) or not isinstance(head.get("name"), str):
        raise InputError(f"{where} has no table [prior] with a name.", _LIKE)
    _refuse_unknown(head, {"name", "title"}, "[prior]", where)
    try:
        check_name(head["name"], "a prior")
    except OptionError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from None
    sources: dict[str, str] = {}
    draws, names = _read_classes(table.pop("class", None), where, sources)
    limits = {key: bounds for key, (_, *bounds) in (_SETTING | _ROCKS).items()}
    tables = {key.split(".")[0] for key in limits}
    _refuse_unknown(table, tables, "the prior", where)
    for name in sorted(tables):
        inner = table.get(name)
        if not isinstance(inner, dict):
            raise InputError(f"{where} has no table [{name}].", _LIKE)
        known = {key.split(".")[1] for key in limits if key.split(".")[0] == name}
        _refuse_unknown(inner, known | {"source"}, f"[{name}]", where)
        sources[name] = str(inner.get("source", ""))
        for key in sorted(known):
            draws[f"{name}.{key}"] = _draw(inner, key, f"[{name}]", limits[f"{name}.{key}"], where)
    if sum(draws[f"class.{index}.share"].high for index in range(1, 8)) <= 0:
        raise InputError(f"In {where}, share is 0 in all of the classes 1 to 7.", "Set at least one above 0.")
    deficit = max(draws[f"cover.{layer}_deficit"].high for layer in ("cenozoic", "mesozoic"))
    lightest = draws["reference.density"].low - deficit * (1 + draws["cover.spread"].high)
    if lightest < 1000:
        raise InputError(
            f"{where} allows a density of the cover of {lightest:.0f} kg/m3 at the surface, too low for sediment.",
            "Lower the deficits or spread in [cover].",
        )
    return Prior(head["name"], str(head.get("title", head["name"])), draws, sources, names, text)


def _read_classes(rows: Any, where: str, sources: dict[str, str]) -> tuple[dict[str, Draw], tuple[str, ...]]:
    draws: dict[str, Draw] = {}
    names: dict[int, str] = {}
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{where} has no tables [[class]].", _LIKE)
    for row in rows:
        index = row.get("index")
        if type(index) is not int or not 1 <= index <= CLASSES:
            raise InputError(f"{where} has a class {index}.", f"Classes are 1 to {CLASSES}.")
        if index in names:
            raise InputError(f"{where} has class {index} twice.", f"Classes 1 to {CLASSES} are needed once each.")
        _refuse_unknown(row, _CLASS.keys() | _CLASS_WORDS, f"class {index}", where)
        names[index] = str(row.get("name", index))
        sources[f"class {index}"] = str(row.get("source", ""))
        for key, limits in _CLASS.items():
            draws[f"class.{index}.{key}"] = _draw(row, key, f"class {index}", limits, where)
    missing = [str(index) for index in range(1, CLASSES + 1) if index not in names]
    if missing:
        raise InputError(f"{where} has no class {', '.join(missing)}.", f"Classes 1 to {CLASSES} are all needed.")
    return draws, tuple(names[index] for index in sorted(names))


def _draw(table: dict[str, Any], key: str, of: str, limits: Any, where: str) -> Draw:
    if key not in table:
        raise InputError(f"{where} lacks {key} in {of}.", _LIKE)
    try:
        return read_draw(table[key], *limits)
    except ValueError as error:
        unit = (
            " Densities are in kg/m3." if key in ("mean", "density", "contrast", "spread") or "deficit" in key else ""
        )
        raise InputError(f"{where}: {key} of {of} {error}.{unit}", _LIKE) from None


def _refuse_unknown(table: dict[str, Any], known: Any, of: str, where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f"Did you mean {near[0]!r}?" if near else f"Valid keys are {', '.join(sorted(known))}."
            raise InputError(f"{where} has an unknown key {key!r} in {of}.", meant)
