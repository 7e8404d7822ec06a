"""A crust whose bedrock under cover is known: for the demo, the tests and the benchmarks."""

from __future__ import annotations

from gravmap.synthetic.crust import Crust, make_crust
from gravmap.synthetic.rocks import RockTable, load_rocks

__all__ = ["Crust", "RockTable", "load_rocks", "make_crust"]
