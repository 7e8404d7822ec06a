"""The section goes through the crust it is cut from, and the picture holds it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt

from gravmap.synthetic import draw_crust, load_prior, make_crust
from gravmap.synthetic.facts import crust_facts
from gravmap.synthetic.geometry import RandomStreams
from gravmap.synthetic.picture import BASEMENT, MESOZOIC, draw_crust_picture, vertical_section

USUAL = load_prior().typical()


@pytest.fixture(scope="module")
def crust():
    return draw_crust(load_prior(), 2, (96, 128), components=True)


@pytest.fixture(scope="module")
def section(crust):
    return vertical_section(crust)


def nearest(section):
    return tuple(np.rint(place).astype(int) for place in section.position)


def test_a_section_shows_the_units_of_each_column(crust, section):
    where = nearest(section)
    cover = crust.cover_thickness_m[where] / 1000
    thick = crust.stack.thickness_km[(slice(None), *where)]
    for depth in (0.5, 2.0, 6.0, 12.0):
        row = int(np.abs(section.depth_km - depth).argmin())
        density = crust.stack.density_at(section.depth_km[row])[where]
        # Depths run straight between cells in the section, in steps in the stack: they differ near contacts alone.
        same = np.abs(section.density[row] - density) < 1
        assert same.mean() > 0.93, depth
    # Right below the cover lies the bedrock of the truth.
    cover_rock = (section.rock == 0) | (section.rock == MESOZOIC)
    first = (~cover_rock).argmax(axis=0)
    found = section.rock[np.minimum(first + 1, section.depth_km.size - 1), np.arange(section.lon.size)]
    clear = thick[2:5].max(axis=0) > 0.3
    assert (found == crust.truth[where])[clear].mean() > 0.97
    # Cover on top wherever there is some, as deep as the crust says.
    deep = cover_rock.sum(axis=0) * (section.depth_km[1] - section.depth_km[0])
    assert np.abs(deep - cover).mean() < 0.06
    assert (section.rock[-1] == BASEMENT).all()
    np.testing.assert_array_equal(section.mapped, crust.surface[where])


def test_rocks_lie_in_their_order(section):
    """From the top: Cenozoic, Mesozoic, Permian, intrusive, belt unit, basement; never the other way round."""
    rock = section.rock
    order = np.select(
        [rock == 0, rock == MESOZOIC, rock == 8, (rock == 9) | (rock == 10), rock == BASEMENT],
        [0, 1, 2, 3, 5],
        4,
    )
    assert (np.diff(order, axis=0) >= 0).all()


@pytest.mark.parametrize("seed", [1, 2, 3, 6])
def test_a_section_cuts_across_the_strike(seed):
    """Without warps and shifts the strike is the one that the seed draws first."""
    straight = replace(USUAL, warp_km=0.0, fault_shift_km=15.0, fault_spacing_km=3000.0, belt_wiggle_km=1.0)
    crust = make_crust(seed, (140, 160), sub=1, setting=straight)
    section = vertical_section(crust)
    strike = RandomStreams(seed).stream("strike").uniform(0, np.pi)
    north = section.lat[-1] - section.lat[0]
    east = (section.lon[-1] - section.lon[0]) * np.cos(np.radians(section.lat.mean()))
    across = (np.arctan2(north, east) - strike) % np.pi
    assert across == pytest.approx(np.pi / 2, abs=0.2)
    assert section.distance_km[-1] == pytest.approx(111.19 * np.hypot(north, east), rel=1e-3)
    assert section.lon[0] <= section.lon[-1] + 1e-9


def test_facts_are_counted_from_the_arrays(crust):
    facts = crust_facts(crust)
    hidden = crust.surface == 0
    assert facts.cover_percent == pytest.approx(100 * hidden.mean())
    assert facts.cover_deepest_km == pytest.approx(crust.cover_thickness_m.max() / 1000)
    km = np.radians(1 / 30) * 6371.0
    distance = distance_transform_edt(hidden, sampling=(km, km * np.cos(np.radians(crust.gravity.lat.values.mean()))))
    assert facts.outcrop_distance_km == pytest.approx(np.median(distance[hidden]))
    assert sum(entry.share for entry in facts.classes) == pytest.approx(100)
    granite = facts.classes[9]
    assert granite.hidden == pytest.approx(100 * (crust.truth[hidden] == 10).mean())
    assert granite.mapped == pytest.approx(100 * (crust.surface[~hidden] == 10).mean())
    # Permian molasse is lighter than what it lies on, gabbro denser than what it intrudes.
    belts = [entry.density for entry in facts.classes[:7] if entry.share > 0]
    assert facts.classes[7].density < min(belts) - 20
    assert facts.classes[8].density > max(belts)


def test_a_picture_shows_each_class_in_its_colour(crust, tmp_path):
    path = tmp_path / "crust.png"
    draw_crust_picture(crust, path, title="A crust", more="of some kind", dpi=80)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 900
    assert pixels.shape[1] > 1200
    for colour in ((0xCE, 0x4D, 0xA0), (0xF2, 0xF9, 0x1D), (0xCB, 0x8C, 0x37)):  # granite, cover, Devonian
        assert (pixels == colour).all(axis=-1).mean() > 0.005


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_crusts_without_cover_and_without_outcrop_are_drawn(fraction, tmp_path):
    setting = replace(USUAL, cover_share=fraction)
    crust = make_crust(1, (16, 16), sub=1, setting=setting)
    draw_crust_picture(crust, tmp_path / "crust.png", title="A small one", dpi=30)
    facts = crust_facts(crust)
    assert facts.cover_percent == 100 * fraction
    assert facts.to_dict()["outcrop_distance_km"] == (None if fraction else 0.0)
