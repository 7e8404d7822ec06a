"""What every test needs set before anything is imported."""

import os

# The tests run in two processes: more threads than cores would make torch many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
