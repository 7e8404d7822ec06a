"""Diagnosis of an installation: versions, devices, disk space, and the files of a workspace."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gravmap import __version__
from gravmap.workspace import Workspace

NEEDED = (
    "click", "numpy", "scipy", "pyamg", "xarray", "rioxarray", "rasterio", "geopandas", "pyproj", "pyarrow", "netCDF4",
    "requests", "torch", "torchvision", "safetensors", "matplotlib", "rich",
)  # fmt: skip

# Packages of the optional extras.
OPTIONAL = {
    "global": ("ducc0",),
    "peers": ("segmentation-models-pytorch", "timm", "scikit-learn"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "tensorboard": ("tensorboard",),
    "explore": ("bokeh",),
}

_GPU_VERSIONS = {"driver": "driver", "CUDA": "cuda", "NCCL": "nccl"}

# Run in a subprocess: it imports torch, which this module must not, and a broken driver may crash it.
PROBE = """
import json
try:
    import torch
except Exception as error:
    found = {"gpus": [], "deformable": "own", "error": f"torch cannot be imported: {str(error).splitlines()[0]}"}
else:
    from gravmap.learning.gpu_check import check
    found = check()
print(json.dumps(found))
"""


@dataclass
class Findings:
    """Result of :func:`examine`.

    Attributes
    ----------
    versions : dict
        Package name to version; None if it is not installed.
    machine : dict
        Cores, memory and free disk, GiB.
    torch : dict
        As :func:`gravmap.learning.gpu_check.check` returns it; or `error`, if torch cannot be imported.
    files : dict
        The file of each step in the workspace: path, and whether it exists.
    extras : dict
        Optional extra to its packages and their versions.
    faults : list of str
        Problems found, each with what to do.
    """

    versions: dict[str, str | None]
    machine: dict[str, Any]
    torch: dict[str, Any]
    files: dict[str, dict[str, Any]]
    extras: dict[str, dict[str, str | None]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All results as plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """All results as lines of text."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items() if version)
        own = "gravmap's own operators"
        runs = all(gpu.get("deformable_runs") for gpu in self.torch["gpus"])
        kernel = f"torchvision's CUDA kernel, which {'runs' if runs else 'does not run'}"
        text = [
            f"gravmap {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"Packages: {packages}",
            f"Optional: {', '.join(self._extra(name) for name in self.extras)}",
            f"Machine: {self.machine['cores']} core{'s' * (self.machine['cores'] != 1)}, "
            f"{self.machine['memory_gib']} GiB of memory, "
            f"{self.machine['disk_free_gib']} GiB of disk free here",
            *self._gpus(),
            f"Deformable convolution: {kernel if self.torch['deformable'] != 'own' else own}",
            "Workspace:",
        ]
        for step, entry in self.files.items():
            state = "there   " if entry["exists"] else "missing "
            text.append(f"  {state} {entry['path']}  (gravmap {step})")
        text += [f"Fault: {fault}" for fault in self.faults] or ["No fault found."]
        return text

    def _gpus(self) -> list[str]:
        """Versions that concern GPUs, and each GPU, as lines of text."""
        found = self.torch
        gpus = found["gpus"]
        if not gpus:
            why = found.get("no_gpu") or "torch cannot be imported"
            return [f"GPUs: none ({why}); train with --gpus 0 (CPU)"]
        versions = ", ".join(f"{name} {found.get(key) or 'unknown'}" for name, key in _GPU_VERSIONS.items())
        lines = [f"GPUs: {len(gpus)} ({versions})"]
        for index, gpu in enumerate(gpus):
            fits = f"crops of up to {gpu['crop_px']} px fit in training ({gpu['precision']}, two at a time)"
            lines.append(
                f"  {index}: {gpu['name']}, compute capability {gpu['capability']}, {gpu['memory_gib']} GiB, "
                f"{gpu['free_gib']} GiB free; {fits if gpu['crop_px'] else 'training does not run'}"
            )
        return lines

    def _extra(self, name: str) -> str:
        """One extra as text."""
        packages = self.extras[name]
        absent = [package for package, version in packages.items() if version is None]
        return f"{name} (missing: {', '.join(absent)})" if absent else f"{name} (there)"


def examine(
    workspace: Workspace,
    *,
    needed: Sequence[str] = NEEDED,
    optional: Mapping[str, Sequence[str]] = OPTIONAL,
    probe: str = PROBE,
) -> Findings:
    """Examine the installation, the machine and a workspace, without changing anything.

    Parameters
    ----------
    workspace : Workspace
        The workspace whose files are listed.
    needed : sequence of str
        Packages that gravmap cannot do without.
    optional : mapping of str to sequence of str
        Packages of each extra.
    probe : str
        Python code that prints what torch reports as JSON; it runs in its own process, which torch may crash.
    """
    versions = {name: _version(name) for name in needed}
    torch = _probe_torch(probe)
    files = {
        "fetch": workspace.raw,
        "residual": workspace.fields,
        "rasterize": workspace.labels,
        "tile": workspace.tiles / "index.json",
        "train": workspace.latest,
        "predict": workspace.maps,
    }
    faults = [f"{name} is not installed: pip install {name}" for name, version in versions.items() if version is None]
    if torch["error"]:
        faults.append(f"{torch['error']}. Reinstall both: pip install torch torchvision")
    faults += [gpu["fault"] for gpu in torch["gpus"] if gpu["fault"]]
    return Findings(
        versions=versions,
        machine=_machine(workspace),
        torch=torch,
        files={step: {"path": str(path), "exists": path.exists()} for step, path in files.items()},
        extras={extra: {name: _version(name) for name in names} for extra, names in optional.items()},
        faults=faults,
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine(workspace: Workspace) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    here = workspace.root if workspace.root.exists() else "."
    return {
        "cores": cores,
        "memory_gib": round(memory / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(here).free / 2**30, 1),
    }


def _probe_torch(probe: str) -> dict[str, Any]:
    found: dict[str, Any] = {"gpus": [], "error": "torch is not installed", "deformable": "own"}
    if importlib.util.find_spec("torch") is None:
        return found
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout.strip().rpartition("\n")[2])  # libraries may print before it
    except json.JSONDecodeError:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        found["error"] = f"torch cannot be imported: {last[0]}"
    return found
