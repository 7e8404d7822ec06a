import numpy as np
import pytest

from gravmap.errors import InputError
from gravmap.lattice import BUFFER, TEST, TUNE
from gravmap.learning import RegionDataset


def test_goes_through_an_npz_unchanged(area, tmp_path):
    area.save(tmp_path / "area.npz")
    back = RegionDataset.load(tmp_path / "area.npz")
    for name in ("fields", "field_valid", "labels", "small", "role", "windows", "window_scale_deg", "window_role"):
        np.testing.assert_array_equal(getattr(back, name), getattr(area, name))
    assert back.meta == area.meta
    assert back.fingerprint() == area.fingerprint()


def test_npz_holds_no_pickle(area, tmp_path):
    area.save(tmp_path / "area.npz")
    with np.load(tmp_path / "area.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)


def test_damaged_npz_is_refused(area, tmp_path):
    path = tmp_path / "area.npz"
    area.save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="readable packed tile set"):
        RegionDataset.load(path)
    with pytest.raises(InputError, match="missing"):
        RegionDataset.load(tmp_path / "none.npz")


def test_node_axes_are_north_up(area):
    assert area.node_lat[0] == 46.0
    assert area.node_lat[-1] == 42.0
    assert area.node_lon[0] == 80.0
    assert area.node_lon[-1] == 84.0
    np.testing.assert_allclose(np.diff(area.node_lon), 0.1, atol=1e-12)


def test_label_cells_by_hand(area):
    # Cells of 0.05 degrees from 46 N downwards and from 80 E eastwards.
    lat = np.array([45.999, 45.951, 45.95, 45.949, 42.001, 42.0, 41.99, 46.0, 46.01])
    assert area.label_rows(lat).tolist() == [0, 0, 1, 1, 79, 79, -1, 0, -1]
    lon = np.array([80.0, 80.049, 80.05, 80.15, 83.999, 84.0, 84.01, 79.99])
    assert area.label_columns(lon).tolist() == [0, 0, 1, 3, 79, 79, -1, -1]


def test_every_arc_minute_node_falls_into_the_cell_south_east_of_it(arrays):
    # 2' nodes lie on corners of 15" cells; floating point must not throw them to either side.
    arrays["labels"] = np.zeros((960, 960), np.uint8)
    arrays["small"] = arrays["role"] = arrays["labels"]
    area = RegionDataset.from_arrays(arrays)
    lon = 80 + np.arange(120) / 30
    assert area.label_columns(lon).tolist() == (np.arange(120) * 8).tolist()
    assert area.label_rows(46 - np.arange(120) / 30).tolist() == (np.arange(120) * 8).tolist()


def test_node_truth_reads_the_cell_under_the_node(area):
    labels, role = area.node_truth()
    assert labels.shape == role.shape == (41, 41)
    # Node (row 7, column 13) is at 45.3 N 81.3 E: cell row 14, column 26.
    assert labels[7, 13] == area.labels[14, 26]
    assert role[15, 15] == TUNE  # 44.5 N 81.5 E
    assert role[25, 25] == TEST
    assert role[25, 1] == BUFFER
    area.field_valid[7, 13] = False
    assert area.node_truth()[0][7, 13] == 255


def test_held_out_windows_give_the_role_under_a_split_by_windows(arrays):
    arrays["role"][:] = 0
    arrays["window_role"][0] = TEST  # 80-82 E, 42-44 N
    role = RegionDataset.from_arrays(arrays).node_truth()[1]
    assert role[30, 5] == TEST
    assert role[5, 5] == 0
    assert (role == TEST).sum() == 21 * 21


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", np.full((80, 80), 7, np.uint8), r"\[7\] are not among the 2 classes"),
        ("small", np.zeros((3, 3), np.uint8), "different shapes"),
        ("fields", np.zeros((1, 41, 41)), "float64"),
        ("fields", np.full((1, 41, 41), np.nan, np.float32), "not finite"),
        ("window_role", np.zeros(3, np.uint8), "differ in length"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, name, value, message):
    arrays[name] = value
    with pytest.raises(InputError, match=message):
        RegionDataset.from_arrays(arrays)


def test_missing_array_is_named(arrays):
    del arrays["small"]
    with pytest.raises(InputError, match="lack small"):
        RegionDataset.from_arrays(arrays)
