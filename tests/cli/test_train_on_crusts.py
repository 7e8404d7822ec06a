"""`gravmap train --on crusts`, `--context` and `--init`, through the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from gravmap_cli import gravmap
from toys.crusts import make_crust_arrays

ARCHITECTURE = '{"kind": "unet", "widths": [4, 8]}'
QUICK = ("train", "--on", "crusts", "--device", "cpu", "--epochs", "1", "--steps-per-epoch", "2", "--batch-size", "2")


@pytest.fixture
def run_in(tmp_path, monkeypatch):
    """The command line in a fresh workspace."""
    (tmp_path / "small.json").write_text(ARCHITECTURE)

    def run(*words, code=0):
        done = CliRunner().invoke(gravmap, [*map(str, words), "-w", str(tmp_path)])
        assert done.exit_code == code, done.output
        return done

    run.place = tmp_path
    run.small = ("--architecture", tmp_path / "small.json")
    return run


@pytest.fixture
def toy_pool(monkeypatch):
    """Toy crusts instead of simulated ones; a list of the requests for them."""
    requested = []

    def crust_pool(prior, seeds, *, progress, **how):
        requested.append({"prior": prior, "seeds": list(seeds), **how})
        made = [make_crust_arrays(seed % 7) for seed in seeds]
        names = list(how["channels"])
        for arrays in made:
            arrays["fields"] = np.repeat(arrays["fields"], len(names), axis=0)
            arrays["meta"] |= {"channels": names, "channel_units": ["mGal"] * len(names)}
        return made

    monkeypatch.setattr("gravmap.synthetic.crust_pool", crust_pool)
    return requested


@pytest.mark.slow
def test_real_crusts_from_prior_to_scores_and_on(run_in):
    words = (*QUICK, *run_in.small, "--count", 1, "--shape", 48, 64, "--prior", "wide", "--name", "a")
    done = run_in(*words, "--json")
    scores = json.loads((run_in.place / "runs/a/scores.json").read_text())
    assert json.loads(done.stdout)["test"] == scores["test"]
    under = scores["test"]["under_cover"]
    assert under["strata"]["all"]["nodes"] == scores["test"]["places"] > 500
    assert sum(row["nodes"] for row in under["strata"].values()) == 2 * scores["test"]["places"]
    assert len(under["crusts"]) == 2
    model = json.loads((run_in.place / "runs/a/model.json").read_text())
    trained_on = model["taught_on"]
    assert (trained_on["prior"]["name"], trained_on["count"], trained_on["shape"]) == ("wide", 1, [48, 64])
    assert trained_on["seeds"] == {"train": [1000], "tune": [1001, 1002], "test": [0, 1]}
    assert model["architecture"]["kind"] == "outcrop-start"
    assert [each["name"] for each in model["classes"]][:2] == ["Archean", "Proterozoic"]

    # The crusts are kept, and made again to the bit where they were thrown away.
    kept = sorted(path.name for path in (run_in.place / "data/crusts").iterdir())
    assert len([name for name in kept if name.startswith("crust-")]) == 5
    for path in (run_in.place / "data/crusts").iterdir():
        path.unlink()
    run_in("train", "--resume", "--device", "cpu", "--epochs", "2")
    assert json.loads((run_in.place / "runs/a/scores.json").read_text())["epochs"] == 2
    assert sorted(path.name for path in (run_in.place / "data/crusts").iterdir()) == kept


def test_crusts_are_reported_before_and_after_training(run_in, toy_pool):
    done = run_in(*QUICK, *run_in.small, "--count", 3, "--name", "a")
    assert "residual_80km and mapped outcrop" in done.output
    assert "3 crusts of 240 x 360 cells" in done.output
    assert "prior central-asia" in done.output
    assert "nodes of the test crusts" in done.output
    for row in (
        "network",
        "nearest outcrop",
        "label diffusion",
        "network on control gravity",
        "gain on the best baseline",
    ):
        assert f"  {row} " in done.output
    assert "Calibration by distance from outcrop and by thickness of cover" in done.output
    reported = json.loads((run_in.place / "runs/a/scores.json").read_text())["calibration"]["test_strata"]
    for kind in ("distance", "cover"):
        every = [row["nodes"] for row in reported[kind].values()]
        assert every[0] == sum(every[1:]) > 500
        assert 0 < reported[kind]["all"]["after"]["coverage"] < 1
    assert f"  {'under 0.5 km of cover':<27}{reported['cover']['under 0.5 km']['nodes']:>9}" in done.output
    (requested,) = toy_pool
    assert requested["seeds"] == [1000, 1001, 1002, 1003, 1004, 0, 1]
    assert (requested["shape"], requested["prior"].name) == ((240, 360), "central-asia")


def test_a_dry_run_makes_one_crust_and_writes_nothing(run_in, toy_pool):
    before = sorted(run_in.place.rglob("*"))
    done = run_in(*QUICK, *run_in.small, "--count", 50, "--dry-run")
    assert sorted(run_in.place.rglob("*")) == before
    (requested,) = toy_pool
    assert requested["seeds"] == [1000]
    assert requested["cache"] is None
    assert "50 crusts of" in done.output
    assert "5 more for tuning and 8 for the test" in done.output
    # The paper's colours are of one region; on crusts its recipe trains on the channels of any.
    for recipe in ("crusts", "paper"):
        done = run_in(*QUICK, *run_in.small, "--count", 50, "--recipe", recipe, "--dry-run", "--json")
        assert json.loads(done.stdout)["config"]["inputs"][0] == "residual_5km"


def test_a_resumed_run_keeps_its_prior(run_in, toy_pool):
    from gravmap.synthetic import load_prior

    mine = run_in.place / "mine.toml"
    mine.write_text(load_prior("wide").text)
    run_in(*QUICK, *run_in.small, "--count", 2, "--prior", mine, "--name", "a")
    mine.unlink()
    run_in("train", "--resume", "--device", "cpu", "--epochs", "2")
    first, again = toy_pool
    assert again["prior"].sha256 == first["prior"].sha256 == load_prior("wide").sha256
    assert again["seeds"] == first["seeds"]
    for words, reported in (
        (("--count", "9"), "--count: 2"),
        (("--prior", "central-asia"), "another --prior: wide"),
        (("--on", "region"), "another --on: crusts"),
        (("--shape", "64", "64"), "another --shape"),
        (("--context", "none"), "another --context: outcrop"),
    ):
        done = run_in("train", "--resume", "--device", "cpu", "--epochs", "3", *words, code=2)
        assert reported in done.output


def test_another_run_decides_network_channels_and_context(run_in, toy_pool):
    run_in(*QUICK, *run_in.small, "--count", 2, "--name", "a")
    done = run_in(*QUICK, "--count", 2, "--init", "a", "--name", "b")
    assert "weights of a." in done.output
    one, other = (json.loads((run_in.place / f"runs/{name}/model.json").read_text()) for name in "ab")
    assert other["inputs"] == one["inputs"]
    assert other["architecture"] == one["architecture"]
    assert other["recipe"]["init"]["taught_on"]["prior"]["name"] == "central-asia"
    for words, reported in (
        (("--context", "none"), "a was trained with outcrop"),
        (("--model", "unet"), "exclude each other"),
        (("--input", "residual_10km"), None),
        (("--init", "nobody"), None),
    ):
        done = run_in(*QUICK, "--count", 2, "--init", "a", *words, "--name", "c", code=3 if "nobody" in words else 2)
        assert reported is None or reported in done.output
    assert not (run_in.place / "runs/c/model.json").exists()


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("--on", "crusts", "--split", "strict"), "--split is for a region's tile set"),
        (("--on", "crusts", "--from-tiles"), "--from-tiles is for a region's tile set"),
        (("--on", "crusts", "--cover-masks", "3"), "--cover-masks is for a region's tile set"),
        (("--count", "3"), "--count is for --on crusts alone"),
        (("--prior", "wide"), "--prior is for --on crusts alone"),
        (("--cover-masks", "3"), "--cover-masks is for --context outcrop"),
        (("--on", "crusts", "--prior", "nowhere"), "There is no prior 'nowhere'"),
        (("--on", "crusts", "--input", "bouguer"), "bouguer has no"),
        (("--on", "crusts", "--input", "residual_10km,tilt"), "tilt has no tabulated standard deviation"),
    ],
)
def test_options_without_effect_are_refused(run_in, words, reported):
    done = run_in("train", "--device", "cpu", "--shape" if "crusts" in words else "--size", *(
        ("48", "64") if "crusts" in words else ("32",)
    ), *words, *(("--count", "1") if "crusts" in words else ()), code=2)  # fmt: skip
    assert reported in done.output
    assert not (run_in.place / "runs").exists()


def test_context_on_a_region(run_in, monkeypatch):
    """Cover in one piece over the middle; a fold whose blocks lie beside it."""
    from toys.dataset import field_at, make_arrays

    arrays = make_arrays()
    lat, lon = np.linspace(45.975, 42.025, 80), np.linspace(80.025, 83.975, 80)
    arrays["labels"] = np.where(arrays["labels"] == 0, 1, arrays["labels"])
    arrays["labels"][field_at(lat[:, None] + 31, 0.5 * lon[None, :]) > 8] = 0
    (run_in.place / "data/tiles").mkdir(parents=True)
    (run_in.place / "data/tiles/index.json").write_text("{}")
    requested = []

    def load_arrays(folder, *, channels=None, split="blocks", fold=0):
        requested.append(channels)
        return arrays

    monkeypatch.setattr("gravmap.tiling.load_arrays", load_arrays)
    quick = ("train", "--device", "cpu", "--steps-per-epoch", "1", "--batch-size", "2", "--name", "a")
    done = run_in(*quick, *run_in.small, "--context", "outcrop", "--cover-masks", 2, "--epochs", 1)
    assert "residual_10km and mapped outcrop" in done.output
    assert "2 synthetic cover masks" in done.output
    run_in("train", "--resume", "--device", "cpu", "--epochs", "2")
    # What is made of the outcrop is no field of the tile set.
    assert requested == [None, ["residual_10km"]]
    model = json.loads((run_in.place / "runs/a/model.json").read_text())
    assert model["recipe"]["cuts"] == 2
    assert model["taught_on"] == {}
