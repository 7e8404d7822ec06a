"""What is drawn from a map's files, against what was put into them."""

import numpy as np
import pytest
import rasterio
import shapely
from matplotlib.image import imread
from pyproj import Geod

from gravmap.errors import InputError
from gravmap.mapping.layers import COVERED, EVIDENCE_COLOURS, EXTRAPOLATED, NEAR, NODATA, OUTCROP
from gravmap.mapping.page.facts import measure_areas
from gravmap.mapping.page.figures import draw_pictures
from gravmap.mapping.page.paint import border, paint_classes, paint_measure, png
from gravmap.mapping.page.sheet import read_sheet
from gravmap.plotting import GREY, NODATA_COLOUR, UNMAPPED_COLOUR
from toys.map import LEGEND
from toys.map_folder import BOUNDS, COLUMNS, ROWS, make_layers, make_map


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_map(tmp_path_factory.mktemp("maps") / "turpan-hami")


def test_a_border_is_the_sides_between_inside_and_outside():
    mask = np.random.default_rng(0).random((13, 17)) < 0.4
    level, upright = border(mask)
    length = (level[:, 2] - level[:, 1]).sum() + (upright[:, 2] - upright[:, 1]).sum()
    assert length == (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    # Filled from the left, changing at every upright piece, the mask comes back.
    again = np.repeat(mask[:, :1], mask.shape[1], axis=1)
    for column, first, last in upright:
        again[first:last, column:] ^= True
    assert (again == mask).all()
    box = np.zeros((6, 8), bool)
    box[2:4, 3:7] = True
    level, upright = border(box)
    assert sorted(map(tuple, level)) == [(2, 3, 7), (4, 3, 7)]
    assert sorted(map(tuple, upright)) == [(3, 2, 4), (7, 2, 4)]


def test_classes_have_their_colours_and_are_hatched_only_on_request():
    values = np.array([[1, 2], [2, 255]], np.uint8)
    plain = paint_classes(values, {1: "#102030", 2: "#F00A0B"}, width_px=200)
    assert plain.shape == (200, 200, 3)
    assert plain[50, 50].tolist() == [0x10, 0x20, 0x30]
    assert plain[50, 150].tolist() == plain[150, 50].tolist() == [0xF0, 0x0A, 0x0B]
    assert "#{:02X}{:02X}{:02X}".format(*plain[150, 150]) == NODATA_COLOUR
    ruled = paint_classes(values, {1: "#102030", 2: "#F00A0B"}, width_px=200, ruled=values == 1, period_px=10)
    changed = (ruled != plain).any(axis=-1)
    assert not changed[100:].any()
    assert not changed[:, 100:].any()
    assert changed[:100, :100].mean() == pytest.approx(0.3, abs=0.01)
    assert (ruled[changed] >= plain[changed]).all(), "lines are lighter than what they lie on"


def test_unmapped_ground_has_dots_of_its_own():
    values = np.array([[1, 255, 255]], np.uint8)
    unmapped = np.array([[True, True, False]])
    drawn = paint_classes(values, {1: "#102030"}, width_px=300, unmapped=unmapped, period_px=10)
    colours = ["#{:02X}{:02X}{:02X}".format(*colour) for colour in np.unique(drawn.reshape(-1, 3), axis=0)]
    assert sorted(colours) == sorted(["#102030", GREY, NODATA_COLOUR, UNMAPPED_COLOUR])
    dots = (drawn == np.array([0x55, 0x55, 0x55])).all(axis=-1)
    assert not dots[:, 200:].any()
    for part in (dots[:, :100], dots[:, 100:200]):
        assert 0.04 < part.mean() < 0.15
    assert (drawn[:, 100:200][~dots[:, 100:200]] == [0xF5, 0xEE, 0xDC]).all(), "blank below the dots"
    measure, _ = paint_measure(np.array([[0.5, np.nan, np.nan]]), "cividis", (0, 1), width_px=300, unmapped=unmapped)
    found = {tuple(colour) for colour in measure[:, 100:200].reshape(-1, 3).tolist()}
    assert found == {(0xF5, 0xEE, 0xDC), (0x55, 0x55, 0x55)}
    assert "#{:02X}{:02X}{:02X}".format(*measure[50, 250]) == NODATA_COLOUR


def test_reduced_cells_that_are_mostly_unmapped_are_blank(tmp_path):
    """Mode and mean pass over no data: a cell of two columns, of which one has a class, would get that class."""
    folder = make_map(tmp_path / "map", unmapped="blank")
    sheet = read_sheet(folder, longest_px=8)  # cells of 7.5 columns: the second is unmapped in a third of it
    assert (sheet.lithology[:, 0] == NODATA).all()
    assert np.isnan(sheet.measures["entropy"][:, 0]).all()
    assert sheet.unmapped[:, 0].all()
    assert ((sheet.lithology == NODATA) | ~sheet.unmapped).all()
    assert not (sheet.predicted & sheet.unmapped).any()
    filled = read_sheet(make_map(tmp_path / "filled", unmapped="predicted"))
    assert (filled.lithology[:, :10] == 6).all()
    assert filled.unmapped[:, :10].all()
    assert not filled.predicted[:, :10].any(), "not ruled"
    assert read_sheet(make_map(tmp_path / "all")).unmapped is None


def test_a_measure_is_dark_where_low_and_grey_where_unknown(tmp_path):
    values = np.array([[0.0, 0.5, 1.0, np.nan]])
    picture, scale = paint_measure(values, "cividis", (0, 1))
    light = picture[0].astype(int).sum(axis=-1)
    assert light[0] < light[1] < light[2]
    assert "#{:02X}{:02X}{:02X}".format(*picture[0, 0]) == scale[0]
    assert "#{:02X}{:02X}{:02X}".format(*picture[0, 2]) == scale[-1]
    assert "#{:02X}{:02X}{:02X}".format(*picture[0, 3]) == NODATA_COLOUR
    (tmp_path / "measure.png").write_bytes(png(picture))
    stored = imread(tmp_path / "measure.png")
    assert (np.rint(255 * stored[..., :3]) == picture).all()


def test_what_was_written_is_read(finished):
    lithology, evidence, entropy = make_layers()
    sheet = read_sheet(finished)
    assert sheet.bounds_wsen == pytest.approx(BOUNDS)
    assert (sheet.lithology == lithology).all()
    assert (sheet.evidence == evidence).all()
    assert np.allclose(sheet.measures["entropy"], entropy, atol=1 / 400 + 1e-6, equal_nan=True)
    assert sheet.evidence_names[NEAR] == "within 25 km of mapped outcrop"
    named = {entry["index"]: (entry["name"], entry["colour"]) for entry in sheet.classes}
    assert named[6] == ("Devonian", "#CB8C37")
    assert sheet.as_mapped


def test_a_large_map_is_read_small_with_its_fractions(finished):
    sheet = read_sheet(finished, longest_px=30)
    lithology, _, entropy = make_layers()
    assert sheet.lithology.shape == (ROWS // 2, COLUMNS // 2)
    assert sheet.bounds_wsen == pytest.approx(BOUNDS)
    for value in (6, 9):
        assert (sheet.lithology == value).mean() == pytest.approx((lithology == value).mean(), abs=0.01)
    assert np.nanmean(sheet.measures["entropy"]) == pytest.approx(np.nanmean(entropy), abs=0.01)


def test_a_projected_map_is_drawn_in_degrees_where_it_lies(tmp_path):
    sheet = read_sheet(make_map(tmp_path / "utm", crs="EPSG:32645"))
    west, south, east, north = sheet.bounds_wsen
    assert (west, south, east, north) == pytest.approx(BOUNDS, abs=0.15)
    lithology, _, _ = make_layers()
    lat = north - (np.arange(sheet.lithology.shape[0]) + 0.5) / sheet.lithology.shape[0] * (north - south)
    lon = west + (np.arange(sheet.lithology.shape[1]) + 0.5) / sheet.lithology.shape[1] * (east - west)
    row, column = np.floor((BOUNDS[3] - lat) / 0.1).astype(int), np.floor((lon - BOUNDS[0]) / 0.1).astype(int)
    inside = ((row >= 0) & (row < ROWS))[:, None] & ((column >= 0) & (column < COLUMNS))[None, :]
    wanted = np.where(
        inside, lithology[np.clip(row, 0, ROWS - 1)[:, None], np.clip(column, 0, COLUMNS - 1)[None]], NODATA
    )
    assert (sheet.lithology == wanted).mean() > 0.95
    assert sheet.crs == "EPSG:32645"


def test_layers_that_are_not_there_or_do_not_fit(finished, tmp_path):
    with pytest.raises(InputError, match=r"lithology\.tif is missing"):
        read_sheet(tmp_path)
    bare = make_map(tmp_path / "bare")
    (bare / "evidence.tif").unlink()
    (bare / "uncertainty.tif").unlink()
    sheet = read_sheet(bare)
    assert sheet.evidence is None
    assert not sheet.measures
    assert not sheet.as_mapped
    with rasterio.open(finished / "evidence.tif") as whole:
        profile = {**whole.profile, "height": 20, "driver": "GTiff"}
        part = whole.read(1)[:20]
    with rasterio.open(bare / "evidence.tif", "w", **profile) as raster:
        raster.write(part, 1)
    with pytest.raises(InputError, match="does not have the cells"):
        read_sheet(bare)
    (bare / "lithology.tif").write_bytes(b"no raster")
    with pytest.raises(InputError, match="not a readable raster"):
        read_sheet(bare)


@pytest.mark.parametrize("crs", [None, "EPSG:32645"])
def test_areas_are_those_of_the_ellipsoid(tmp_path, crs):
    areas = measure_areas(make_map(tmp_path / "map", crs=crs))

    def box_km2(west, south, east, north):
        # Parallels are curves: geodesics between many points on them.
        ring = shapely.segmentize(shapely.box(west, south, east, north), 0.05)
        return abs(Geod(ellps="WGS84").geometry_area_perimeter(ring)[0]) / 1e6

    exact = 1e-5 if crs is None else 0.01
    west, south, east, north = BOUNDS
    outcrop = box_km2(west, north - 1, west + 2, north)
    assert areas.of_class(6, OUTCROP) == pytest.approx(outcrop, rel=exact)
    assert areas.of_class(6) == pytest.approx(box_km2(west, south, west + 2, north), rel=exact)
    missing = box_km2(east - 1, south, east, south + 0.5)
    assert areas.of_evidence() == pytest.approx(box_km2(*BOUNDS) - missing, rel=exact)
    extrapolated = box_km2(west, south, east, south + 1) - missing
    assert areas.of_evidence(EXTRAPOLATED) == pytest.approx(extrapolated, rel=exact)
    parts = sum(areas.of_evidence(value) for value in (OUTCROP, NEAR, COVERED, EXTRAPOLATED))
    assert parts == pytest.approx(areas.of_evidence(), rel=1e-9)


@pytest.mark.slow
def test_pictures_for_print(finished):
    written = draw_pictures(finished, LEGEND, title="Toy", notes=["a credit that is long " * 12])
    assert [path.name for path in written] == ["map.png", "map.pdf", "uncertainty.png", "uncertainty.pdf"]
    shares = {}
    for path in written:
        if path.suffix == ".png":
            picture = np.rint(255 * imread(path)[..., :3]).astype(np.int16)
            shares[path.stem] = lambda colour, picture=picture: share_of(picture, colour)
            rows, columns = picture.shape[:2]
            per_metre = int.from_bytes(path.read_bytes().split(b"pHYs")[1][:4], "big")
            assert per_metre * 0.0254 == pytest.approx(300, abs=0.1)
        else:
            box = path.read_bytes().split(b"/MediaBox [")[1].split(b"]")[0].split()
            assert [float(side) / 72 * 300 for side in box[2:]] == pytest.approx([columns, rows], abs=3)
    # Devonian and Mesozoic occur, and nothing else comes into the legend.
    assert shares["map"]("#CB8C37") > 0.1
    assert shares["map"]("#85D7E7") > 0.15
    assert shares["map"](LEGEND.bedrock[0].colour) == 0
    lithology, evidence, _ = make_layers()
    hidden = ((evidence != OUTCROP) & (lithology == 6)).sum() / (lithology == 6).sum()
    lighter = np.rint(255 * 0.55 + 0.45 * np.array([0xCB, 0x8C, 0x37]))
    ruled = shares["map"]("#{:02X}{:02X}{:02X}".format(*lighter.astype(int)))
    assert ruled / (ruled + shares["map"]("#CB8C37")) == pytest.approx(0.3 * hidden, abs=0.04)
    for value in (OUTCROP, NEAR, COVERED, EXTRAPOLATED):
        assert shares["uncertainty"](EVIDENCE_COLOURS[value]) > 0.005


def test_without_doubts_there_is_one_picture(tmp_path):
    folder = make_map(tmp_path / "map")
    for name in ("evidence.tif", "uncertainty.tif"):
        (folder / name).unlink()
    assert [path.name for path in draw_pictures(folder, LEGEND, title="Toy")] == ["map.png", "map.pdf"]
    assert not (folder / "uncertainty.png").exists()


def share_of(picture, colour):
    wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
    return (np.abs(picture - wanted) <= 1).all(axis=-1).mean()
