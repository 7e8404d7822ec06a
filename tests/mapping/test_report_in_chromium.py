"""The report in a real browser: nothing fails to load, colours are the legend's, and it prints on A4."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

from toys.browser import BROWSER, browse
from toys.map_folder import CALIBRATION, make_map, page_of, write_run_files

pytestmark = [pytest.mark.chromium, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]

PROBE = """<script>
const wait = href => new Promise(done => {
  const image = new Image();
  image.onload = () => done(image.naturalWidth);
  image.onerror = () => done(0);
  image.src = href;
});
addEventListener("load", async () => {
  const widths = [];
  for (const each of document.querySelectorAll("svg image")) widths.push(await wait(each.href.baseVal));
  const spill = document.documentElement.scrollWidth - innerWidth;
  document.body.setAttribute("data-found", JSON.stringify({widths, spill}));
});
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    make_map(root / "map")
    page_of(root / "map", write_run_files(root / "run", calibration=CALIBRATION))
    return root / "map" / "report.html"


def test_every_image_loads_and_nothing_is_complained_of(page):
    _, complaints = browse(page, "--dump-dom")
    assert not complaints
    # The page's own policy allows no script: the probe goes into a copy without it.
    probe = page.with_name("probe.html")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    probe.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    dumped, _ = browse(probe, "--virtual-time-budget=10000", "--window-size=600,900", "--dump-dom")
    widths, spill = re.search(
        r'data-found="\{&quot;widths&quot;:\[([\d,]*)\],&quot;spill&quot;:(-?\d+)', dumped
    ).groups()
    found = [int(width) for width in widths.split(",")]
    assert len(found) == 3, "bedrock, uncertainty, evidence"
    assert min(found) >= 1000
    assert int(spill) <= 0, "nothing sticks out on a narrow screen"


def test_the_policy_keeps_what_is_not_in_the_page_out(page):
    planted = page.with_name("planted.html")
    text = page.read_text(encoding="utf-8").replace("</main>", '<img src="https://example.org/a.png" alt=""></main>')
    planted.write_text(text, encoding="utf-8")
    _, complaints = browse(planted, "--dump-dom")
    assert any("Content Security Policy" in line for line in complaints)


def test_the_legends_colours_are_on_the_screen(page):
    shot = page.with_name("shot.png")
    browse(page, "--window-size=1280,1400", f"--screenshot={shot}")
    picture = np.rint(255 * imread(shot)[..., :3]).astype(int)

    def share(*colour):
        return (np.abs(picture - np.array(colour)) <= 2).all(axis=-1).mean()

    west, east = share(0xCB, 0x8C, 0x37), share(0x85, 0xD7, 0xE7)
    assert west > 0.01
    assert east > 1.5 * west, "the east is twice as wide"
    assert share(0xF0, 0x04, 0x7F) < 1e-5, "Archean does not occur here"


def test_it_prints_on_a4(page):
    printed = page.with_name("report.pdf")
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={printed}")
    boxes = re.findall(rb"/MediaBox \[([\d. ]+)\]", printed.read_bytes())
    assert 2 <= len(boxes) <= 8
    for box in boxes:
        _, _, width, height = (float(side) / 72 * 25.4 for side in box.split())
        assert (width, height) == pytest.approx((210, 297), abs=0.5)
