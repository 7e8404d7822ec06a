"""The network of a map in the words of STAC's machine learning model extension (MLM 1.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from gravmap.mapping.record.stac_assets import checksum, class_objects

TASK = "semantic-segmentation"

# The channel "rgb" is three planes of one field, the others one each.
_PLANES = {"rgb": 3}
_WORDS = {
    "field": "{field} in {unit}, divided by {spread:.6g}",
    "rgb": "{field} in {unit} as a colour between {low:.6g} and {high:.6g}",
    "scale": "log10 of degrees per pixel, the same all over a window",
}


def model_properties(record: Mapping[str, Any]) -> dict[str, Any]:
    """The ``mlm:`` fields of an item's properties; of an ensemble, those of its first network.

    Parameters
    ----------
    record : mapping
        As :func:`gravmap.mapping.record.provenance.read_provenance` gives it.
    """
    models = record["models"]
    if not models:
        return {}
    first = models[0]
    size, several = first["tile_size_px"], len(models) > 1
    names = "+".join(model["name"] for model in models)
    classes = {int(entry["index"]): entry for entry in first["classes"]}
    planes = sum(_PLANES.get(entry["kind"], 1) for entry in first["inputs"])
    blended = (
        "half-overlapping windows, blended by Hann weights as logits, then a softmax at the run's temperature"
        " (where it follows the distance to mapped outcrop, at the one there)"
    )
    return {
        "mlm:name": _name(f"gravmap {first['model']} {names}"),
        "mlm:architecture": _architecture(first["model"]),
        "mlm:tasks": [TASK],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": str(first["versions"].get("torch") or record["versions"]["torch"]),
        "mlm:total_parameters": first["parameters"],
        "mlm:pretrained": False,
        "mlm:pretrained_source": None,
        "mlm:input": [
            {
                "name": f"window of {size} x {size} pixels",
                "description": "; ".join(_channel(entry)["description"] for entry in first["inputs"]),
                "bands": [_channel(entry)["name"] for entry in first["inputs"]],
                "input": {
                    "shape": [-1, planes, size, size],
                    "dim_order": ["batch", "channel", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": _scaling(first["inputs"]),
                "resize_type": "interpolation-linear",
            }
        ],
        "mlm:output": [
            {
                "name": "logits of the classes",
                "description": blended + (f"; mean of the probabilities of {len(models)} runs" if several else ""),
                "tasks": [TASK],
                "result": {
                    "shape": [-1, len(classes), size, size],
                    "dim_order": ["batch", "class", "height", "width"],
                    "data_type": "float32",
                },
                "classification:classes": class_objects(classes),
                "post_processing_function": {"format": "python", "expression": "torch.softmax(logits / T, dim=1)"},
            }
        ],
        "mlm:hyperparameters": _hyperparameters(first),
    }


def model_assets(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The weights behind a map, where they lay when it was made."""
    assets = {}
    for number, model in enumerate(record["models"], start=1):
        tail = "" if number == 1 else f"_{number}"
        weights = record["inputs"][f"model{tail}"]
        assets[f"model{tail}"] = {
            "href": weights["path"],
            "title": f"Weights of {model['name']} ({model['model']})",
            "description": f"safetensors, described in {PurePosixPath(record['inputs'][f'model_json{tail}']['path'])}",
            "type": "application/octet-stream; application=pytorch",
            "roles": ["mlm:model", "mlm:weights"],
            "mlm:artifact_type": "safetensors",
            "bands": [_channel(entry) for entry in model["inputs"]],
            **checksum(weights["sha256"], weights["bytes"]),
        }
    return assets


def _channel(entry: Mapping[str, Any]) -> dict[str, Any]:
    field = entry.get("field", entry["kind"])
    name = f"{entry['kind']}:{field}" if entry["kind"] == "rgb" else str(field)
    told = _WORDS[entry["kind"]].format(**entry) if entry["kind"] in _WORDS else str(dict(entry))
    unit = {"unit": entry["unit"]} if entry.get("unit") else {}
    return {"name": name, "description": told, "data_type": "float32", **unit}


def _scaling(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """How each channel is scaled; None where that is more than a division (the picture in colours)."""
    if any(entry["kind"] != "field" for entry in inputs):
        return None
    return [{"type": "z-score", "mean": 0.0, "stddev": entry["spread"]} for entry in inputs]


def _hyperparameters(model: Mapping[str, Any]) -> dict[str, Any]:
    split = model["split"] or {}
    kept = {key: split[key] for key in ("name", "kind", "fold", "folds", "block_deg", "buffer_deg") if key in split}
    recipe = {key: value for key, value in (model["recipe"] or {}).items() if value is not None}
    return {**recipe, "seed": model["seed"], "scales_deg": model["scales_deg"], "split": kept}


def _architecture(model: str) -> str:
    if model.startswith("ggmnet"):
        return "GGMNet"
    if model.startswith("unet"):
        return "U-Net"
    return model.removeprefix("smp:")


def _name(text: str) -> str:
    """A name as the extension wants it: letters, digits, blanks, dots, dashes; a letter first."""
    return re.sub(r"[^A-Za-z0-9_.\-\s]+", "-", text).rstrip(" ._-")


def bands_of(assets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every band of every asset, once: what an item says of its bands as a whole."""
    named: dict[str, dict[str, Any]] = {}
    for asset in assets:
        for band in asset.get("bands", []):
            named.setdefault(band["name"], {key: band[key] for key in ("name", "description") if key in band})
    return list(named.values())
