import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from gravmap.mapping.page.figures import ClassPanel, FieldPanel, _classes_shown, _edges, draw
from gravmap.plotting import NODATA_COLOUR, UNMAPPED_COLOUR

CLASSES = [
    {"index": 0, "name": "cover", "colour": "#F2F91D"},
    {"index": 1, "name": "Devonian", "colour": "#CB8C37"},
    {"index": 2, "name": "never here", "colour": "#12AB34"},
]
BOUNDS = (81.0, 43.0, 92.0, 48.0)


def share_of(picture, colour):
    return np.isclose(picture[..., :3], to_rgb(colour), atol=1.5 / 255).all(axis=-1).mean()


def draw_classes(path, values, **options):
    draw(path, [ClassPanel("Bedrock", values, BOUNDS, **options)], CLASSES, title="Junggar", notes=["a note"])
    return imread(path)


def test_areas_on_paper_are_those_of_the_map(tmp_path):
    values = np.zeros((50, 110), np.uint8)
    values[:, :55] = 1
    values[:10, 100:] = 255
    picture = draw_classes(tmp_path / "map.png", values)
    west, east = share_of(picture, "#CB8C37"), share_of(picture, "#F2F91D")
    assert west > 0.2
    assert east / west == pytest.approx(1 - 100 / 2750, abs=0.06)  # scale bar and graticule cover a little
    assert share_of(picture, NODATA_COLOUR) > 0
    # A class that does not occur is not in the legend.
    assert share_of(picture, "#12AB34") == 0


def test_north_is_up_and_east_is_right(tmp_path):
    values = np.zeros((50, 110), np.uint8)
    values[:10, 100:] = 1
    picture = draw_classes(tmp_path / "map.png", values)
    rows, cols = np.nonzero(np.isclose(picture[..., :3], to_rgb("#CB8C37"), atol=1.5 / 255).all(axis=-1))
    top = rows < picture.shape[0] * 0.6  # below lies the legend
    assert rows[top].mean() < picture.shape[0] * 0.3
    assert cols[top].mean() > picture.shape[1] * 0.75


def test_a_degree_of_longitude_is_drawn_shorter_than_one_of_latitude(tmp_path):
    values = np.zeros((50, 110), np.uint8)
    values[20:30, 40:50] = 1  # one degree by one degree
    picture = draw_classes(tmp_path / "map.png", values)
    found = np.isclose(picture[..., :3], to_rgb("#CB8C37"), atol=1.5 / 255).all(axis=-1)
    rows, cols = np.nonzero(found)
    top = rows < picture.shape[0] * 0.6
    height, width = np.ptp(rows[top]) + 1, np.ptp(cols[top]) + 1
    assert width / height == pytest.approx(np.cos(np.radians(45.5)), abs=0.03)


def test_an_outline_is_drawn(tmp_path):
    values = np.ones((50, 110), np.uint8)
    outline = np.zeros(values.shape, bool)
    outline[12:37, 23:88] = True  # off the graticule
    plain = draw_classes(tmp_path / "plain.png", values)
    outlined = draw_classes(tmp_path / "outlined.png", values, outline=outline)
    assert share_of(outlined, "#CB8C37") < share_of(plain, "#CB8C37")


def test_an_outline_follows_the_sides_of_its_cells():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = True  # from row 1 to 2, column 2 to 3
    segments = _edges(mask, (0, 0, 5, 4))
    length = sum(abs(x1 - x0) + abs(y1 - y0) for (x0, y0), (x1, y1) in segments)
    assert length == 8
    corners = {point for segment in segments for point in segment}
    assert {(2, 3), (4, 3), (2, 1), (4, 1)} <= corners
    assert all(2 <= x <= 4 and 1 <= y <= 3 for x, y in corners)


def test_unmapped_ground_is_dotted_and_in_the_legend(tmp_path):
    values = np.ones((50, 110), np.uint8)
    unmapped = np.zeros(values.shape, bool)
    unmapped[:, :55] = True
    plain = draw_classes(tmp_path / "plain.png", values)
    filled = draw_classes(tmp_path / "filled.png", values, unmapped=unmapped)
    values[:, :55] = 255
    blank = draw_classes(tmp_path / "blank.png", values, unmapped=unmapped)
    assert share_of(plain, UNMAPPED_COLOUR) == share_of(filled, UNMAPPED_COLOUR) == 0
    assert share_of(blank, UNMAPPED_COLOUR) > 0.2
    assert share_of(blank, NODATA_COLOUR) < 1e-3, "neither drawn as no data nor named so in the legend"
    assert share_of(filled, "#CB8C37") > 1.7 * share_of(blank, "#CB8C37")
    entries = [
        [patch.get_label() for patch in _classes_shown([ClassPanel("", values, BOUNDS, unmapped=each)], CLASSES)]
        for each in (unmapped, None)
    ]
    assert entries[0][-1] == "dotted: unmapped, not predicted"
    assert entries[1][-1] == "no data"
    values[:] = 1
    panel = ClassPanel("", values, BOUNDS, unmapped=unmapped)
    assert _classes_shown([panel], CLASSES)[-1].get_label() == "dotted: unmapped, predicted"
    field = np.where(unmapped, np.nan, 1.0)
    draw(tmp_path / "field.png", [FieldPanel("Entropy", "", field, BOUNDS, unmapped=unmapped)], [], title="")
    assert share_of(imread(tmp_path / "field.png"), UNMAPPED_COLOUR) > 0.2


def test_fields_with_holes_and_without_any_value(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 110))
    values[:, :30] = np.nan
    panels = [
        FieldPanel("Residual", "mGal", values, BOUNDS, diverging=True),
        FieldPanel("Nothing", "mGal", np.full((50, 110), np.nan), BOUNDS),
        ClassPanel("Bedrock", np.ones((50, 110), np.uint8), BOUNDS),
    ]
    draw(tmp_path / "two.png", panels, CLASSES, title="Fields", columns=2, panel_width_in=4)
    picture = imread(tmp_path / "two.png")
    assert share_of(picture, NODATA_COLOUR) > 0.1
    assert [entry.name for entry in tmp_path.iterdir()] == ["two.png"]
