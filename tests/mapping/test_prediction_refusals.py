"""Inputs that prediction refuses, before anything is written."""

import dataclasses

import numpy as np
import pytest
import torch

from gravmap.errors import DeviceError, InputError, OptionError
from gravmap.files import sha256
from gravmap.geology import load_legend
from gravmap.geology.labels import write_index_raster
from gravmap.geology.legend import Legend
from gravmap.geology.legend_file import write_legend
from gravmap.gravity import residual_fields, write_fields
from gravmap.learning.training.checkpoint import save_model
from gravmap.mapping import Options, predict
from gravmap.mapping.plan import Plan
from gravmap.mapping.prediction import plan_prediction
from gravmap.mapping.predictor import Predictor
from gravmap.network import build
from gravmap.regions import Region
from toys.map import BOX, LEGEND, gravity, layers, make_project, make_run, spec_for

pytestmark = pytest.mark.usefixtures("rasters_only")


@pytest.fixture
def project(tmp_path):
    tmp_path.joinpath("fields").mkdir()
    make_project(tmp_path)
    return tmp_path


def run(project, region=BOX, runs=None, fields="fields.nc", folder="map", **more):
    return predict(project / fields, runs or project / "run", region, project / folder, **more)


def refused(project, match, kind=InputError, **more):
    with pytest.raises(kind, match=match) as error:
        run(project, **more)
    assert len(str(error.value).splitlines()) <= 2
    assert not (project / "map").exists()
    assert not (project / "map.partial").exists()


def test_a_region_that_is_mostly_unmapped(project, monkeypatch):
    mapped = np.zeros((40, 60), np.uint8)  # 80-86E 43-47N; nodes from 82.5 to 84 are 16 of 31
    mapped[:, 25:] = 255
    write_index_raster(project / "labels.tif", mapped, (80, 43, 86, 47), LEGEND)
    write_legend(LEGEND, project / "labels.legend.toml")
    monkeypatch.setattr(torch.nn.Module, "__call__", None)  # refused before any network runs
    for options in (Options(), Options(everywhere=True)):
        refused(
            project,
            r"51\.6 % of the region is unmapped.*\n.*--fill-unmapped",
            labels_path=project / "labels.tif",
            options=options,
        )
    with Predictor(project / "fields.nc", project / "run", "cpu") as predictor:
        labels, filling = project / "labels.tif", Options(fill_unmapped=True)
        plan = plan_prediction(predictor, BOX, project / "map", labels, filling)
        assert plan.unmapped == pytest.approx(16 / 31)
        # Half of it may be.
        plan_prediction(predictor, Region(81.1, 44, 84, 46), project / "map", labels, filling)
        half = plan_prediction(predictor, Region(81, 44, 83.9, 46), project / "map", labels, Options())
        assert half.unmapped == pytest.approx(0.5)
        assert plan_prediction(predictor, BOX, project / "map", None, Options()).unmapped is None


def test_a_region_beyond_the_fields(project):
    refused(project, "outside the gravity fields", region=Region(60, 44, 84, 46))


def test_fields_of_another_level_height_or_unit(project):
    higher = gravity().assign_attrs(height_m=10_000.0)
    write_fields(residual_fields(higher, [10_000.0]), project / "higher.nc")
    refused(project, r"input_height_m: trained on 0.0, found 10000.0", fields="higher.nc")
    # A second height in the file does not change the first: the recipe is the same.
    write_fields(residual_fields(gravity(), [10_000.0, 20_000.0]), project / "both.nc")
    Predictor(project / "both.nc", project / "run")
    write_fields(residual_fields(gravity(), [20_000.0]), project / "other.nc")
    refused(project, "no field residual_10km", fields="other.nc")
    fields = residual_fields(gravity(), [10_000.0])
    fields["residual_10km"].attrs["units"] = "m/s2"
    write_fields(fields, project / "unit.nc")
    refused(project, "residual_10km in m/s2; the network was trained on it in mGal", fields="unit.nc")


def test_files_that_are_not_fields(project):
    (project / "none.nc").write_bytes(b"no netCDF at all")
    refused(project, "cannot be read", fields="none.nc")
    refused(project, "is missing", fields="nowhere.nc")


def test_a_corrupted_checkpoint(project):
    weights = project / "run" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(bytes(content))
    refused(project, "damaged")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(project, "damaged")
    weights.unlink()
    refused(project, "is missing")


def labels(project, legend, values=None):
    mapped = np.zeros((40, 60), np.uint8) if values is None else values
    write_index_raster(project / "labels.tif", mapped, (80, 43, 86, 47), legend)
    write_legend(legend, project / "labels.legend.toml")
    return project / "labels.tif"


def test_labels_of_another_legend(project):
    classes = tuple(
        dataclasses.replace(entry, name="Basalt") if entry.index == 4 else entry for entry in LEGEND.classes
    )
    path = labels(project, Legend("other", classes))
    refused(project, r"class 4 is Ordovician there and Basalt here", labels_path=path)
    fewer = Legend("fewer", tuple(entry for entry in LEGEND.classes if entry.index != 10))
    path = labels(project, fewer)
    refused(project, "class 10 is .* there and none here", labels_path=path)
    basement = labels(project, load_legend("basement10"))
    named = r"run was trained on bedrock10, .*labels\.tif has basement10: class 9 is Mesozoic there and Basic"
    refused(project, rf"{named}[\s\S]*`gravmap rasterize --classes bedrock10 --overwrite`", labels_path=basement)
    path = labels(project, fewer)
    # With everywhere, no class of the labels is shown: they may differ.
    run(project, labels_path=path, options=Options(everywhere=True))
    # Another colour is not another class.
    recoloured = tuple(dataclasses.replace(entry, colour="#123456") for entry in LEGEND.classes)
    run(project, labels_path=labels(project, Legend("coloured", recoloured)), folder="other")


def test_damaged_labels_are_refused_before_prediction(project, monkeypatch):
    values = np.zeros((40, 60), np.uint8)
    values[-1, -1] = 77
    refused(project, r"has the values \[77\]", labels_path=labels(project, LEGEND, values))
    refused(project, "is missing", labels_path=project / "nowhere.tif")


def test_runs_that_are_not_compatible(project):
    fields = residual_fields(gravity(), [10_000.0])
    run_a = project / "run"
    classes = spec_for(fields, build("unet", in_channels=1, classes=10)).classes
    renamed = [{**entry, "name": "Basalt"} if entry["index"] == 2 else entry for entry in classes]
    make_run(project / "other", fields, classes=renamed)
    refused(
        project, "other classes than .*: class 2 is Basalt there and Proterozoic here", runs=[run_a, project / "other"]
    )
    higher = residual_fields(gravity().assign_attrs(height_m=10_000.0), [10_000.0])
    make_run(project / "higher", higher)
    refused(project, r"input_height_m: 0.0 and 10000.0", runs=[run_a, project / "higher"])
    make_run(project / "far", fields, scales_deg=[10.0])
    refused(project, "no window size in common", kind=OptionError, runs=[run_a, project / "far"])
    refused(project, "named twice", runs=[run_a, run_a])


def test_unknown_window_sizes_and_coordinate_systems(project):
    refused(project, r"1deg, 2\.5deg, 5deg", kind=OptionError, options=Options(scales_deg=(7.0,)))
    refused(project, "EPSG:99999", kind=OptionError, options=Options(crs="EPSG:99999"))


def test_an_earlier_map_is_kept(project):
    run(project)
    before = sha256(project / "map" / "lithology.tif")
    with pytest.raises(InputError, match="--overwrite"):
        run(project)
    assert sha256(project / "map" / "lithology.tif") == before


def test_a_folder_with_other_files_is_not_replaced(project, monkeypatch):
    run(project)
    (project / "map" / "my_project.qgz").write_text("hours of work")
    with pytest.raises(InputError, match=r"my_project\.qgz"):
        run(project, overwrite=True)
    assert (project / "map" / "my_project.qgz").read_text() == "hours of work"
    (project / "map" / "my_project.qgz").unlink()
    (project / "map" / "lithology.tif.ovr").write_text("what GIS software left")
    before = layers(project / "map")
    run(project, overwrite=True)
    assert not (project / "map" / "lithology.tif.ovr").exists()
    assert np.array_equal(layers(project / "map")["lithology"], before["lithology"])
    monkeypatch.chdir(project / "map")
    with pytest.raises(OptionError, match="command runs"):
        run(project, overwrite=True)
    (project / "file").write_text("")
    for folder in ("file", "file/map"):
        with pytest.raises(InputError, match="is a file; a folder is needed"):
            run(project, folder=folder)


def test_a_folder_that_cannot_be_written(project, monkeypatch):
    import pathlib

    def read_only(self, *args, **more):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "mkdir", read_only)
    with pytest.raises(PermissionError):
        run(project)


def test_a_network_of_other_channels(project):
    fields = residual_fields(gravity(), [10_000.0])
    network = build("unet", in_channels=2, classes=10)
    inputs = [
        {"kind": "field", "field": name, "unit": "mGal", "spread": 10.0} for name in ("residual_10km", "residual_20km")
    ]
    save_model(project / "wide", network, spec_for(fields, network, inputs=inputs))
    refused(project, "no field residual_20km", runs=project / "wide")


def test_the_files_of_jobs():
    plan = Plan(BOX, None, {5.0: np.array([[80.0, 42, 85, 47]])}, "cpu", (64, 64), 10, flips=True)
    assert [each.name for each in plan.jobs] == ["run0_5deg_00000", "run1_5deg_00000"]
    assert plan.job_files()["run1_5deg_00000"] == [
        "windows/run1_5deg_00000.npy",
        "windows/run1_5deg_00000_votes.npy",
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device(project):
    refused(project, "CUDA", kind=DeviceError, options=Options(device="cuda"))
