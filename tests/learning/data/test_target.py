import numpy as np

from gravmap.learning.data.dataset import IGNORE, to_label, to_target


def test_the_shift_and_back():
    labels = np.array([[0, 1, 2], [10, 255, 7]], np.uint8)
    target = to_target(labels)
    assert target.dtype == np.int64
    assert target.tolist() == [[IGNORE, 0, 1], [9, IGNORE, 6]]
    assert to_label(target).tolist() == [[255, 1, 2], [10, 255, 7]]
    assert to_label(np.arange(10)).tolist() == list(range(1, 11))


def test_the_input_is_left_alone():
    labels = np.array([0, 255, 3], np.uint8)
    to_target(labels)
    assert labels.tolist() == [0, 255, 3]
