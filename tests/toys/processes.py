"""Processes forked from a test, for what one process cannot show: being killed, and waiting for another."""

import multiprocessing
import os
import socket
import traceback
from pathlib import Path

import torch

SECONDS = 120
FORK = multiprocessing.get_context("fork")

# torch starts the threads of the backward pass with the first one. After torch.compile or torch.export it would start
# some, and refuse the pass in a forked process; before, a CPU has none.
torch.ones((), requires_grad=True).backward()


def forked(*functions):
    """Run each function in its own process; what they return, or the exit status of those that died.

    The test fails if a process does not end in two minutes.
    """
    pipes = [FORK.Pipe(duplex=False) for _ in functions]
    children = [
        FORK.Process(target=_run, args=(function, sender))
        for function, (_, sender) in zip(functions, pipes, strict=True)
    ]
    for child in children:
        child.start()
    results = []
    for child, (receiver, sender) in zip(children, pipes, strict=True):
        sender.close()
        try:
            assert receiver.poll(SECONDS), "a process hangs"
            results.append(receiver.recv())
        except EOFError:
            child.join(SECONDS)
            results.append(child.exitcode)
        finally:
            if child.is_alive() and not results:
                child.kill()
    for child in children:
        child.join(SECONDS)
    return results


def in_group(function, size=2, **options):
    """Functions for :func:`forked` that call `function(group)` in a gloo group of `size` processes.

    `options` are those of `process_group`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def member(rank):
        from gravmap.learning.training.distributed import process_group

        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port
        )
        with process_group("cpu", **options) as group:
            return function(group)

    return [lambda rank=rank: member(rank) for rank in range(size)]


def running_workers():
    """Processes that live under the fork server of this process."""
    parents, servers = {}, set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if state != "Z":
                parents[entry.name] = parent
            if parent == str(os.getpid()) and "forkserver" in command:
                servers.add(entry.name)
    return [process for process, parent in parents.items() if parent in servers]


def _run(function, sender):
    try:
        sender.send(function())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sender.close()
    os._exit(0)
