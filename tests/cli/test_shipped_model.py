"""The network that gravmap ships: `predict` without any training."""

import json

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

import gravmap_cli
from gravmap.errors import InputError
from gravmap.learning import load_model
from gravmap.learning.calibration.temperature import read_calibration
from gravmap.learning.data.outcrop_context import measured_names
from gravmap.prior_check import check
from gravmap.synthetic import make_crust
from gravmap.synthetic.files import write_crust
from gravmap.workspace import SHIPPED, Workspace, shipped_model


def call(place, *args):
    return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(place), *args])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace after fetch, residual and rasterize, on a small crust that no network was taught on."""
    root = tmp_path_factory.mktemp("shipped")
    files = write_crust(make_crust(5, (60, 75), sub=1), root / "raw")
    assert (
        call(root, "residual", str(files["gravity"]), "--height", "10km", "--bbox", "82", "43", "84.5", "45").exit_code
        == 0
    )
    assert call(root, "rasterize", str(files["map"]), "--legend", "crust").exit_code == 0
    return root


def test_it_is_small_whole_and_of_no_region():
    folder = shipped_model()
    assert Workspace(folder.parent).run(SHIPPED) == folder
    assert (folder / "model.safetensors").stat().st_size < 4e6
    network, spec = load_model(folder)
    assert all(torch.isfinite(each).all() for each in network.state_dict().values())
    assert spec.taught_on["on"] == "crusts"
    assert spec.region_wsen == []
    assert spec.sources == []
    assert not set(spec.taught_on["seeds"]["train"]) & set(spec.taught_on["seeds"]["test"])
    # Gravity as residuals alone, over fixed numbers: no place can be told by it.
    assert all(name.startswith("residual_") for name in measured_names(spec.channels))
    calibration = read_calibration(folder)
    assert calibration is not None
    assert len(calibration.offsets) == len(spec.classes)


def test_on_crusts_it_never_saw_it_beats_the_null_models_and_foreign_gravity_takes_that_away():
    scored = json.loads((shipped_model() / "scores.json").read_text())["test"]["under_cover"]
    for name in ("all", "over 30 km"):
        row = scored["strata"][name]
        assert scored["gain"][name]["pa"] > 0.03
        assert row["foreign_gravity"]["pa"] < row["label_diffusion"]["pa"] + 0.03


def test_predict_without_training_uses_it_says_so_and_makes_the_heights_it_lacks(place, monkeypatch):
    monkeypatch.setattr(check, "COUNT", 12)
    dry = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "lacks the residuals of 5km, 20km, 40km, 80km: they would be computed first" in dry.output
    assert not list((place / "data").glob("fields-*.nc"))
    assert "simulated crusts of the prior central-asia" in dry.output
    assert not (place / "data" / "crusts").exists()
    done = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "-o", str(place / "map"))
    assert done.exit_code == 0, done.output
    assert f"{SHIPPED}, trained on" in done.output
    assert "on no region's data" in done.output
    assert "expect less" in done.output
    assert "computed from" in done.output
    record = json.loads((place / "map" / "provenance.json").read_text())
    assert record["models"][0]["name"] == SHIPPED
    assert "residual_80km" in record["fields"]["recipe"]["channels"]
    assert record["settings"]["class_offsets"] == pytest.approx(read_calibration(shipped_model()).offsets)
    # Whether the region is like its crusts is said, on record, and on the page, in the same words.
    (verdict,) = record["settings"]["prior_verdicts"]
    assert verdict["prior"]["sha256"] == load_model(shipped_model())[1].taught_on["prior"]["sha256"]
    assert verdict["crusts"] == len(list((place / "data" / "crusts").glob("statistics-*.json"))) == 12
    assert verdict["boxes_wsen"] == [pytest.approx([82, 43, 84.5, 45], abs=1e-6)]
    residuals = {each["quantity"] for each in verdict["quantities"] if each["group"] == "Residuals"}
    assert residuals == {f"residual_{height}km_{kind}" for height in (5, 10, 20, 40, 80) for kind in ("std", "robust")}
    assert verdict["headline"] in done.stdout
    page = (place / "map" / "report.html").read_text()
    assert page.count(verdict["headline"]) == 2  # at the top, and above its table
    assert "drawn from the prior central-asia" in page
    assert "under the cover of simulated crusts" in page
    assert "places of outcrop kept from training" not in page
    checked = call(place, "verify", str(place / "map"))
    assert checked.exit_code == 0, checked.output


def test_a_region_that_cannot_be_held_against_crusts_is_mapped_and_says_why(place):
    done = call(place, "predict", "--bbox", "82", "43", "83.5", "44.5", "-o", str(place / "small"))
    assert done.exit_code == 0, done.output
    said = "the smallest crust that says anything measures 2 x 2."
    assert (
        "Warning: Whether the region is inside the prior central-asia is not known. The region measures" in done.stderr
    )
    assert said in done.stderr
    page = (place / "small" / "report.html").read_text()
    assert page.count(said) == 2
    assert call(place, "verify", str(place / "small")).exit_code == 0


def test_the_question_is_asked_last_and_can_be_left_out(place, tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.prior_check.run_verdict", lambda *_, **__: pytest.fail("asked"))
    asked = ["predict", "--bbox", "82", "43", "84.5", "45", "-o", str(tmp_path)]
    (tmp_path / "lithology.tif").touch()
    refused = call(place, *asked)
    assert refused.exit_code == 3
    assert "--overwrite" in refused.output

    def handed_over(*_, **options):
        raise InputError(f"asks: {options['check_prior'] is not None}")

    monkeypatch.setattr("gravmap.mapping.predict", handed_over)
    assert "asks: True" in call(place, *asked).output
    left_out = call(place, *asked, "--no-prior-check").output
    assert "asks: False" in left_out
    assert "held against" not in left_out


def test_what_is_shown_under_cover_is_the_largest_chance_times_its_classs_factor(place):
    with rasterio.open(place / "map" / "probability.tif") as raster:
        steps = raster.read().astype(float)
    with rasterio.open(place / "map" / "lithology.tif") as raster:
        shown = raster.read(1)
    with rasterio.open(place / "map" / "evidence.tif") as raster:
        hidden = (raster.read(1) > 1) & (shown != 255)  # 1 is outcrop
    factors = np.exp(json.loads((place / "map" / "provenance.json").read_text())["settings"]["class_offsets"])
    value = steps * factors[:, None, None]
    chosen = np.take_along_axis(value, shown[None].astype(int) - 1, 0)[0] + 0.51 * factors[shown - 1]
    assert (chosen[hidden] >= (np.maximum(steps - 0.51, 0) * factors[:, None, None]).max(0)[hidden]).all()
    assert (shown[hidden] != steps.argmax(0)[hidden] + 1).any()


def test_without_labels_and_with_outcrop_of_one_class_it_is_refused_in_words(place, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fields.nc").symlink_to(place / "data" / "fields.nc")
    done = call(tmp_path, "predict", "--bbox", "82", "43", "84.5", "45")
    assert done.exit_code == 3
    assert "starts from mapped outcrop" in done.output
    for outcrop, said in ((0, "shows no outcrop"), (7, "All outcrop here is of one class (7)")):
        with rasterio.open(place / "data" / "labels.tif") as raster:
            profile, mapped = raster.profile, raster.read(1)
            tags = raster.tags()
        with rasterio.open(tmp_path / "data" / "labels.tif", "w", **profile) as raster:
            raster.write(np.where((mapped > 0) & (mapped < 255), outcrop, mapped).astype(np.uint8), 1)
            raster.update_tags(**tags)
        (tmp_path / "data" / "labels.legend.toml").write_bytes((place / "data" / "labels.legend.toml").read_bytes())
        done = call(tmp_path, "predict", "--bbox", "82", "43", "84.5", "45")
        assert done.exit_code == 3, done.output
        assert said in done.output


def test_a_run_of_ones_own_beats_it_and_training_may_begin_with_it(place):
    done = call(
        place, "train", "--on", "crusts", "--init", SHIPPED, "--count", "1", "--shape", "48", "72", "--epochs", "1",
        "--steps-per-epoch", "1", "--device", "cpu", "--name", "mine",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    begun = json.loads((place / "runs" / "mine" / "model.json").read_text())["recipe"]["init"]
    assert begun["run"] == SHIPPED
    told = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "--dry-run").output
    assert "mine, trained on 1 simulated crusts" in told
    assert "shipped with gravmap" not in told


def test_a_name_that_is_none_names_the_shipped_one(place):
    done = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "--run", "nothing")
    assert done.exit_code == 3
    assert SHIPPED in done.output
