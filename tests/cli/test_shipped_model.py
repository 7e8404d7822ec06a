"""The network that gravmap ships: `predict` without any training."""

import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

import gravmap_cli
from gravmap.errors import InputError
from gravmap.gravity import open_fields, write_fields
from gravmap.learning import load_model
from gravmap.learning.calibration.temperature import read_calibration
from gravmap.learning.data.outcrop_context import measured_names
from gravmap.prior_check import check
from gravmap.synthetic import make_crust
from gravmap.synthetic.files import write_crust
from gravmap.tiling import load_arrays
from gravmap.workspace import SHIPPED, Workspace, shipped_model


def call(place, *args):
    return CliRunner().invoke(gravmap_cli.gravmap, ["-w", str(place), *args])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace after fetch, residual and rasterize, on a small crust that no network was trained on."""
    root = tmp_path_factory.mktemp("shipped")
    files = write_crust(make_crust(5, (60, 75), sub=1), root / "raw")
    assert (
        call(root, "residual", str(files["gravity"]), "--height", "10km", "--bbox", "82", "43", "84.5", "45").exit_code
        == 0
    )
    assert call(root, "rasterize", str(files["map"]), "--legend", "crust").exit_code == 0
    return root


def test_the_shipped_weights_are_small():
    weights = list(shipped_model().parent.glob("*/model.safetensors"))
    assert {path.parent.name for path in weights} == {SHIPPED}
    assert sum(path.stat().st_size for path in weights) < 10e6


def test_the_shipped_network_is_of_no_region():
    folder = shipped_model()
    assert Workspace(folder.parent).run(SHIPPED) == folder
    network, spec = load_model(folder)
    assert all(torch.isfinite(each).all() for each in network.state_dict().values())
    assert spec.taught_on["on"] == "crusts"
    assert spec.region_wsen == []
    assert spec.sources == []
    assert not set(spec.taught_on["seeds"]["train"]) & set(spec.taught_on["seeds"]["test"])
    # Gravity as residuals alone, over fixed numbers: no place can be recognised by it.
    assert all(name.startswith("residual_") for name in measured_names(spec.channels))
    calibration = read_calibration(folder)
    assert calibration is not None
    assert len(calibration.offsets) == len(spec.classes)


def test_on_held_out_crusts_it_beats_null_models_with_its_own_gravity_only():
    scored = json.loads((shipped_model() / "scores.json").read_text())["test"]["under_cover"]
    for stratum in ("all", "over 30 km"):
        row = scored["strata"][stratum]
        assert scored["gain"][stratum]["pa"] > 0.03
        assert row["foreign_gravity"]["pa"] < row["label_diffusion"]["pa"] + 0.03


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 3, "another recipe"),
        (["--crs", "EPSG:1"], 2, "PROJ does not know"),
        (["--bbox", "70", "43", "84.5", "45"], 3, "outside the gravity fields"),
        (["--window", "3deg"], 2, "was not trained on windows"),
    ],
)
def test_a_dry_run_refuses_what_the_command_refuses_and_neither_writes(place, tmp_path, words, status, message):
    (tmp_path / "data").mkdir()
    for name in ("labels.tif", "labels.legend.toml"):
        (tmp_path / "data" / name).symlink_to(place / "data" / name)
    fields = open_fields(place / "data" / "fields.nc")
    if not words:
        recipe = json.loads(fields.attrs["gravmap_recipe"]) | {"input_height_m": 5000.0}
        fields.attrs["gravmap_recipe"] = json.dumps(recipe)
    write_fields(fields, tmp_path / "data" / "fields.nc")
    box = [] if "--bbox" in words else ["--bbox", "82", "43", "84.5", "45"]
    for dry in (["-n"], []):
        done = call(tmp_path, "predict", *box, *words, *dry, "--no-prior-check")
        assert done.exit_code == status, done.output
        assert message in done.output
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "fields.nc", "labels.legend.toml", "labels.tif",
    ]  # fmt: skip
    assert not (tmp_path / "maps").exists()


@pytest.mark.slow
def test_it_is_fine_tuned_on_a_region_whose_other_heights_are_computed(place, tmp_path):
    """As README.md has it: `residual --height 10km`, then `train --context outcrop --init crusts-central-asia`."""
    shutil.copytree(place / "data", tmp_path / "data", ignore=shutil.ignore_patterns("fields-*", "crusts"))
    tiles = ("tile", "--index-only", "--window", "2deg", "--size", "64", "--block", "0.5deg", "--buffer", "0.05deg")
    assert call(tmp_path, *tiles, "--folds", "3", "--split", "blocks").exit_code == 0
    read = [f"residual_{height}km" for height in (5, 10, 20, 40, 80)]
    with pytest.raises(InputError, match="lacks residual_5km, residual_20km, residual_40km, residual_80km"):
        load_arrays(tmp_path / "data" / "tiles", channels=read)
    words = ["train", "--context", "outcrop", "--init", SHIPPED, "--cover-masks", "1", "--epochs", "1"]
    words += ["--steps-per-epoch", "1", "--batch-size", "2", "--device", "cpu", "--name", "tuned"]
    dry = call(tmp_path, *words, "-n")
    assert dry.exit_code == 0, dry.output
    assert "lacks the residuals of 5km, 20km, 40km, 80km: they would be computed first" in dry.output
    assert "windows of 16deg, this one of 2deg" in dry.output
    assert not list((tmp_path / "data").glob("fields-*"))
    done = call(tmp_path, *words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "data" / "fields-5km-20km-40km-80km.nc").exists()
    assert load_arrays(tmp_path / "data" / "tiles", channels=read)["meta"]["channels"] == read
    assert len(load_model(tmp_path / "runs" / "tuned")[1].channels) == 5 + 12


@pytest.mark.slow
def test_predict_without_training_uses_it_and_computes_missing_heights(place, monkeypatch):
    monkeypatch.setattr(check, "COUNT", 12)
    dry = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "lacks the residuals of 5km, 20km, 40km, 80km: they would be computed first" in dry.output
    assert not list((place / "data").glob("fields-*.nc"))
    assert "simulated crusts of the prior central-asia" in dry.output
    assert not (place / "data" / "crusts").exists()
    done = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "-o", str(place / "map"))
    assert done.exit_code == 0, done.output
    assert f"{SHIPPED} (ggmnet-grid around label diffusion) was trained on" in done.output
    record = json.loads((place / "map" / "provenance.json").read_text())
    assert record["models"][0]["name"] == SHIPPED
    assert "residual_80km" in record["fields"]["recipe"]["channels"]
    assert record["settings"]["class_offsets"] == pytest.approx(read_calibration(shipped_model()).offsets)
    # The verdict on whether the region is like its crusts is printed, recorded and on the page, in the same words.
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


@pytest.mark.slow
def test_a_region_too_small_to_compare_with_crusts_is_mapped_with_a_warning(place):
    done = call(place, "predict", "--bbox", "82", "43", "83.5", "44.5", "-o", str(place / "small"))
    assert done.exit_code == 0, done.output
    (warning,) = [line for line in done.stderr.splitlines() if "2 x 2" in line]  # degrees, of the smallest crusts
    assert warning.startswith("Warning: ")
    assert "central-asia" in warning
    page = (place / "small" / "report.html").read_text()
    assert page.count("2 x 2") == 2
    assert call(place, "verify", str(place / "small")).exit_code == 0


def test_the_prior_check_comes_last_and_can_be_left_out(place, tmp_path, monkeypatch):
    monkeypatch.setattr("gravmap.prior_check.check.run_verdict", lambda *_, **__: pytest.fail("checked"))
    command_line = ["predict", "--bbox", "82", "43", "84.5", "45", "-o", str(tmp_path)]
    (tmp_path / "lithology.tif").touch()
    refused = call(place, *command_line)
    assert refused.exit_code == 3
    assert "--overwrite" in refused.output

    (tmp_path / "lithology.tif").unlink()

    def handed_over(*_, **options):
        raise InputError(f"checks: {options['check'] is not None}")

    monkeypatch.setattr("gravmap.mapping.predict", handed_over)
    assert "checks: True" in call(place, *command_line).output
    left_out = call(place, *command_line, "--no-prior-check").output
    assert "checks: False" in left_out
    assert "compared" not in left_out


@pytest.mark.slow
def test_the_class_under_cover_has_the_largest_probability_times_class_factor(place):
    with rasterio.open(place / "map" / "probability.tif") as raster:
        steps = raster.read().astype(float)
    with rasterio.open(place / "map" / "lithology.tif") as raster:
        shown = raster.read(1)
    with rasterio.open(place / "map" / "evidence.tif") as raster:
        covered = (raster.read(1) > 1) & (shown != 255)  # 1 is outcrop
    factors = np.exp(json.loads((place / "map" / "provenance.json").read_text())["settings"]["class_offsets"])
    value = steps * factors[:, None, None]
    chosen = np.take_along_axis(value, shown[None].astype(int) - 1, 0)[0] + 0.51 * factors[shown - 1]
    assert (chosen[covered] >= (np.maximum(steps - 0.51, 0) * factors[:, None, None]).max(0)[covered]).all()
    assert (shown[covered] != steps.argmax(0)[covered] + 1).any()


def test_missing_labels_and_outcrop_of_one_class_are_refused(place, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fields.nc").symlink_to(place / "data" / "fields.nc")
    done = call(tmp_path, "predict", "--bbox", "82", "43", "84.5", "45", "--no-prior-check")
    assert done.exit_code == 3
    assert "starts from mapped outcrop" in done.output
    for outcrop, message in ((0, "shows no outcrop"), (7, "All outcrop here is of one class (7)")):
        with rasterio.open(place / "data" / "labels.tif") as raster:
            profile, mapped = raster.profile, raster.read(1)
            tags = raster.tags()
        with rasterio.open(tmp_path / "data" / "labels.tif", "w", **profile) as raster:
            raster.write(np.where((mapped > 0) & (mapped < 255), outcrop, mapped).astype(np.uint8), 1)
            raster.update_tags(**tags)
        (tmp_path / "data" / "labels.legend.toml").write_bytes((place / "data" / "labels.legend.toml").read_bytes())
        done = call(tmp_path, "predict", "--bbox", "82", "43", "84.5", "45", "--no-prior-check")
        assert done.exit_code == 3, done.output
        assert message in done.output


def test_explain_takes_it_and_computes_the_heights_it_lacks(place):
    box = ("--bbox", "82.5", "43.5", "83.5", "44.5")
    dry = call(place, "explain", *box, "-n")
    assert dry.exit_code == 0, dry.output
    done = call(place, "explain", *box, "--integration-steps", "1", "--class", "acid intrusive")
    assert done.exit_code == 0, done.output
    record = json.loads(next((place / "maps").glob("*/attribution.json")).read_text())
    assert record["class"] == "Acid intrusive"
    assert next(iter(record["fields"])) == "residual_5km"


def test_an_own_run_is_preferred_and_may_start_from_it(place):
    done = call(
        place, "train", "--on", "crusts", "--init", SHIPPED, "--count", "1", "--shape", "48", "72", "--epochs", "1",
        "--steps-per-epoch", "1", "--device", "cpu", "--name", "mine",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    init = json.loads((place / "runs" / "mine" / "model.json").read_text())["recipe"]["init"]
    assert init["run"] == SHIPPED
    output = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "--dry-run").output
    assert "mine (ggmnet-grid around label diffusion) was trained on 1 simulated crust" in output
    assert f"The network is mine, the newest run; --run {SHIPPED} takes the one shipped" in output
    assert "the one shipped with gravmap is used" not in output


def test_an_unknown_name_is_refused_with_the_shipped_one(place):
    done = call(place, "predict", "--bbox", "82", "43", "84.5", "45", "--run", "nothing")
    assert done.exit_code == 3
    assert SHIPPED in done.output
