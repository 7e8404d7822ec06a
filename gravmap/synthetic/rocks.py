"""The density table: which rock of the synthetic crust weighs how much."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError

CLASSES = 10


@dataclass(frozen=True, eq=False)
class RockTable:
    """Densities of every material of the crust, kg/m3 unless said otherwise.

    Attributes
    ----------
    reference : float
        Density of the Bouguer reduction; gravity is that of the departures from it.
    mean, spread : ndarray, shape (11,)
        Mean and standard deviation of each bedrock class; index = class, entry 0 is not a number.
    names : tuple of str
        Name of each class, entry 0 is ``cover``.
    lens_excess, lens_share
        What a volcanic lens adds to its unit, and the smallest and largest share of a class it takes.
    ophiolite_excess, ophiolite_half_width_km
        What ophiolite adds along a fault, and how far from the fault it reaches, km.
    basement_mean, basement_spread
        The basement below the belts.
    cover_deficit, cover_scale_km, cover_spread
        Cover weighs ``reference - cover_deficit * exp(-z / cover_scale_km)``; the relative spread of the deficit.
    moho_contrast
        Mantle minus crust.
    """

    reference: float
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    names: tuple[str, ...]
    lens_excess: float
    lens_share: tuple[float, float]
    ophiolite_excess: float
    ophiolite_half_width_km: float
    basement_mean: float
    basement_spread: float
    cover_deficit: float
    cover_scale_km: float
    cover_spread: float
    moho_contrast: float

    def to_dict(self) -> dict[str, Any]:
        """Every number, JSON-able; classes 1..10 in order."""
        numbers = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return numbers | {
            "mean": self.mean[1:].tolist(),
            "spread": self.spread[1:].tolist(),
            "names": list(self.names[1:]),
        }


def load_rocks(path: Path | None = None) -> RockTable:
    """Read a density table.

    Parameters
    ----------
    path : Path, optional
        A TOML file laid out like gravmap's own ``rocks.toml``, which is read when this is None and which names the
        source of every number.

    Raises
    ------
    InputError
        The file cannot be read, lacks a class or a material, or holds a density no rock has.
    """
    where = "gravmap's own rocks.toml" if path is None else str(path)
    try:
        if path is None:
            text = resources.files("gravmap.synthetic").joinpath("rocks.toml").read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{where} is no readable density table: {error}.", "See rocks.toml in the package.") from None
    try:
        return _read(table, where)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} lacks {error} or holds no number there.", "See rocks.toml in the package.") from None


def _read(table: dict[str, Any], where: str) -> RockTable:
    mean, spread = np.full(CLASSES + 1, np.nan), np.full(CLASSES + 1, np.nan)
    names = ["cover"] + [""] * CLASSES
    for row in table["class"]:
        index = int(row["index"])
        if not 1 <= index <= CLASSES:
            raise InputError(f"{where} has a class {index}.", f"Classes are 1 to {CLASSES}.")
        mean[index], spread[index], names[index] = float(row["mean"]), float(row["spread"]), str(row["name"])
    rocks = RockTable(
        reference=float(table["reference"]["density"]),
        mean=mean,
        spread=spread,
        names=tuple(names),
        lens_excess=float(table["lens"]["excess"]),
        lens_share=(float(table["lens"]["share"][0]), float(table["lens"]["share"][1])),
        ophiolite_excess=float(table["ophiolite"]["excess"]),
        ophiolite_half_width_km=float(table["ophiolite"]["half_width_km"]),
        basement_mean=float(table["basement"]["mean"]),
        basement_spread=float(table["basement"]["spread"]),
        cover_deficit=float(table["cover"]["deficit"]),
        cover_scale_km=float(table["cover"]["scale_km"]),
        cover_spread=float(table["cover"]["spread"]),
        moho_contrast=float(table["moho"]["contrast"]),
    )
    missing = [str(index) for index in range(1, CLASSES + 1) if not np.isfinite(mean[index])]
    if missing:
        raise InputError(f"{where} has no class {', '.join(missing)}.", f"Classes are 1 to {CLASSES}.")
    densities = [*mean[1:], rocks.reference, rocks.basement_mean, rocks.reference - rocks.cover_deficit]
    if not all(1000 <= density <= 3500 for density in densities) or (spread[1:] < 0).any():
        raise InputError(f"{where} holds a density outside 1000 to 3500, or a negative spread.", "The unit is kg/m3.")
    return rocks
