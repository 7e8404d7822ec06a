"""Export a trained network to one file that runs without gravmap: ONNX, or a torch program (.pt2).

The preprocessing is part of the graph: its inputs are fields in their own units, its outputs logits, and quantiles of
the thickness of the cover where the network has them. The number of images, height and width are dynamic (multiples of
64) if torch can trace the network so, else fixed; the description beside the file says which.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gravmap import __version__
from gravmap.errors import GravmapError, OptionError
from gravmap.files import atomic_path, sha256, write_json
from gravmap.learning.calibration.temperature import Calibration, read_calibration
from gravmap.learning.calibration.thickness import ThicknessInterval
from gravmap.learning.data.channel_kinds import ScaleChannel
from gravmap.learning.data.channels import InputChannels
from gravmap.learning.data.outcrop_context import DISTANCE_KM, LEAST
from gravmap.learning.training.checkpoint import MODEL, load_model
from gravmap.network.outcrop_start import THICKNESS_QUANTILES, AllOutputs, has_thickness
from gravmap.network.window_pass import crop_starts
from gravmap.outputs import check_outputs

Format = Literal["onnx", "torch"]
SUFFIX: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2"}
OPSET = 20
MULTIPLE, LEAST_PX, MOST_PX = 64, 128, 16384
OUTPUTS = ("logits", "cover_thickness_km")
TOLERANCE = 1e-3
"""Maximum difference from the original network, relative to the largest value of the output."""


class FieldsToOutputs(nn.Module):
    """Preprocessing and network as one module."""

    def __init__(self, inputs: InputChannels, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.inputs, self.classes = inputs, classes
        self.network, self.thickness = AllOutputs(network), has_thickness(network)

    def forward(self, fields: Tensor, degrees_per_px: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Map fields (N, F, H, W) and, if it is a channel, degrees per pixel (N,) to logits (N, K, H, W).

        With thickness of the cover to logits and its quantiles (N, 3, H, W), km, in increasing order.
        """
        outputs: Tensor = self.network(self.inputs.prepare(fields, 1.0 if degrees_per_px is None else degrees_per_px))
        return (outputs[:, : self.classes], outputs[:, self.classes :]) if self.thickness else outputs


def export_run(run_folder: Path, path: Path, form: Format = "onnx", *, overwrite: bool = False) -> dict[str, Any]:
    """Export the best network of a run for use without gravmap, with a description in ``<path>.json``.

    Parameters
    ----------
    run_folder : Path
        Holds ``model.safetensors`` and ``model.json``.
    path : Path
        The file to write.
    form : {"onnx", "torch"}
        ONNX (opset 20, plain operators), or what `torch.export.load` reads.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    dict
        The description: inputs, outputs, sizes, classes, calibration of the thickness and usage. It is also inside the
        file: under ``gravmap`` in the metadata of ONNX, or as the extra file ``gravmap.json`` of the torch program.

    Raises
    ------
    InputError
        The run cannot be read, or the file exists.
    OptionError
        The packages for ONNX are not installed.
    GravmapError
        Torch cannot trace the network, or the output of the program differs from that of the network.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.learning.training.checkpoint import ModelSpec
    >>> from gravmap.learning.training.checkpoint import save_model
    >>> from gravmap.learning.training.export import export_run
    >>> from gravmap.network.registry import build_from_dict
    >>> network = build_from_dict({"kind": "unet", "widths": [4, 8]}, in_channels=1, classes=2)
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_model(folder, network, ModelSpec(
    ...     model="small-unet",
    ...     architecture=network.architecture.to_dict(),
    ...     inputs=[{"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 9.5}],
    ...     classes=[{"index": 1, "name": "granite"}, {"index": 2, "name": "basalt"}],
    ...     tile_size_px=64, scales_deg=[5.0], field_recipe={}, split={}, seed=0,
    ... ))
    >>> description = export_run(folder, folder / "network.pt2", "torch")
    >>> description["output"]["shape"]
    ['N', 2, 'H', 'W']
    """
    beside = path.with_name(f"{path.name}.json")
    check_outputs([path, beside], [run_folder / f"{MODEL}{suffix}" for suffix in (".safetensors", ".json")], overwrite)
    if form == "onnx":
        _need_onnx()
    network, spec = load_model(run_folder)
    inputs = spec.input
    whole = FieldsToOutputs(inputs, network, len(spec.classes)).eval()
    calibration = read_calibration(run_folder) if whole.thickness else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns about its own internals
        # A window that passes in crops is fed as these.
        parts = 2 if crop_starts(network, spec.tile_size_px) else 1
        image_px = spec.tile_size_px // parts
        program, fixed_px, difference = _trace(whole, inputs, image_px)
        described = {
            "made_by": f"gravmap {__version__}",
            "format": form,
            "model": spec.model,
            "model_sha256": sha256(run_folder / f"{MODEL}.safetensors"),
            "inputs": _inputs(inputs),
            "output": {"name": OUTPUTS[0], "shape": ["N", len(spec.classes), "H", "W"], "type": "float32"},
            **({"cover_thickness": _thickness_output(calibration)} if whole.thickness else {}),
            "height_and_width": {"fixed": fixed_px, "multiple_of": MULTIPLE, "least": LEAST_PX, "most": MOST_PX},
            "classes": spec.classes,
            "preprocessing_inside": spec.inputs,
            "windows_deg": [scale / parts for scale in spec.scales_deg],
            "window_px": image_px,
            "field_recipe": spec.field_recipe,
            "sources": spec.sources,
            "scores": {name: {"fwiou": each.get("fwiou")} for name, each in spec.scores.items()},
            "how_to_feed": _how(fixed_px, inputs, whole.thickness),
            "difference": difference,
        }
        text = json.dumps(described, ensure_ascii=False)
        with atomic_path(path) as temporary:
            if form == "onnx":
                _save_onnx(program, temporary, described, text)
            else:
                # Through memory: on a full disk the destructor of torch's own writer ends the process.
                content = io.BytesIO()
                torch.export.save(program, content, extra_files={"gravmap.json": text})
                temporary.write_bytes(content.getbuffer())
    write_json(beside, described)
    return described


def _trace(whole: nn.Module, inputs: InputChannels, image_px: int) -> tuple[ExportedProgram, int | None, float]:
    """Trace the network with dynamic sizes, or else with a fixed size.

    Returns
    -------
    program : ExportedProgram
        Compared with the network.
    fixed_px : int or None
        The fixed size.
    difference : float
        Maximum difference between the outputs of program and network.
    """
    images = Dim("images", min=1, max=1024)
    height, width = (Dim(name, min=LEAST_PX // MULTIPLE, max=MOST_PX // MULTIPLE) for name in ("rows", "columns"))
    shapes: list[Any] = [{0: images, 2: MULTIPLE * height, 3: MULTIPLE * width}]
    if _reads_scale(inputs):
        shapes.append({0: images})
    try:
        program = torch.export.export(whole, _example(inputs, 2, 128, 192), dynamic_shapes=tuple(shapes))
        return program, None, max(_difference(program, whole, inputs, *size) for size in _COMPARED_PX)
    except Exception:  # torch raises many types of errors here; the next attempt reports its own
        fixed = max(LEAST_PX, -(-image_px // MULTIPLE) * MULTIPLE)
    try:
        program = torch.export.export(whole, _example(inputs, 1, fixed, fixed))
        return program, fixed, _difference(program, whole, inputs, fixed, fixed)
    except GravmapError:
        raise
    except Exception as error:
        raise GravmapError(
            f"Torch cannot trace this network: {str(error).splitlines()[0]}",
            "Report it with the model.json of the run; `gravmap predict` does not need an exported network.",
        ) from error


# A program traced at one size may be bound to its multiples of 3 or of 128: these sizes are none.
_COMPARED_PX = ((128, 320), (256, 256))


def _example(inputs: InputChannels, images: int, height: int, width: int) -> tuple[Tensor, ...]:
    """Return random fields with the standard deviation of the training fields, and 0.01 degrees per pixel."""
    spreads = torch.tensor(inputs.spreads)[:, None, None]
    drawing = torch.Generator().manual_seed(0)
    fields = spreads * torch.randn(images, len(inputs.fields), height, width, generator=drawing)
    return (fields, torch.full((images,), 0.01)) if _reads_scale(inputs) else (fields,)


def _reads_scale(inputs: InputChannels) -> bool:
    return any(isinstance(channel, ScaleChannel) for channel in inputs.channels)


def _difference(program: ExportedProgram, whole: nn.Module, inputs: InputChannels, height: int, width: int) -> float:
    """Return the maximum difference between program and network on random fields; refuse a large one."""
    example = _example(inputs, 1, height, width)
    largest = 0.0
    for name, made, expected in zip(
        OUTPUTS, *map(_as_tuple, (program.module()(*example), whole(*example))), strict=False
    ):
        difference = float((made - expected).abs().max())
        if not difference <= TOLERANCE * float(expected.abs().max()):
            raise GravmapError(f"The exported program's {name} differ from the network's by {difference:.3g}.")
        largest = max(largest, difference)
    return largest


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _thickness_output(calibration: Calibration | None) -> dict[str, Any]:
    """Describe the second output: the levels of its quantiles, and the factors that calibrate them."""
    interval = ThicknessInterval() if calibration is None else calibration.thickness
    return {
        "name": OUTPUTS[1],
        "shape": ["N", len(THICKNESS_QUANTILES), "H", "W"],
        "type": "float32",
        "unit": "km",
        "levels": list(THICKNESS_QUANTILES),
        "calibration": dict(interval.to_dict()),
        "meaning": "quantiles of the thickness of the cover, for ground under cover, before calibration: multiply the"
        " distance from the median to the lower quantile by `below` and to the upper one by `above`, and raise negative"
        " values to 0",
    }


def _inputs(inputs: InputChannels) -> list[dict[str, Any]]:
    planes = [{"field": name, "unit": unit} for name, unit in zip(inputs.fields, inputs.units, strict=True)]
    described: list[dict[str, Any]] = [
        {"name": "fields", "shape": ["N", len(planes), "H", "W"], "type": "float32", "planes": planes}
    ]
    if _reads_scale(inputs):
        described.append(
            {"name": "degrees_per_px", "shape": ["N"], "type": "float32", "meaning": "side of a pixel, degrees"}
        )
    return described


def _how(fixed_px: int | None, inputs: InputChannels, thickness: bool) -> str:
    size = (
        f"exactly {fixed_px} x {fixed_px} pixels, one image at a time"
        if fixed_px
        else f"any multiple of {MULTIPLE} pixels from {LEAST_PX} (pad below and to the right by mirroring, and crop)"
    )
    outcrop = (
        " Fields named outcrop_ say what is mapped around: for each class the log of its chance to be met first by a"
        f" random walk from the node (at least {LEAST:g}, then brought to a sum of 1), log(1 + distance to outcrop /"
        f" {DISTANCE_KM:g} km), and 1 on outcrop, 0 elsewhere; gravmap.learning.data.outcrop_context makes them."
        if inputs.reads_outcrop
        else ""
    )
    both = ", and their thicknesses of the cover in the same way, before these are calibrated" if thickness else ""
    masks = ", ".join(inputs.masks)
    layers = f" {masks}: 1 where the layer has data, 0 elsewhere." if masks else ""
    scale = " degrees_per_px is the window's side over its pixels." if _reads_scale(inputs) else ""
    return (
        f"fields: {', '.join(inputs.fields)} in their units, row 0 northernmost, on a window square in "
        f"degrees, bilinear between the nodes of the grid, 0 where unknown; {size}.{scale}{outcrop}{layers} The class "
        f"of a pixel is classes[argmax of its logits]. Predict on half-overlapping windows and blend their"
        f" logits{both}."
    )


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f"ONNX files are written with onnx and onnxscript ({error}).",
            'Install them: pip install "gravmap[export]"; or use --format torch.',
        ) from None


def _save_onnx(program: ExportedProgram, path: Path, described: dict[str, Any], text: str) -> None:
    """Write ONNX with the description in its metadata."""
    names = [each["name"] for each in described["inputs"]]
    outputs = [described[key]["name"] for key in ("output", "cover_thickness") if key in described]
    made = torch.onnx.export(
        program, input_names=names, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
    )
    assert made is not None
    made.model.metadata_props.update(
        {
            "gravmap": text,
            "classes": json.dumps([each["name"] for each in described["classes"]], ensure_ascii=False),
            "how_to_feed": described["how_to_feed"],
        }
    )
    made.save(path, external_data=False)
