"""`gravmap export`: a trained network as a file that runs without gravmap."""

from __future__ import annotations

from pathlib import Path

import click

from gravmap.workspace import shipped_model

from . import complete
from .options import Command, option, output_option, overwrite_option
from .session import Session, command_options


@click.command(
    "export",
    cls=Command,
    short_help="Export a trained network as ONNX or a torch program.",
    epilog="""\b
Examples:
  gravmap export
  gravmap export first --format torch -o first.pt2""",
)
@click.argument("run", required=False, shell_complete=complete.runs)
@option("--format", "form", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True, help="Format.")
@output_option("File to write (default: model.onnx or model.pt2 in the folder of the run).")
@overwrite_option
@command_options()
def command(session: Session, run: str | None, form: str, output: Path | None, overwrite: bool) -> None:
    """Write a trained network as one file that runs without gravmap.

    RUN is a training run (default: the newest, runs/latest), or crusts-central-asia, the shipped network: its file is
    written into the workspace. The inputs are fields in mGal and the outputs logits, and of a network that has it the
    thickness of the cover (quantiles, km): the preprocessing is part of the graph. A description is written into the
    file, and beside it as FILE.json. ONNX needs "gravmap[export]".
    """
    folder = session.workspace.run(run)

    from gravmap.learning.training.export import SUFFIX, export_run

    # The shipped network lies among the files of the package: nothing is written there.
    shipped = folder == shipped_model(folder.name)
    own = session.workspace.root / f"{folder.name}{SUFFIX[form]}" if shipped else folder / f"model{SUFFIX[form]}"
    path = output or own
    session.writing(
        [path, path.with_name(f"{path.name}.json")], [folder / "model.json", folder / "model.safetensors"], overwrite
    )
    described = export_run(folder, path, "torch" if form == "torch" else "onnx", overwrite=overwrite)
    session.say(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB) and {path.name}.json beside it.")
    for given in described["inputs"]:
        planes = ", ".join(f"{each['field']} [{each['unit']}]" for each in given.get("planes", []))
        session.say(f"  {given['name']} {given['shape']}" + (f": {planes}" if planes else f": {given['meaning']}"))
    size = described["height_and_width"]
    sizes = f"{size['fixed']} only" if size["fixed"] else f"multiples of {size['multiple_of']} from {size['least']}"
    given_back = [described[key] for key in ("output", "cover_thickness") if key in described]
    outputs = ", ".join(f"{each['name']} {each['shape']}" for each in given_back)
    session.say(f"  {outputs}; H and W: {sizes}.")
    session.result({"file": str(path), "description": str(path) + ".json", **described})
