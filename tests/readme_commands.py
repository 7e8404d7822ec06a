"""The commands for installation, demo and tests in README.md, read from its fenced blocks; .ci/run executes them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def commands() -> dict[str, str]:
    """The commands, as {"install": .., "demo": .., "test": ..}."""
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    run = next(line for line in lines if line.startswith("pip install") and "gravmap demo" in line)
    install, demo = (part.strip() for part in run.split("&&"))
    test = next(line for line in lines if line.startswith("pip install") and "pytest" in line)
    return {"install": install, "demo": demo, "test": test}


if __name__ == "__main__":
    sys.stdout.write(commands()[sys.argv[1]] + "\n")
