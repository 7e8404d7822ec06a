"""The record of a map: what went in, what came out, by whose leave."""

import getpass
import hashlib
import json
import re
import shutil
import socket
import subprocess
from dataclasses import fields, replace

import pytest

from gravmap.download.sources import known_sources
from gravmap.errors import InputError
from gravmap.mapping.record.data_sources import OWN, credit, file_attributes, original_data, with_terms
from gravmap.mapping.record.deviations import deviations_from_paper
from gravmap.mapping.record.model_record import describe_run
from gravmap.mapping.record.provenance import read_provenance, update_checksums, write_provenance
from gravmap.network.presets import ablation, grid, reference, small
from gravmap.network.registry import describe
from gravmap.workspace import shipped_model
from toys.record import COLS, COMMAND, ROWS, block, make_recorded_run, make_workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("record") / "ws"
    make_workspace(root)
    return root


@pytest.fixture(scope="module")
def folder(root):
    return root / "maps" / "toy"


@pytest.fixture(scope="module")
def record(folder):
    return read_provenance(folder)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_agrees_about_every_file_that_went_in_or_came_out(folder, record):
    listed = {**{entry["path"]: entry for entry in record["inputs"].values()}, **record["outputs"]}
    names = sorted(listed)
    lines = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in lines.splitlines()] == [listed[name]["sha256"] for name in names]
    assert all((folder / name).stat().st_size == listed[name]["bytes"] for name in names)
    assert set(record["outputs"]) == {path.name for path in folder.iterdir()} - {"provenance.json"}
    assert set(record["inputs"]) == {"fields", "labels", "labels_legend", "model", "model_json"}


def test_its_own_checksum_is_of_its_text_with_that_number_in_zeros(folder, record):
    text = (folder / "provenance.json").read_text()
    zeros = text.replace(record["record_sha256"], "0" * 64)
    assert hashlib.sha256(zeros.encode()).hexdigest() == record["record_sha256"]


def test_command_options_seeds_and_versions(record):
    assert record["command"] == COMMAND
    assert record["settings"]["near_km"] == 25
    assert record["settings"]["everywhere"] is False
    assert record["seeds"] == {"first": 0}
    assert record["seconds"] == 1.2
    for name in ("gravmap", "python", "numpy", "torch", "rasterio", "GDAL", "PROJ"):
        assert record["versions"][name][0].isdigit()
    assert record["platform"]["device"] == "cpu"
    assert record["fields"]["recipe"]["heights_m"] == [10_000]


def test_nothing_of_the_machine_or_its_user_is_in_it(root, folder):
    text = (folder / "provenance.json").read_text()
    assert str(root) not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    assert f"/{getpass.getuser()}/" not in text


def test_cells_are_counted_as_they_were_put_in(record):
    placed = block().lithology
    for row in record["summary"]["lithology"]:
        assert row["cells"] == (placed == row["value"]).sum()
    assert sum(row["cells"] for row in record["summary"]["evidence"]) == ROWS * COLS
    names = {row["value"]: row["name"] for row in record["summary"]["evidence"]}
    assert names[2] == "within 25 km of mapped outcrop"
    assert names[255] == "no data"


def test_parameters_are_counted_as_torch_counts_them(tmp_path, root):
    from gravmap.gravity import open_fields

    network = make_recorded_run(tmp_path / "run", open_fields(root / "data" / "fields.nc"))
    assert any(name.endswith("running_mean") for name, _ in network.named_buffers())
    found = describe_run(tmp_path / "run")
    assert found["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert found["scores"]["test"] == {"pa": 0.4, "places": 12}


def test_the_second_run_of_an_ensemble_is_recorded_too(root, tmp_path):
    shutil.copytree(root, tmp_path / "ws")
    runs = tmp_path / "ws" / "runs"
    shutil.copytree(runs / "first", runs / "second")
    write_provenance(
        tmp_path / "ws" / "maps" / "toy",
        command="",
        settings={},
        fields=tmp_path / "ws" / "data" / "fields.nc",
        runs=[runs / "first", runs / "second"],
        others={"polygon": tmp_path / "ws" / "data" / "labels.legend.toml"},
    )
    record = read_provenance(tmp_path / "ws" / "maps" / "toy")
    assert [model["name"] for model in record["models"]] == ["first", "second"]
    assert record["inputs"]["model_2"]["path"] == "../../runs/second/model.safetensors"
    assert record["inputs"]["polygon"]["path"] == "../../data/labels.legend.toml"
    assert record["sources"][0]["used_for"] == ["the fields", "training first", "training second"]


def test_a_map_that_is_still_to_be_renamed_names_its_inputs_from_its_place(root, tmp_path):
    shutil.copytree(root, tmp_path / "ws")
    maps = tmp_path / "ws" / "maps"
    (maps / "toy").rename(tmp_path / "ws" / "half")
    run, fields = tmp_path / "ws" / "runs" / "first", tmp_path / "ws" / "data" / "fields.nc"
    write_provenance(tmp_path / "ws" / "half", command="", settings={}, fields=fields, runs=[run], home=maps / "toy")
    assert read_provenance(tmp_path / "ws" / "half")["inputs"]["fields"]["path"] == "../../data/fields.nc"


def test_temporary_files_of_a_map_are_not_part_of_it(folder, tmp_path):
    made = shutil.copytree(folder, tmp_path / "map")
    for name in ("unfinished.json", "finished.txt", ".hidden", ".map.partial-1.png"):
        (made / name).write_text("")
    (made / "added.txt").write_text("")
    update_checksums(made)
    listed = set(read_provenance(made)["outputs"])
    assert listed == set(read_provenance(folder)["outputs"]) | {"added.txt"}


def test_a_damaged_network_is_refused(root, folder, tmp_path):
    shutil.copytree(root / "runs" / "first", tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="not a safetensors file"):
        describe_run(tmp_path / "run")


# Terms


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"path": "fetched.grd", "source": known_sources()["wgm2012"].files[0].url}, "wgm2012"),
        ({"path": "renamed.grd", "sha256": known_sources()["wgm2012"].files[0].sha256}, "wgm2012"),
        ({"file": "fsu_geol.shp", "legend": "mine", "source": known_sources()["fsu_geol"].files[0].url}, "fsu_geol"),
    ],
)
def test_data_that_is_known_comes_with_address_terms_and_citation(entry, name):
    found, known = with_terms(entry), known_sources()[name]
    assert (found["known_as"], found["licence"], found["citation"]) == (name, known.terms, known.citation)
    assert found["source"].startswith("https://")


def test_terms_that_were_recorded_are_kept_and_unknown_ones_are_not_made_up():
    own = with_terms({"path": "mine.nc", "sha256": "1" * 64, "licence": "CC BY 4.0", "citation": "Me (2024)"})
    assert (own["licence"], own["citation"]) == ("CC BY 4.0", "Me (2024)")
    assert "known_as" not in own
    assert with_terms({"path": "mine.nc", "sha256": "1" * 64})["licence"].startswith("not stated")


@pytest.mark.parametrize(
    "entry",
    [
        {"role": "map", "file": "mine.gpkg", "sha256": "1" * 64, "legend": "geo3al", "citation": "Steinshouer 1999"},
        {"role": "map", "file": "geo3al.shp", "sha256": "1" * 64, "legend": "geo3al"},
        {"role": "gravity", "path": "WGM2012_Bouguer_ponc_2min.grd", "sha256": "1" * 64},
    ],
)
def test_a_file_of_the_users_own_is_not_credited_as_the_source_that_its_name_or_legend_suggests(entry):
    found = with_terms(entry)
    assert (found["source"], found["citation"], found["licence"], "known_as" in found) == ("", "", OWN, False)
    describes = f"read with the legend geo3al, which describes: {known_sources()['geo3al'].title}"
    assert credit(found) == (describes if "legend" in entry else "")


def test_what_a_grid_says_of_itself_is_kept_and_cites_it():
    says = {"title": "A survey", "references": "Me (2024)", "comment": "raw"}
    found = with_terms({"role": "gravity", "path": "mine.nc", "attributes": says})
    assert (found["citation"], file_attributes(found)) == ("Me (2024)", says)


def test_original_data_are_named_once_with_all_their_uses(root):
    sources = [
        {"role": "gravity", "path": "gravity.nc", "sha256": "0" * 64},
        {"role": "map", "file": "map.gpkg", "sha256": "2" * 64, "legend": "crust"},
        {"role": "labels", "path": "../labels.tif", "sha256": "3" * 64},
    ]
    found = original_data(root / "data" / "fields.nc", root / "data" / "labels.tif", {"first": sources})
    assert [(entry["role"], entry["used_for"]) for entry in found] == [
        ("gravity", ["the fields", "training first"]),
        ("map", ["training first"]),
    ]


# Departures from the paper

WGM = {"role": "gravity", "path": "w.grd", "known_as": "wgm2012"}
GGMNET = describe("ggmnet")
MODEL = {
    "name": "a",
    "model": "ggmnet",
    "architecture": GGMNET,
    "inputs": [{"kind": "rgb"}],
    "split": {"kind": "random"},
}
RECIPE = {"spacing_deg": [1 / 30, 1 / 30], "input_height_m": 0.0, "heights_m": [10_000.0]}


def test_the_papers_own_way_departs_from_nothing():
    assert deviations_from_paper(RECIPE, [WGM], [MODEL]) == []


def around(body):
    return {"kind": "outcrop-start", "body": body, "planes": [1, 11]}


@pytest.mark.parametrize(
    ("recipe", "sources", "model", "sentence"),
    [
        ({}, [{"role": "gravity", "path": "mine.nc"}], {}, "mine.nc, not the paper's WGM2012"),
        ({"spacing_deg": [0.25, 0.25]}, [WGM], {}, "every 15arcmin"),
        ({"input_height_m": 10_000.0}, [WGM], {}, "between 10km and 20km"),
        ({"heights_m": [20_000.0]}, [WGM], {}, "of 20km"),
        ({}, [WGM, {"role": "map", "file": "m.gpkg"}], {}, "m.gpkg"),
        ({}, [WGM], {"model": "unet", "architecture": describe("unet")}, "is unet"),
        ({}, [WGM], {"architecture": describe("unet")}, "not the paper's GGMNet"),  # named as the paper's
        ({}, [WGM], {"inputs": [{"kind": "field"}]}, "in their units"),
        ({}, [WGM], {"split": {"kind": "blocks"}}, "held-out blocks"),
        ({}, [WGM], {"split": {"name": "crusts"}}, "simulated crusts"),
        ({}, [WGM], {"architecture": around(GGMNET)}, "mapped outcrop is an input"),
    ],
)
def test_every_departure_is_listed(recipe, sources, model, sentence):
    (found,) = deviations_from_paper({**RECIPE, **recipe}, sources, [{**MODEL, **model}])
    assert sentence in found


@pytest.mark.parametrize("name", ["ggmnet-22", "ggmnet-e", "mine"])
def test_the_papers_network_is_known_by_its_architecture(name):
    # "mine": a file given with --architecture, written before `interpolate` and `attention` were fields.
    stored = {key: value for key, value in GGMNET.items() if name != "mine" or key not in ("interpolate", "attention")}
    assert deviations_from_paper(RECIPE, [WGM], [{**MODEL, "model": name, "architecture": stored}]) == []


@pytest.mark.parametrize(
    ("architecture", "differences"),
    [
        (reference(16), "16 cells per branch instead of 22."),
        (reference(24), "24 cells per branch instead of 22."),
        (ablation("b"), "no residual connections around cells, the encoder's output is not fused, no feature fusion"),
        (small(), "20 cells per branch instead of 22, other operators, widths or paths of the cells."),
        (grid(), "a pixel of its input is interpolated to 2 x 1, self-attention over the coarsest branch."),
    ],
)
def test_the_differences_of_an_architecture_are_named(architecture, differences):
    model = {**MODEL, "model": "other", "architecture": architecture.to_dict()}
    (found,) = deviations_from_paper(RECIPE, [WGM], [model])
    assert "(other) is a GGMNet that differs from the paper's" in found
    assert differences in found


def test_no_field_of_an_architecture_goes_unnoticed():
    paper = reference()
    others = {
        "depth": reference(20),
        "paths": reference(paths=((), (9,), (4, 12))),
        "ops": replace(paper, ops=(("conv",) * 22,) * 3),
        "chis": replace(paper, chis=((2,) * 22,) * 3),
        "encoder": replace(paper, encoder=(24, 48, 96)),
        "head": replace(paper, head=(48, 32, 16)),
        "arm_norm": replace(paper, arm_norm="none"),
        **{
            field.name: replace(paper, **{field.name: not field.default})
            for field in fields(paper)
            if field.default in (True, False) and field.name != "half_res_stage"
        },
        "interpolate": replace(paper, interpolate=(2, 1)),
        "half_res_stage": replace(paper, full_res_stage=False, half_res_stage=False),
    }
    assert set(others) == {field.name for field in fields(paper)}
    sentences = set()
    for architecture in others.values():
        found = deviations_from_paper(RECIPE, [WGM], [{**MODEL, "architecture": architecture.to_dict()}])
        assert len(found) == 1
        sentences |= set(found)
    assert len(sentences) == len(others) - 2  # operators, widths and paths share one


def test_the_shipped_network_departs_in_input_and_training():
    found = " ".join(deviations_from_paper(RECIPE, [WGM], [describe_run(shipped_model())]))
    for words in ("mapped outcrop is an input", "thickness of the cover", "simulated crusts", "in their units"):
        assert words in found


def test_what_networks_have_in_common_is_stated_once():
    two = [{**MODEL, "architecture": describe("unet")}, {**MODEL, "name": "b", "architecture": describe("unet")}]
    (found,) = deviations_from_paper(RECIPE, [WGM], two)
    assert found.startswith("a, b: ")


def test_the_record_is_json_that_any_program_reads(folder):
    json.loads((folder / "provenance.json").read_text(), parse_constant=lambda name: pytest.fail(name))
