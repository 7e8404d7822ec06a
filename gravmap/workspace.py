"""Where each command finds what the one before it left: the paths of a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gravmap.errors import InputError

SHIPPED = "crusts-central-asia"
"""The trained network that comes with gravmap: taught on simulated crusts alone, on no region's data."""


def shipped_model(name: str = SHIPPED) -> Path:
    """Where a shipped model of this name would lie: a folder like a run's."""
    return Path(__file__).parent / "models" / Path(name).name


@dataclass(frozen=True)
class Workspace:
    """A folder with the fixed places of gravmap's files.

    Attributes
    ----------
    root : Path
        The folder itself.
    """

    root: Path

    @property
    def raw(self) -> Path:
        """Downloads as they came, verified (`gravmap fetch`)."""
        return self.root / "data" / "raw"

    @property
    def fields(self) -> Path:
        """CF netCDF of Bouguer, regional and residual, mGal (`gravmap residual`)."""
        return self.root / "data" / "fields.nc"

    @property
    def labels(self) -> Path:
        """Index raster of bedrock classes (`gravmap rasterize`)."""
        return self.root / "data" / "labels.tif"

    @property
    def legend(self) -> Path:
        """The legend that `labels` was made with."""
        return self.root / "data" / "labels.legend.toml"

    @property
    def tiles(self) -> Path:
        """The tile set's folder (`gravmap tile`)."""
        return self.root / "data" / "tiles"

    @property
    def crusts(self) -> Path:
        """Simulated crusts that networks were taught on; made again when thrown away (`gravmap train --on crusts`)."""
        return self.root / "data" / "crusts"

    @property
    def runs(self) -> Path:
        """One folder per training run (`gravmap train`)."""
        return self.root / "runs"

    @property
    def maps(self) -> Path:
        """One folder per predicted region (`gravmap predict`)."""
        return self.root / "maps"

    @property
    def regions(self) -> Path:
        """The user's own named regions, when the file exists."""
        return self.root / "regions.toml"

    @property
    def config(self) -> Path:
        """Defaults for the options of every command, when the file exists."""
        return self.root / "gravmap.toml"

    def run(self, name: str | None = None) -> Path:
        """The folder of a training run.

        Parameters
        ----------
        name : str, optional
            Name under ``runs/``, a path, or a model that gravmap ships; without it, the run that ``runs/latest`` names.

        Raises
        ------
        InputError
            No such run, no run at all, or one that was stopped before it had a network.
        """
        if name is None:
            latest = self.runs / "latest"
            if not latest.exists():
                raise InputError(f"No trained network in {self.runs}.", "`gravmap train` makes one.")
            name = latest.read_text(encoding="utf-8").strip()
        for folder in (self.runs / name, Path(name), shipped_model(name)):
            if (folder / "model.json").exists():
                return folder
            if (folder / "search.json").exists():
                raise InputError(
                    f"{folder.name} is an architecture search, which leaves no trained network.",
                    f"`gravmap train --architecture {folder / 'architecture.json'}` trains what it found.",
                )
            if (folder / "last.json").exists():
                raise InputError(
                    f"The run {folder.name} is not finished: {folder / 'model.json'} is missing.",
                    f"`gravmap train --resume --name {folder.name}` goes on with it.",
                )
        raise InputError(
            f"No trained network called {name!r} in {self.runs}.",
            f"`gravmap train` makes one; a run holds model.json and model.safetensors. Shipped is {SHIPPED}.",
        )


def require(path: Path, made_by: str) -> Path:
    """Give `path` back when it exists.

    Parameters
    ----------
    path : Path
        A file or folder that an earlier step makes.
    made_by : str
        The command that makes it, such as ``gravmap residual --height 10km``.

    Raises
    ------
    InputError
        It is missing; the message names the command.
    """
    if not path.exists():
        raise InputError(f"{path} is missing.", f"`{made_by}` makes it.")
    return path
