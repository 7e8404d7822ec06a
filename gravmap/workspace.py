"""The workspace: the folder in which each command finds the files of the previous ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gravmap.errors import InputError, OptionError

SHIPPED = "crusts-central-asia"
"""The trained network in the package: trained on simulated crusts only."""

# What no file system takes, and what leads out of a folder, hides a file or reads as an option.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|^[.\- ]|[. ]$|^$')


def check_name(name: str, what: str) -> str:
    """Return a name that becomes that of a file or folder; refuse one that is unsafe on any system.

    Parameters
    ----------
    name : str
        As typed by the user or read from a file.
    what : str
        What it names, for the message: "a region".

    Raises
    ------
    OptionError
        The name is empty, longer than 100 bytes, starts with a dot, hyphen or blank, ends with a dot or blank, or
        holds a separator of folders, a control character, or one of ``: * ? " < > |``.

    Examples
    --------
    >>> from gravmap.workspace import check_name
    >>> check_name("west Junggar", "a region")
    'west Junggar'
    >>> check_name("../maps", "a region")
    Traceback (most recent call last):
    ...
    gravmap.errors.OptionError: '../maps' is not a valid name of a region: it becomes the name of a folder.
    Use letters, digits, blanks, hyphens and underscores; 100 bytes at most.
    """
    if _UNSAFE.search(name) or len(name.encode(errors="replace")) > 100:
        shown = name if len(name) <= 40 else f"{name[:37]}..."
        raise OptionError(
            f"{shown!r} is not a valid name of {what}: it becomes the name of a folder.",
            "Use letters, digits, blanks, hyphens and underscores; 100 bytes at most.",
        )
    return name


def shipped_model(name: str = SHIPPED) -> Path:
    """Folder of a model in the package, laid out like that of a run; need not exist."""
    return Path(__file__).parent / "models" / Path(name).name


@dataclass(frozen=True)
class Workspace:
    """A folder with fixed paths for the files of gravmap.

    Attributes
    ----------
    root : Path
        The folder itself.
    """

    root: Path

    @property
    def raw(self) -> Path:
        """Verified downloads (`gravmap fetch`)."""
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
        """The legend of `labels`."""
        return self.root / "data" / "labels.legend.toml"

    @property
    def tiles(self) -> Path:
        """The folder of the tile set (`gravmap tile`)."""
        return self.root / "data" / "tiles"

    @property
    def crusts(self) -> Path:
        """Cache of simulated crusts for training, made again if deleted (`gravmap train --on crusts`)."""
        return self.root / "data" / "crusts"

    @property
    def runs(self) -> Path:
        """One folder per training run (`gravmap train`)."""
        return self.root / "runs"

    @property
    def latest(self) -> Path:
        """Names the newest run, the default of other commands."""
        return self.runs / "latest"

    @property
    def maps(self) -> Path:
        """One folder per predicted region (`gravmap predict`)."""
        return self.root / "maps"

    @property
    def regions(self) -> Path:
        """Named regions of the user; optional."""
        return self.root / "regions.toml"

    @property
    def config(self) -> Path:
        """Default values for the options of all commands; optional."""
        return self.root / "gravmap.toml"

    def run(self, name: str | None = None) -> Path:
        """The folder of a training run.

        Parameters
        ----------
        name : str, optional
            Name under ``runs/``, a path, or the name of a shipped model; by default the run named in ``runs/latest``.

        Raises
        ------
        InputError
            There is no such run, no run at all, or the run has no trained network yet.
        """
        if name is None:
            if not self.latest.exists():
                raise InputError(f"No trained network in {self.runs}.", "`gravmap train` makes one.")
            text = self.latest.read_text(encoding="utf-8", errors="replace")
            name = check_name(text.strip(), f"a run, in {self.latest}")
        for folder in (self.runs / name, Path(name), shipped_model(name)):
            if (folder / "model.json").exists():
                return folder
            if (folder / "search.json").exists():
                raise InputError(
                    f"{folder.name} is an architecture search, which leaves no trained network.",
                    f"`gravmap train --architecture {folder / 'architecture.json'}` trains the network that it found.",
                )
            if (folder / "last.json").exists():
                raise InputError(
                    f"The run {folder.name} is not finished: {folder / 'model.json'} is missing.",
                    f"`gravmap train --resume --name {folder.name}` resumes it.",
                )
        raise InputError(
            f"No trained network called {name!r} in {self.runs}.",
            f"`gravmap train` makes one; a run has model.json and model.safetensors. {SHIPPED} is shipped.",
        )


def require(path: Path, made_by: str) -> Path:
    """Return `path` if it exists.

    Parameters
    ----------
    path : Path
        A file or folder made by an earlier step.
    made_by : str
        The command that makes it, such as ``gravmap residual --height 10km``.

    Raises
    ------
    InputError
        The path does not exist; the message names the command.
    """
    if not path.exists():
        raise InputError(f"{path} is missing.", f"`{made_by}` makes it.")
    return path
