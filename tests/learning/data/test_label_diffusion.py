"""Chances of classes to be met first by a random walk: against scipy's direct solver, closed forms, and bad input."""

import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from gravmap.errors import InputError
from gravmap.learning.data import label_diffusion as diffusion
from gravmap.learning.data.label_diffusion import class_probabilities
from gravmap.learning.evaluation import baselines

SPACING = (3.7, 2.5)


def patches(shape, share, classes, seed=0):
    """Outcrop in patches of classes."""
    rng = np.random.default_rng(seed)
    rough, level = (ndimage.gaussian_filter(rng.normal(size=shape), 4) for _ in range(2))
    kinds = np.digitize(level, np.quantile(level, np.linspace(0, 1, classes + 1)[1:-1])) + 1
    return np.where(rough > np.quantile(rough, 1 - share), kinds, 0).astype(np.uint8)


def direct(known, spacing, classes, guide=None):
    """The same chances, put together differently: differences along each axis, weighted, and scipy's LU."""
    ny, nx = known.shape
    along = [
        sparse.kron(sparse.diags([-1.0, 1.0], [0, 1], shape=(ny - 1, ny)), sparse.eye(nx)) / spacing[0],
        sparse.kron(sparse.eye(ny), sparse.diags([-1.0, 1.0], [0, 1], shape=(nx - 1, nx))) / spacing[1],
    ]
    gradient = sparse.vstack(along).tocsr()
    weight = np.ones(gradient.shape[0])
    if guide is not None:
        steep = [(gradient @ field.ravel()) ** 2 for field in guide]
        weight = np.exp(-np.mean([each / each.mean() for each in steep], axis=0))
    laplacian = (gradient.T @ sparse.diags(weight) @ gradient).tocsr()
    seed = known.ravel() > 0
    found = np.zeros((known.size, classes))
    found[seed, known.ravel()[seed].astype(int) - 1] = 1
    right = -(laplacian[~seed][:, seed] @ found[seed])
    found[~seed] = spsolve(laplacian[~seed][:, ~seed].tocsc(), right)
    return found.T.reshape(classes, ny, nx)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_probabilities_are_those_of_scipys_direct_solver(share):
    known = patches((60, 90), share, 5)
    found = class_probabilities(known, SPACING, 5)
    assert found.dtype == np.float32
    assert np.abs(found - direct(known, SPACING, 5)).max() < 1e-5


def test_guided_chances_are_those_of_scipys_direct_solver():
    known = patches((60, 90), 0.1, 4)
    guide = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(2, 60, 90)), (0, 3, 3))
    found = class_probabilities(known, SPACING, 4, guide)
    assert np.abs(found - direct(known, SPACING, 4, guide)).max() < 1e-4
    assert np.abs(found - class_probabilities(known, SPACING, 4)).max() > 0.1  # the guide matters here


def test_between_two_shores_the_chance_is_a_straight_line():
    known = np.zeros((30, 101), np.uint8)
    known[:, 0], known[:, -1] = 1, 2
    found = class_probabilities(known, SPACING, 2)
    np.testing.assert_allclose(found[1], np.broadcast_to(np.linspace(0, 1, 101), (30, 101)), atol=2e-6)


def test_half_known_and_far_from_it_all_sums_to_one_and_the_known_stays():
    known = patches((50, 70), 0.2, 3)
    known[known == 2] = 3
    found = class_probabilities(known, SPACING, 6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    assert found.min() >= 0
    assert (found[[1, 3, 4, 5]] == 0).all()  # classes that are nowhere known
    for index in (1, 3):
        assert (found[index - 1][known == index] == 1).all()
        assert (found[index - 1][(known > 0) & (known != index)] == 0).all()


def test_the_same_outcrop_gives_the_same_bits():
    known = patches((60, 90), 0.3, 4)
    assert class_probabilities(known, SPACING, 4).tobytes() == class_probabilities(known, SPACING, 4).tobytes()


def test_where_conjugate_gradients_give_up_a_factorisation_takes_over(monkeypatch):
    known = patches((60, 90), 0.1, 4)
    monkeypatch.setattr(diffusion, "MAX_ITERATIONS", 1)
    assert np.abs(class_probabilities(known, SPACING, 4) - direct(known, SPACING, 4)).max() < 1e-6


def test_the_smallest_grids_and_one_class_alone():
    known = np.array([[1, 0], [2, 1]], np.uint8)
    np.testing.assert_allclose(class_probabilities(known, (1, 1), 2)[:, 0, 1], [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(class_probabilities(np.array([[1, 0, 2]], np.uint8), (1, 1), 2)[:, 0, 1], 0.5, atol=1e-6)
    one = np.zeros((20, 30), np.uint8)
    one[4, 7] = 2
    assert (class_probabilities(one, SPACING, 3)[1] == 1).all()
    full = np.full((4, 5), 3, np.uint8)
    assert (class_probabilities(full, SPACING, 3)[2] == 1).all()


def test_the_null_model_is_the_likeliest_class():
    known = patches((60, 90), 0.2, 5)
    exact = direct(known, SPACING, 5)
    sure = np.sort(exact, axis=0)[-1] - np.sort(exact, axis=0)[-2] > 1e-4
    assert sure.mean() > 0.99
    found = baselines.label_diffusion(known, SPACING)
    assert (found == exact.argmax(axis=0) + 1)[sure].all()


def test_nothing_known_and_unknown_classes_are_refused():
    with pytest.raises(InputError, match="No outcrop is known"):
        class_probabilities(np.zeros((5, 5), np.uint8), SPACING, 3)
    with pytest.raises(ValueError, match="class 4 is known, of 3"):
        class_probabilities(np.full((5, 5), 4, np.uint8), SPACING, 3)
