"""What gravmap stands on, on this machine: versions, devices, disk, and the files of a workspace."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from gravmap import __version__
from gravmap.workspace import Workspace

NEEDED = (
    "click", "numpy", "scipy", "pyamg", "xarray", "rioxarray", "rasterio", "geopandas", "pyproj", "pyarrow", "netCDF4",
    "requests", "torch", "torchvision", "safetensors", "matplotlib", "rich",
)  # fmt: skip

# What is not needed but of use: extra to the packages it brings.
OPTIONAL = {
    "global": ("ducc0",),
    "peers": ("segmentation-models-pytorch", "timm", "scikit-learn"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "tensorboard": ("tensorboard",),
}

# Run in a process of its own: it loads torch, which this file must not, and a broken driver may end it.
_PROBE = """
import json, sys
found = {"gpus": [], "error": None, "deformable": "own"}
try:
    import torch
    found["threads"] = torch.get_num_threads()
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found["gpus"].append({"name": card.name, "memory_gib": round(card.total_memory / 2**30, 1)})
    try:
        import torchvision
        if found["gpus"]:
            found["deformable"] = "torchvision"
    except Exception as error:
        found["error"] = f"torchvision does not load beside this torch: {str(error).splitlines()[0]}"
except Exception as error:
    found["error"] = f"torch does not load: {str(error).splitlines()[0]}"
json.dump(found, sys.stdout)
"""


@dataclass
class Findings:
    """What :func:`examine` saw.

    Attributes
    ----------
    versions : dict
        Package name to version; None where it is missing.
    machine : dict
        Cores, memory and free disk, GiB.
    torch : dict
        GPUs, threads, which deformable convolution is live, and an error if torch does not load.
    files : dict
        Each step's file in the workspace: path, and whether it is there.
    extras : dict
        Optional extra to its packages and their versions.
    faults : list of str
        What will not work, each with what to do.
    """

    versions: dict[str, str | None]
    machine: dict[str, Any]
    torch: dict[str, Any]
    files: dict[str, dict[str, Any]]
    extras: dict[str, dict[str, str | None]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Everything in words."""
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items() if version)
        gpus = [f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in self.torch["gpus"]]
        own = "gravmap's own operators" if self.torch["deformable"] == "own" else "torchvision's CUDA kernel"
        text = [
            f"gravmap {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"Packages: {packages}",
            f"Optional: {', '.join(self._extra(name) for name in self.extras)}",
            f"Machine: {self.machine['cores']} cores, {self.machine['memory_gib']} GiB of memory, "
            f"{self.machine['disk_free_gib']} GiB of disk free here",
            f"GPUs: {', '.join(gpus) if gpus else 'none seen; train with --gpus 0 (CPU)'}",
            f"Deformable convolution: {own}",
            "Workspace:",
        ]
        for step, entry in self.files.items():
            state = "there   " if entry["exists"] else "missing "
            text.append(f"  {state} {entry['path']}  (gravmap {step})")
        text += [f"Fault: {fault}" for fault in self.faults] or ["No fault found."]
        return text

    def _extra(self, name: str) -> str:
        """One extra in words."""
        packages = self.extras[name]
        absent = [package for package, version in packages.items() if version is None]
        return f"{name} (missing: {', '.join(absent)})" if absent else f"{name} (there)"


def examine(workspace: Workspace) -> Findings:
    """Look at the installation, the machine and a workspace; change nothing.

    Parameters
    ----------
    workspace : Workspace
        The folder whose steps are listed.
    """
    versions = {name: _version(name) for name in NEEDED}
    torch = _probe_torch()
    files = {
        "fetch": workspace.raw,
        "residual": workspace.fields,
        "rasterize": workspace.labels,
        "tile": workspace.tiles / "index.json",
        "train": workspace.runs / "latest",
        "predict": workspace.maps,
    }
    faults = [f"{name} is not installed: pip install {name}" for name, version in versions.items() if version is None]
    if torch["error"]:
        faults.append(f"{torch['error']}. Install the pair anew: pip install torch torchvision")
    return Findings(
        versions=versions,
        machine=_machine(workspace),
        torch=torch,
        files={step: {"path": str(path), "exists": path.exists()} for step, path in files.items()},
        extras={extra: {name: _version(name) for name in names} for extra, names in OPTIONAL.items()},
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


def _probe_torch() -> dict[str, Any]:

    found: dict[str, Any] = {"gpus": [], "error": "torch is not installed", "deformable": "own"}
    if importlib.util.find_spec("torch") is None:
        return found
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        found["error"] = f"torch does not load: {last[0]}"
    return found
