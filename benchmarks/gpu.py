"""Whether gravmap works on this machine's GPU, and how fast, in at most ten minutes.

    python benchmarks/gpu.py [--gpus N] [-o FOLDER]
    python benchmarks/gpu.py --device cpu --tiny      # every part, with small numbers, to try the script
    python benchmarks/gpu.py --pack                   # make gpu_crust.npz again; needs all of gravmap

Runs the tests marked `gpu`; times training steps of GGMNet and its peers, and their parts; compares the deformable
convolutions, and compilation with none; measures an epoch of the paper's recipe; and trains GGMNet on a simulated crust
and scores it. --gpus N also measures how training scales over 1 to N GPUs, which takes longer. Results are written
into gpu.json and gpu.md, after every part. Needs torch, numpy, scipy and safetensors; pytest, torchvision and
segmentation_models_pytorch are used where they are installed.

Every part runs in a process of its own: one that fails, or takes too long, is reported and the others go on. The exit
status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

import gpu_parts
import numpy as np
import torch
from gpu_parts import Row, Sizes, describe

from gravmap.files import write_json, write_text

LIMIT_S = 600.0
"""Of all parts together, but for those of several GPUs."""

PRELOAD = ["torch._dynamo", "gravmap.learning.training.trainer", "gravmap.learning.gpu_check", "scipy.spatial"]
"""What the parts import; not the scripts beside this one, which a forkserver of Python 3.11 does not find."""


def run(works: Sequence[Callable[[], Iterable[Row]]], limit_s: float) -> Row:
    """Run a part in processes of its own.

    Parameters
    ----------
    works : sequence of callable
        One per process, picklable; returns rows.
    limit_s : float
        Seconds after which they are killed.

    Returns
    -------
    dict
        `rows` of all, also of those that failed; `seconds`; and `problem`, None or what went wrong.
    """
    # Not "fork": CUDA cannot be used in a process forked from one that uses it. Importing torch takes seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    begin, rows, problems = time.monotonic(), [], []
    processes: list[multiprocessing.Process] = []
    running: dict[Connection, multiprocessing.Process] = {}
    try:
        for work in works:
            receiver, sender = context.Pipe(duplex=False)
            processes.append(context.Process(target=_child, args=(work, sender)))
            processes[-1].start()
            sender.close()
            running[receiver] = processes[-1]
        while running and not problems:
            ready = wait(list(running), max(0.0, begin + limit_s - time.monotonic()))
            if not ready:
                problems.append(f"stopped after {limit_s:.0f} s")
            for receiver in ready:
                try:
                    row, problem = receiver.recv()
                except EOFError:
                    process = running.pop(receiver)
                    process.join()
                    if process.exitcode:
                        problems.append(f"its process ended with status {process.exitcode}")
                    continue
                if problem is None:
                    rows.append(row)
                else:
                    problems.append(problem)
    finally:
        for process in processes if running or problems else []:
            with contextlib.suppress(ProcessLookupError):  # it has ended, or has not begun
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.kill()
            process.join()
    return {"seconds": round(time.monotonic() - begin, 1), "problem": next(iter(problems), None), "rows": rows}


def _child(work: Callable[[], Iterable[Row]], sender: Connection) -> None:
    os.setsid()
    try:
        for row in work():
            sender.send((row, None))
    except Exception as error:
        sender.send((None, describe(error)))
        sender.close()
        os._exit(0)  # the end of a process group can wait for the others


def run_scaling(sizes: Sizes, gpus: int, limit_s: float) -> Row:
    """Train with 1 to N processes; the efficiency is the crops per second and GPU, relative to one GPU."""
    begin, rows = time.monotonic(), []
    for size in sorted({*(2**power for power in range(gpus.bit_length())), gpus}):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        found = run([partial(gpu_parts.time_group, sizes, rank, size, port) for rank in range(size)], limit_s)
        for row in found["rows"]:
            rows.append({**row, "efficiency": rows[0]["step_s"] / row["step_s"] if rows else 1.0})
        if found["problem"]:
            problem = f"{size} processes: {found['problem']}"
            return {"seconds": round(time.monotonic() - begin, 1), "problem": problem, "rows": rows}
    return {"seconds": round(time.monotonic() - begin, 1), "problem": None, "rows": rows}


def report(results: Row) -> str:
    """Return the results as Markdown: a table for each part."""
    facts = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    text = [f"# gravmap on {results['device']}", "", f"{results['date']}, {facts}. {results['seconds']:.0f} s.", ""]
    if results["tiny"]:
        text += ["With `--tiny`: the numbers say nothing about speed.", ""]
    for title, part in results["parts"].items():
        text += [f"## {title}", ""]
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
        if columns:
            text += [f"| {' | '.join(each.replace('_', ' ') for each in columns)} |", "|" + "---|" * len(columns)]
            text += [f"| {' | '.join(_cell(row.get(each)) for each in columns)} |" for row in part["rows"]]
            text.append("")
        if part["problem"]:
            text += [f"**Not complete**: {part['problem']}", ""]
    return "\n".join(text)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " -> ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value).replace("|", "/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and few steps, to try the script")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="also measure scaling over 1 to N GPUs")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    parser.add_argument("--pack", action="store_true", help="make gpu_crust.npz again, and stop")
    options = parser.parse_args()
    if options.pack:
        gpu_parts.pack_crust()
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU (gravmap doctor says why). --device cpu --tiny tries the script.", file=sys.stderr)
        return 5
    sizes = Sizes.small(options.device) if options.tiny else Sizes(options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[Callable[[Sizes], Iterable[Row]], float]] = {
        "Device": (gpu_parts.check_device, 60),
        "Tests": (gpu_parts.run_tests, 90),
        "Training steps of GGMNet": (partial(gpu_parts.time_steps, [sizes.model]), 120),
        "Fractions of a step": (gpu_parts.time_parts, 60),
        "Training on a crust": (gpu_parts.train_on_crust, 180),
        "An epoch of the paper's recipe": (gpu_parts.time_epoch, 150),
        "Deformable convolutions": (gpu_parts.time_deformable, 30),
        "Compilation": (gpu_parts.time_compiled, 120),
        "Training steps of other networks": (partial(gpu_parts.time_steps, gpu_parts.PEERS), 120),
    }
    begin = time.monotonic()
    results: Row = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "device": "the CPU",
        "tiny": options.tiny,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "sizes": asdict(sizes),
        "parts": {},
    }

    def note(title: str, result: Row) -> None:
        results["parts"][title] = result
        results["seconds"] = time.monotonic() - begin
        if options.device == "cuda" and title == "Device" and result["rows"]:
            results["device"] = result["rows"][0]["name"]
        write_json(options.output / "gpu.json", results)
        write_text(options.output / "gpu.md", report(results))
        outcome = f"not complete: {result['problem']}" if result["problem"] else f"{len(result['rows'])} rows"
        print(f"{title}: {result['seconds']:.0f} s, {outcome}", flush=True)

    for title, (part, limit_s) in parts.items():
        left_s = LIMIT_S - (time.monotonic() - begin)
        if left_s > 1:
            note(title, run([partial(part, sizes)], left_s if options.tiny else min(limit_s, left_s)))
        else:
            note(title, {"seconds": 0.0, "problem": f"no time left of {LIMIT_S:.0f} s", "rows": []})
    if options.gpus > 1:
        note("Scaling", run_scaling(sizes, options.gpus, 120))
    print(f"{options.output / 'gpu.md'}, {options.output / 'gpu.json'}")
    return int(any(part["problem"] for part in results["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
