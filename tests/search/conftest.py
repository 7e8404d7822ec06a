import pytest
import torch

from gravmap.learning import RegionDataset
from toys.dataset import make_arrays

torch.set_num_threads(1)


@pytest.fixture
def arrays():
    return make_arrays()


@pytest.fixture
def dataset(arrays):
    return RegionDataset.from_arrays(arrays)
