"""A run's scores against maps whose errors were planted, node by node."""

import json
import shutil

import geopandas
import numpy as np
import pytest
from pyproj import Geod
from shapely import Point, box

from gravmap.errors import InputError
from gravmap.geology.points import read_points
from gravmap.lattice import TEST
from gravmap.learning.data.dataset import RegionDataset
from gravmap.mapping.scoring import evaluate as module
from gravmap.mapping.scoring.evaluate import EvaluateOptions, evaluate_run
from gravmap.mapping.scoring.evaluation_nodes import EvaluationNodes, node_areas_km2
from gravmap.mapping.scoring.finished_run import finished_runs
from gravmap.tiling import load_arrays
from toys.workspace import make_tiled, tile, train, write_labels

QUICK = ("majority", "nearest_outcrop")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("scored")
    make_tiled(root)
    train(root, "one", "--fold", 1)
    return root


@pytest.fixture
def workspace(made, tmp_path):
    return shutil.copytree(made, tmp_path / "ws")


@pytest.fixture
def area(made):
    return RegionDataset.from_arrays(load_arrays(made / "data" / "tiles", fold=1))


@pytest.fixture
def truth(area):
    """Labels of the test blocks' nodes; 0 elsewhere."""
    labels, roles = area.node_truth()
    return np.where((roles == TEST) & (labels != 255), labels, 0)


@pytest.fixture
def planted(truth, monkeypatch):
    """A map that is right but for the south, where all is called low."""
    named = np.where(truth > 0, truth, 1).astype(np.uint8)
    named[20:] = 2
    monkeypatch.setattr(module, "predict_class_map", lambda folder, area, wanted, **how: named)
    return named


def run(workspace, **options):
    """Null models that take no time; pictures take longer than all the rest, and one test looks at them."""
    options = EvaluateOptions(**{"null_models": QUICK, "pictures": False, **options})
    return evaluate_run(workspace / "runs" / "one", workspace / "data" / "tiles", options)


def test_every_node_of_the_test_blocks_is_counted_once(workspace, truth, planted):
    record = run(workspace).record
    counted = truth > 0
    assert record["scores"]["places"] == counted.sum()
    assert record["scores"]["pa"] == pytest.approx((planted == truth)[counted].mean())
    for number, name in enumerate(("high", "low", "rare"), start=1):
        mine = truth == number
        each = record["scores"]["per_class"][name]
        assert each["places"] == mine.sum()
        if mine.any():
            assert each["recall"] == pytest.approx((planted[mine] == number).mean())
        else:
            assert name in record["scores"]["absent"]
    assert json.loads((workspace / "runs" / "one" / "evaluation.json").read_text()) == json.loads(json.dumps(record))


def test_areas_on_the_ellipsoid(workspace, area, truth, planted):
    """Against PROJ's geodesic areas of the very cells; the south weighs more."""
    geod = Geod(ellps="WGS84")
    cells = np.zeros(len(area.node_lat))
    for row, lat in enumerate(area.node_lat):
        # Parallels are no geodesics: many corners along them.
        ring = box(82 - 0.05, lat - 0.05, 82 + 0.05, lat + 0.05).segmentize(0.002)
        cells[row] = abs(geod.geometry_area_perimeter(ring)[0]) / 1e6
    areas = node_areas_km2(area)
    assert areas == pytest.approx(np.repeat(cells[:, None], areas.shape[1], axis=1), rel=1e-6)
    record = run(workspace, by_area=True).record
    km2 = areas[truth > 0]
    right = (planted == truth)[truth > 0]
    assert record["scores"]["km2"] == pytest.approx(km2.sum())
    assert record["scores"]["pa"] == pytest.approx((km2 * right).sum() / km2.sum())
    assert record["scores"]["pa"] != pytest.approx(right.mean(), abs=1e-4)
    assert sum(row["km2"] for row in record["distance"]) == pytest.approx(km2.sum())
    assert sum(row["places"] for row in record["distance"]) == right.size


def test_distance_to_what_training_saw(workspace, area, truth, planted):
    """Against PROJ's geodesics to every node whose label training sees."""
    labels, roles = area.node_truth()
    lat, lon = np.meshgrid(area.node_lat, area.node_lon, indexing="ij")
    trained = (roles == 0) & (labels > 0) & (labels != 255)
    rows = run(workspace).record["distance"]
    geod = Geod(ellps="sphere", a=6371000.0, b=6371000.0)
    away = []
    for y, x in zip(lat[truth > 0], lon[truth > 0], strict=True):
        count = int(trained.sum())
        _, _, metres = geod.inv(np.full(count, x), np.full(count, y), lon[trained], lat[trained])
        away.append(metres.min() / 1000)
    away = np.array(away)
    right = (planted == truth)[truth > 0]
    assert sum(row["places"] for row in rows) == away.size
    for row in rows:
        inside = (away > row["from_km"]) & (away <= (row["to_km"] or np.inf))
        assert row["places"] == inside.sum()
        assert row["mean_km"] == pytest.approx(away[inside].mean(), rel=1e-3)
        assert row["pa"] == pytest.approx(right[inside].mean())


def test_null_models_stand_on_the_same_nodes(workspace, area, truth, planted):
    found = run(workspace, baselines=True)
    record = found.record
    assert set(record["baselines"]) == {*QUICK, "foreign_gravity"}
    assert {row["places"] for row in record["baselines"].values()} == {int((truth > 0).sum())}
    labels, roles = area.node_truth()
    commonest = np.bincount(labels[(roles == 0) & (labels > 0) & (labels != 255)]).argmax()
    assert record["baselines"]["majority"]["pa"] == pytest.approx((truth[truth > 0] == commonest).mean())
    for row in record["distance"]:
        assert set(row["baselines"]) == set(record["baselines"])
    assert "topography_forest" in record["baselines_left_out"]
    over = next(each for each in record["gravity_adds"] if (each["null"], each["measure"]) == ("nearest_outcrop", "pa"))
    assert over["mean"] == pytest.approx(record["scores"]["pa"] - record["baselines"]["nearest_outcrop"]["pa"])
    assert over["low"] <= over["mean"] <= over["high"]
    blocks = {(int((46 - lat) // 1), int((lon - 80) // 1)) for lat, lon in _places(area, truth)}
    assert over["blocks"] == len(blocks)


def _places(area, truth):
    lat, lon = np.meshgrid(area.node_lat, area.node_lon, indexing="ij")
    # A node between two blocks is in the southern, or the eastern, one; on the far side it is beyond the last.
    return zip((lat - 1e-9)[truth > 0], (lon + 1e-9)[truth > 0], strict=True)


def test_boreholes(workspace, area, planted, tmp_path):
    """Points in a projection, some outside, some with a class that is none; each scored at its node."""
    rng = np.random.default_rng(2)
    lon, lat = rng.uniform(80, 84.5, 80), rng.uniform(42, 46, 80)
    rock = rng.choice(["high", "Low", "gabbro"], 80, p=[0.4, 0.5, 0.1])
    wells = geopandas.GeoDataFrame({"rock": rock}, geometry=[Point(*at) for at in zip(lon, lat, strict=True)])
    wells.set_crs("EPSG:4326").to_crs("EPSG:32644").to_file(tmp_path / "wells.gpkg")
    holes = read_points(tmp_path / "wells.gpkg", "rock")
    points = run(workspace, points=holes, baselines=True).record["points"]
    inside = lon <= 84.05
    known = inside & (rock != "gabbro")
    assert points["read"] == 80
    assert points["outside"] == (~inside).sum()
    assert points["unknown_class"] == {"gabbro": (inside & (rock == "gabbro")).sum()}
    assert points["scored"] == points["scores"]["places"] == known.sum()
    row = np.abs(area.node_lat[None] - lat[:, None]).argmin(axis=1)
    column = np.abs(area.node_lon[None] - lon[:, None]).argmin(axis=1)
    stated = np.where(rock == "high", 1, 2)
    right = planted[row, column] == stated
    assert points["scores"]["pa"] == pytest.approx(right[known].mean())
    assert sum(each["places"] for each in points["distance"]) == known.sum()
    assert points["distance"][0]["to_km"] == 0, "some stand on outcrop that training saw"
    assert points["baselines"]["majority"]["places"] == known.sum()


def test_no_tuning_nodes_no_importance_of_fields(workspace, planted, monkeypatch):
    """Scores do not need tuning blocks; the importance of a field is measured there or not at all."""
    monkeypatch.setattr(module, "labelled_mask", lambda area, role: np.zeros(area.field_valid.shape, bool))
    record = run(workspace, importance=True).record
    assert "importance" not in record
    assert "tuning blocks" in record["importance_left_out"]
    assert record["scores"]["places"] > 0


def test_no_test_nodes_no_score(workspace):
    arrays = load_arrays(workspace / "data" / "tiles", fold=1)
    arrays["role"][arrays["role"] == TEST] = 3
    with pytest.raises(InputError, match=r"run one cannot be scored: no labelled node .* fold 1 of the split blocks"):
        EvaluationNodes.of(RegionDataset.from_arrays(arrays), False, "one")


def test_a_tile_set_that_has_changed_is_refused(workspace):
    write_labels(workspace, seed=5)
    with pytest.raises(InputError, match="changed since the tile set"):
        run(workspace)
    tile(workspace, "--overwrite")
    with pytest.raises(InputError, match="not the one one was trained on"):
        run(workspace)
    assert not (workspace / "runs" / "one" / "evaluation.json").exists()


def test_legends_that_differ_are_refused(workspace):
    write_labels(workspace, names=("cover", "high", "deep", "rare"))
    tile(workspace, "--overwrite")
    with pytest.raises(InputError, match=r"trained on other classes than .*: class 2 is low there and deep here"):
        run(workspace)


def test_only_finished_runs(workspace):
    runs = workspace / "runs"
    assert finished_runs(runs) == [runs / "one"]
    shutil.copytree(runs / "one", runs / "broken")
    (runs / "broken" / "scores.json").unlink()
    assert finished_runs(runs) == [runs / "one"]
    with pytest.raises(InputError, match="broken is not finished"):
        evaluate_run(runs / "broken", workspace / "data" / "tiles")


def test_pictures(workspace, planted):
    from matplotlib.image import imread

    run(workspace, baselines=True, pictures=True)
    for name in ("confusion.png", "distance.png"):
        picture = imread(workspace / "runs" / "one" / name)
        assert picture.shape[1] > 400
        colours = (255 * picture[..., :3]).round().astype(int) @ (65536, 256, 1)
        assert len(np.unique(colours)) > 30
