import pytest
import torch

from gravmap.learning import Area
from toy_area import make_arrays

torch.set_num_threads(1)


@pytest.fixture
def arrays():
    return make_arrays()


@pytest.fixture
def area(arrays):
    return Area.from_arrays(arrays)
