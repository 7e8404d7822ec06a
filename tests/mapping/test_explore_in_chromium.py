"""The page to explore a map in a real browser: it runs without errors and shows the values of the cell it points at."""

import json
import re

import numpy as np
import pytest
from matplotlib.image import imread

from gravmap.mapping.layers import COVERED, OUTCROP
from gravmap.mapping.page.explore import write_explore_page
from toys.browser import BROWSER, browse
from toys.explorable import make_explorable
from toys.layers import LEGEND

pytest.importorskip("bokeh")
pytestmark = [pytest.mark.chromium, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]

# Moves the pointer and clicks as a person does, and leaves what the page then shows in an attribute of its body.
PROBE = """<script>
const sleep = ms => new Promise(done => setTimeout(done, ms));
const shown = id => document.getElementById(id).innerText;
addEventListener("load", async () => {
  while (document.body.dataset.ready !== "yes") await sleep(50);
  const find = name => Bokeh.documents.map(each => each.get_model_by_name(name)).find(model => model != null);
  const view = Bokeh.index.find_one(find("map")), target = view.canvas_view.events_el;
  function fire(kind, [lon, lat]) {
    const box = target.getBoundingClientRect();
    target.dispatchEvent(new PointerEvent(kind, {
      clientX: box.left + view.frame.x_scale.compute(lon), clientY: box.top + view.frame.y_scale.compute(lat),
      bubbles: true, pointerId: 1, pointerType: "mouse", isPrimary: true,
      button: kind === "pointermove" ? -1 : 0, buttons: kind === "pointerdown" ? 1 : 0,
    }));
  }
  async function point(place) { fire("pointermove", place); await sleep(50); }
  async function click(place) {
    await point(place);
    fire("pointerdown", place);
    await sleep(20);
    fire("pointerup", place);
    await sleep(400);
  }
  const found = {places: [], layers: {}};
  for (const place of PLACES) {
    await point(place);
    const bars = [...document.querySelectorAll(".bar")].map(bar => bar.innerText.split("\\n").map(each => each.trim()));
    found.places.push({place: shown("place"), kind: shown("class"), values: shown("values"), bars});
  }
  const image = () => Array.from(find("image").get_column("image")[0]);
  found.northwest = image()[(ROWS - 1) * COLUMNS];  // Bokeh's first row is the southernmost
  for (const input of document.querySelectorAll("#layers input")) {
    input.click();
    found.layers[input.value] = [shown("legend-title"), new Set(image()).size];
  }
  document.querySelector(".bar:nth-child(3)").click();
  found.layers.clicked = [shown("legend-title"), new Set(image()).size];
  document.querySelector("#layers input").click();
  for (const place of TRACK) await click(place);
  const runs = {...find("runs").data}, {km, residual} = find("curves").data;
  found.profile = {title: shown("profile-title"), runs, km: km.at(-1), residual: [...residual]};
  const {x_range: x, y_range: y, inner_width, inner_height} = find("map");
  found.axis = find("profile").left[0].axis_label;
  document.getElementById("profile-close").click();
  found.closed = [shown("profile-title"), document.body.className, find("track").data.x.length];
  const names = [...document.querySelectorAll(".bar > :first-child")];
  found.cut = names.filter(name => name.scrollWidth > name.clientWidth).length;
  found.whole = [x.start, x.end, y.start, y.end];
  found.size = [inner_width, inner_height];
  document.body.setAttribute("data-found", JSON.stringify(found));
});
</script></body>"""
UNTICK = """<script>
addEventListener("load", async () => {
  while (document.body.dataset.ready !== "yes") await new Promise(done => setTimeout(done, 50));
  document.querySelector("#overlays input[value=ruled]").click();
});
</script></body>"""
ROWS, COLUMNS, STEP, WEST, NORTH = 30, 45, 1 / 30, 81.0, 48.0


def centre(row, column):
    return WEST + (column + 0.5) * STEP, NORTH - (row + 0.5) * STEP


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    whole = make_explorable(folder / "map", ROWS, COLUMNS)
    page = write_explore_page(folder / "map").path
    # One cell of outcrop, one predicted under cover, one without data.
    cells = [tuple(np.argwhere(whole.evidence == kind)[3].tolist()) for kind in (OUTCROP, COVERED)]
    cells.append((ROWS - 1, COLUMNS - 1))
    places = json.dumps([centre(*cell) for cell in cells])
    track = json.dumps([centre(2, 3), centre(2, 40)])
    probe = page.with_name("probe.html")
    text = page.read_text(encoding="utf-8")
    script = PROBE.replace("PLACES", places).replace("TRACK", track)
    script = script.replace("ROWS", str(ROWS)).replace("COLUMNS", str(COLUMNS))
    probe.write_text(text.replace("</body>", script), encoding="utf-8")
    dumped, messages = browse(probe, "--virtual-time-budget=20000", "--window-size=1400,900", "--dump-dom")
    found = re.search(r'data-found="([^"]*)"', dumped)
    assert found, messages
    return whole, cells, json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&")), messages, page


def test_it_opens_without_errors(seen):
    *_, messages, page = seen
    assert all("[bokeh" in line and ":INFO:" in line for line in messages), messages
    assert not any("unknown" in line for line in messages), messages
    _, alone = browse(page, "--virtual-time-budget=5000", "--dump-dom")
    assert all("[bokeh" in line and ":INFO:" in line for line in alone), alone


def test_the_pointer_shows_the_values_of_its_cell(seen):
    whole, cells, found, *_ = seen
    for (row, column), reading in list(zip(cells, found["places"], strict=True))[:2]:
        lon, lat = centre(row, column)
        assert reading["place"] == f"{lat:.3f}°\u202fN, {lon:.3f}°\u202fE"
        entry = LEGEND.bedrock[whole.lithology[row, column] - 1]
        assert reading["kind"].strip() == entry.name
        numbers = [
            [each.name, f"{int(200 * p + 0.5) / 2 + 1e-9:.0f}\u202f%"]
            for each, p in zip(LEGEND.bedrock, whole.probability[:, row, column], strict=True)
        ]
        for (name, text), (expected, percent) in zip(reading["bars"], numbers, strict=True):
            assert name == expected
            assert abs(int(text.split("\u202f")[0]) - int(percent.split("\u202f")[0])) <= 1
        residual, bouguer = whole.gravity_mgal[:, row, column]
        assert signed(residual, "+") + "\u202fmGal" in reading["values"]
        assert signed(bouguer) + "\u202fmGal" in reading["values"]
        assert f"{whole.outcrop_km[row, column]:.1f}\u202fkm" in reading["values"]
    mapped, predicted, nothing = (reading["values"] for reading in found["places"])
    assert "as mapped" in mapped
    assert "mapped outcrop" in mapped
    assert "predicted" in predicted
    median = whole.cover_m[0][cells[1]]
    assert f"{float(f'{median:.3g}'):,.0f}".replace(",", "\u202f") + "\u202fm (" in predicted
    assert found["places"][2]["kind"] == "No data"
    assert "predicted" not in nothing


def signed(value, plus=""):
    text = f"{abs(round(float(value), 1)):.1f}"
    return text if float(text) == 0 else ("\u2212" if value < 0 else plus) + text


def test_every_layer_is_painted_and_a_class_opens_its_probability(seen):
    layers = seen[2]["layers"]
    assert {"lithology", "null_model", "entropy", "evidence", "thickness_median", "residual_10km", "bouguer"} < set(
        layers
    )
    assert all(colours > 1 for _, colours in layers.values())
    assert layers["lithology"][1] == len(np.unique(seen[0].lithology))
    red, green, blue = bytes.fromhex(LEGEND.bedrock[seen[0].lithology[0, 0] - 1].colour[1:])
    assert seen[2]["northwest"] == 0xFF << 24 | blue << 16 | green << 8 | red
    assert layers["residual_10km"][0].lower() == "residual gravity 10 km, mgal"
    assert layers["clicked"][0].lower() == "probability of cambrian"


def test_two_clicks_draw_a_profile(seen):
    whole, _, found, *_ = seen
    profile = found["profile"]
    assert profile["km"] == pytest.approx(37 / 30 * 111.195 * np.cos(np.radians(NORTH - 2.5 / 30)), rel=2e-3)
    assert profile["title"].startswith("Profile from A (47.917°\u202fN, 81.117°\u202fE) to B")
    row = whole.lithology[2, 3:41]
    changes = [
        colour for colour, name in zip(profile["runs"]["colour"], profile["runs"]["y"], strict=True) if name == "map"
    ]
    # A run ends where the class changes, or mapped ground becomes predicted.
    ruled = whole.evidence[2, 3:41] != OUTCROP
    starts = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (ruled[1:] != ruled[:-1])])
    assert changes == [LEGEND.bedrock[value - 1].colour for value in row[starts]]
    residual = np.array(profile["residual"])
    assert residual[0] == pytest.approx(whole.gravity_mgal[0, 2, 3], abs=0.05)
    assert residual[-1] == pytest.approx(whole.gravity_mgal[0, 2, 40], abs=0.05)


def test_the_profile_names_its_residual_and_can_be_closed(seen):
    found = seen[2]
    assert found["axis"] == "residual 10 km, mGal"
    assert found["closed"] == ["Click two places on the map for a profile between them.", "", 0]
    assert found["cut"] == 0, "every name of a class is shown in full"


def test_a_kilometre_is_as_long_to_the_north_as_to_the_east(seen):
    west, east, south, north = seen[2]["whole"]
    width, height = seen[2]["size"]
    assert (north - south) / height == pytest.approx((east - west) / width * np.cos(np.radians(47.5)), rel=1e-3)
    assert west <= WEST
    assert south <= NORTH - ROWS * STEP


def test_the_legends_colours_and_the_ruling_are_on_the_screen(seen):
    whole, *_, page = seen
    largest = np.bincount(whole.lithology[whole.evidence != OUTCROP], minlength=256)[:255].argmax()
    colour = np.array(list(bytes.fromhex(LEGEND.bedrock[largest - 1].colour[1:])))

    def shares(path):
        """Of the pixels in the colour of the class, and of those on the way from it to white."""
        shot = path.with_suffix(".png")
        browse(path, "--virtual-time-budget=5000", "--window-size=1400,900", f"--screenshot={shot}")
        picture = np.rint(255 * imread(shot)[..., :3]).astype(int)
        fraction = ((picture - colour) / (255 - colour)).mean(axis=-1)
        off = np.abs(picture - (colour + fraction[..., None] * (255 - colour))).max(axis=-1)
        return (off + np.abs(fraction) <= 3).mean(), ((off <= 4) & (fraction > 0.2) & (fraction < 0.6)).mean()

    plain = page.with_name("plain.html")
    plain.write_text(page.read_text(encoding="utf-8").replace("</body>", UNTICK), encoding="utf-8")
    solid, lines = shares(page)
    assert solid > 0.005
    assert lines > 0.003
    assert lines > 4 * shares(plain)[1]
