"""Any change to a map, its inputs, its network or its tiles is found; and checking writes nothing."""

import hashlib
import json
import shutil
import sqlite3

import numpy as np
import pytest
import rasterio

from gravmap.errors import InputError
from gravmap.files import sha256, write_checksummed_json, write_json
from gravmap.gravity import open_fields, residual_fields, write_fields
from gravmap.learning.training.checkpoint import record_files
from gravmap.mapping import verify
from gravmap.mapping.record.provenance import read_provenance, update_checksums, with_layers
from gravmap.tiling import load_arrays, make_tiles
from gravmap.workspace import shipped_model
from toys.map import gravity
from toys.record import block, make_recorded_map, make_recorded_run, make_workspace, write_labels


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original") / "ws"
    make_workspace(root)
    return root


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "ws")


@pytest.fixture
def folder(root):
    return root / "maps" / "toy"


def bad(folder):
    (found,) = verify(folder)
    return {finding.what: finding.state for finding in found.bad}


def flip_byte(path, where=0.5):
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)


def change_field(path, name="residual_10km"):
    fields = open_fields(path)
    fields[name][3, 4] += 1
    write_fields(fields, path)


def edit(path, function):
    """Change the cells of a raster in place."""
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.write(function(raster.read()))


def test_a_map_as_it_was_written_is_sound(folder):
    (found,) = verify(folder)
    assert found.bad == []
    assert found.kind == "map"
    checked = [finding.what for finding in found.findings if finding.state == "as recorded"]
    for name in ("provenance.json", "item.json", "lithology.tif", "lithology.gpkg", "evidence.qml", "map.png"):
        assert name in checked
    assert "class, probability and evidence of every cell" in checked
    assert "attribute table of lithology.tif" in checked
    assert "area of the polygons" in checked
    assert "labels ../../data/labels.tif" in checked


def test_a_workspace_can_be_moved(root, tmp_path):
    root.rename(tmp_path / "elsewhere")
    for found in verify(tmp_path / "elsewhere"):
        # The fields that the run names as its own were never there.
        assert [finding.what for finding in found.bad if "trained on" not in finding.what] == []
        assert found.count("gone") == 0


def test_a_changed_byte_and_a_missing_file_are_found_in_every_output(folder):
    for path in sorted(folder.iterdir()):
        if path.name == "provenance.json":
            continue
        whole = path.read_bytes()
        flip_byte(path)
        assert bad(folder)[path.name] == "changed", path.name
        path.unlink()
        assert bad(folder)[path.name] == "missing", path.name
        path.write_bytes(whole)
    assert bad(folder) == {}


def test_a_geopackage_that_was_only_opened_is_as_recorded_and_a_changed_feature_is_named(folder):
    path = folder / "lithology.gpkg"
    whole = path.read_bytes()

    def execute(*statements):
        connection = sqlite3.connect(path)
        for function in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):  # of triggers that are not run
            connection.create_function(function, 1, lambda _: 0)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        (checked,) = verify(folder)
        return {each.what: (each.state, each.detail) for each in checked.findings}["lithology.gpkg"]

    # As QGIS does when it opens a file and closes it.
    state, detail = execute("PRAGMA journal_mode = WAL", "PRAGMA journal_mode = DELETE")
    assert path.read_bytes() != whole
    assert (state, detail[:27]) == ("as recorded", "its layers are as recorded,")
    state, detail = execute("UPDATE lithology SET area_km2 = area_km2 + 1e-9 WHERE fid = 2")
    assert (state, detail) == ("changed", "feature 2 of the layer lithology differs")
    state, detail = execute("DELETE FROM layer_styles")
    assert "the layer layer_styles has 0 features, 1 were recorded" in detail


def test_an_original_map_that_is_a_geopackage_is_compared_by_its_layers(root, folder):
    raw = root / "data" / "raw"
    raw.mkdir()
    shutil.copy(folder / "lithology.gpkg", raw / "map.gpkg")
    (raw / "map.gpkg").chmod(0o600)
    record = read_provenance(folder)
    source = {"role": "map", "file": "map.gpkg", "sha256": sha256(raw / "map.gpkg")}
    record["sources"] = [with_layers(root / "data" / "fields.nc", source)]
    write_checksummed_json(folder / "provenance.json", record)
    connection = sqlite3.connect(raw / "map.gpkg")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    assert sha256(raw / "map.gpkg") != source["sha256"]
    assert bad(folder) == {}
    with_layers(root / "data" / "fields.nc", {"role": "gravity"})
    flip_byte(raw / "map.gpkg", 0)
    assert bad(folder) == {"map data map.gpkg": "changed"}


def test_a_name_in_the_attribute_table_of_the_labels_is_that_of_the_legend(root):
    tiles, table = root / "data" / "tiles", root / "data" / "labels.tif.aux.xml"
    make_tiles(root / "data" / "fields.nc", root / "data" / "labels.tif", tiles, sizes_deg=[5], index_only=True)
    assert bad(tiles) == {}
    table.write_text(table.read_text().replace("<F>Devonian</F>", "<F>Permian</F>"))
    assert bad(tiles) == {"attribute table of labels.tif": "disagrees"}


@pytest.mark.parametrize("where", np.linspace(0.05, 0.95, 7).tolist())
def test_a_changed_byte_of_the_record_is_found(folder, where):
    flip_byte(folder / "provenance.json", where)
    try:
        state = bad(folder)["provenance.json"]
    except InputError:
        state = "no longer a record"
    assert state in ("changed", "no longer a record")


def test_a_map_without_its_record_is_refused(folder):
    (folder / "provenance.json").unlink()
    with pytest.raises(InputError, match="nothing to verify"):
        verify(folder)


@pytest.mark.parametrize("change", [("--near 25km", "--near 26km"), ('"near_km": 25', '"near_km":  25')])
def test_an_edited_record_is_found_down_to_a_blank(folder, change):
    path = folder / "provenance.json"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    assert bad(folder)["provenance.json"] == "changed"


def test_a_swapped_network_is_found_by_the_map_and_by_the_run(root, folder):
    make_recorded_run(root / "runs" / "other", open_fields(root / "data" / "fields.nc"), seed=1)
    shutil.copy(root / "runs" / "other" / "model.safetensors", root / "runs" / "first" / "model.safetensors")
    assert bad(folder) == {"model ../../runs/first/model.safetensors": "changed"}
    assert bad(root / "runs" / "first")["model.safetensors"] == "changed"
    # With its description it is a sound run, but not the one the map was made with.
    shutil.copy(root / "runs" / "other" / "model.json", root / "runs" / "first" / "model.json")
    assert "model.safetensors" not in bad(root / "runs" / "first")
    assert bad(folder)["model ../../runs/first/model.safetensors"] == "changed"


def test_changed_labels_fields_and_legend_are_found(root, folder):
    write_labels(root / "data" / "labels.tif", seed=1)
    change_field(root / "data" / "fields.nc")
    legend = root / "data" / "labels.legend.toml"
    legend.write_text(legend.read_text() + "\n")
    assert bad(folder) == {
        "labels ../../data/labels.tif": "changed",
        "fields ../../data/fields.nc": "changed",
        "labels legend ../../data/labels.legend.toml": "changed",
    }


def test_a_layer_that_is_added_or_removed_changes_no_field_that_was_read(root, folder):
    path, tiles = root / "data" / "fields.nc", root / "data" / "tiles"
    make_tiles(path, root / "data" / "labels.tif", tiles, sizes_deg=[1], index_only=True)
    fields = open_fields(path)
    write_fields(fields.assign(magnetic=fields["bouguer"] + 1), path)
    assert bad(folder) == bad(tiles) == {}
    load_arrays(tiles)
    write_fields(fields.assign_coords(lon=fields["lon"] + 0.01), path)
    assert bad(folder) == {"fields ../../data/fields.nc": "changed"}
    write_fields(fields.drop_vars("residual_10km"), path)
    assert bad(folder) == {"fields ../../data/fields.nc": "changed"}
    assert bad(tiles) == {"fields ../fields.nc": "changed"}
    write_fields(fields, path)
    assert bad(folder) == bad(tiles) == {}
    flip_byte(path, 0)  # no netCDF any more
    assert bad(folder) == {"fields ../../data/fields.nc": "changed"}


def test_inputs_that_are_gone_are_reported_and_are_no_fault_of_the_map(root, folder, tmp_path):
    alone = tmp_path / "sent" / "toy"
    shutil.copytree(folder, alone)
    (found,) = verify(alone)
    assert found.bad == []
    gone = [finding.what for finding in found.findings if finding.state == "gone"]
    assert len(gone) == 5  # fields, labels and their legend, weights and their description
    assert any("labels.tif" in what for what in gone)


def test_original_data_are_checked_where_they_are_kept(root, folder):
    raw = root / "data" / "raw"
    raw.mkdir()
    (raw / "gravity.nc").write_bytes(b"other gravity")
    assert bad(folder) == {"gravity data gravity.nc": "changed"}


def test_a_file_put_beside_a_map_is_reported(folder):
    (folder / "notes.txt").write_text("mine")
    (found,) = verify(folder)
    assert found.bad == []
    assert [finding.what for finding in found.findings if finding.state == "unlisted"] == ["notes.txt"]


def test_checking_writes_nothing(root):
    def state():
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {
            path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files
        }, sorted(root.rglob("*"))

    before = state()
    verify(root)
    assert state() == before


# What follows is a map whose files contradict each other although every checksum is right: they were updated.


def contradictions(folder):
    update_checksums(folder)
    return set(bad(folder))


def test_another_class_in_one_cell(folder):
    def one_cell(values):
        values[0, 10, 15] = values[0, 10, 15] % 10 + 1
        return values

    edit(folder / "lithology.tif", one_cell)
    assert contradictions(folder) == {
        "cells and areas of lithology.tif",
        "attribute table of lithology.tif",
        "class, probability and evidence of every cell",
    }


def test_two_cells_that_change_places_keep_the_counts_but_not_the_likeliest_class(folder):
    def swap(values):
        row = values[0, 10].copy()
        a, b = 0, int(np.flatnonzero(row != row[0])[0])
        values[0, 10, [a, b]] = row[[b, a]]
        return values

    edit(folder / "lithology.tif", swap)
    assert contradictions(folder) == {"class, probability and evidence of every cell"}


def test_a_class_that_the_network_does_not_have(folder):
    edit(folder / "lithology.tif", lambda values: np.where(values == 3, 77, values).astype(np.uint8))
    assert "classes of the legend" in contradictions(folder)


def test_evidence_without_a_class(folder):
    def one_cell(values):
        values[0, -1, -1] = 3
        return values

    edit(folder / "evidence.tif", one_cell)
    assert "class, probability and evidence of every cell" in contradictions(folder)


def test_unmapped_ground_is_blank_as_recorded(root):
    whole = block()
    for layer in (whole.lithology, whole.evidence):
        layer[10:16, 4:9] = 255
    whole.evidence[10:16, 4:9] = 5
    for values in (whole.probability, *whole.uncertainty.values()):
        values[..., 10:16, 4:9] = np.nan
    folder = make_recorded_map(root, folder=root / "maps" / "blank", layers=whole)
    (found,) = verify(folder)
    assert found.bad == []
    assert "unmapped ground" in [finding.what for finding in found.findings if finding.state == "as recorded"]
    record = read_provenance(folder)
    rows = {row["value"]: row["km2"] for row in record["summary"]["evidence"] if row["value"] != 255}
    assert record["unmapped"] == {
        "km2": rows[5],
        "fraction": pytest.approx(rows[5] / sum(rows.values())),
        "predicted": False,
    }

    def one_cell(values):
        values[:, 12, 6] = 3
        return values

    untouched = (folder / "uncertainty.tif").read_bytes()
    edit(folder / "uncertainty.tif", one_cell)
    assert contradictions(folder) == {"unmapped ground"}
    (folder / "uncertainty.tif").write_bytes(untouched)
    edit(folder / "evidence.tif", one_cell)
    assert "class, probability and evidence of every cell" in contradictions(folder)
    edit(folder / "evidence.tif", lambda values: np.where(values == 2, 5, values).astype(np.uint8))
    assert "unmapped ground" in contradictions(folder)


def test_a_record_of_before_unmapped_ground_is_sound(folder):
    record = read_provenance(folder)
    assert record.pop("unmapped")["fraction"] == 0
    write_checksummed_json(folder / "provenance.json", record)
    (found,) = verify(folder)
    assert found.bad == []
    assert "unmapped ground" not in [finding.what for finding in found.findings]


def test_a_raster_that_was_moved_by_a_cell(folder):
    with rasterio.open(folder / "evidence.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.transform = raster.transform @ rasterio.Affine.translation(1, 0)
    assert contradictions(folder) == {"one grid"}


def test_a_raster_of_another_network(folder):
    with rasterio.open(folder / "uncertainty.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.update_tags(GRAVMAP_MODEL_SHA256="b" * 64)
    assert contradictions(folder) == {"the network named in the rasters"}


def test_a_table_of_areas_that_is_not_the_rasters(folder):
    path = folder / "lithology.tif.aux.xml"
    text = path.read_text()
    start = text.index("<F>", text.rindex("<F>Acid intrusive</F>"))
    area = text[
        text.rindex("<F>", 0, text.index("</Row>", start)) + 3 : text.rindex("</F>", 0, text.index("</Row>", start))
    ]
    path.write_text(text.replace(area, str(1.01 * float(area))))
    assert contradictions(folder) == {"attribute table of lithology.tif"}


def test_polygons_of_another_area(folder):
    with sqlite3.connect(folder / "lithology.gpkg") as connection:
        connection.execute("DELETE FROM layer_styles")  # no change of areas
    assert contradictions(folder) == set()
    with sqlite3.connect(folder / "lithology.gpkg") as connection:
        connection.create_function("ST_IsEmpty", 1, lambda _: 0)
        for trigger, *_ in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE lithology SET area_km2 = 2 * area_km2 WHERE fid = 1")
    assert contradictions(folder) == {"area of the polygons"}


def test_a_raster_that_is_none(folder):
    (folder / "evidence.tif").write_bytes(b"no raster")
    assert contradictions(folder) == {"evidence.tif"}


def test_a_projected_map_agrees_with_itself_too(root):
    folder = make_recorded_map(root, crs="EPSG:32645", folder=root / "maps" / "utm")
    assert bad(folder) == {}


# A run


@pytest.fixture
def run(root):
    folder = root / "runs" / "first"
    record = json.loads((folder / "model.json").read_text())
    write_json(folder / "calibration.json", {"model_sha256": record["weights_sha256"]})
    return folder


def test_a_run_is_sound_and_its_data_are_looked_for(run):
    (found,) = verify(run)
    assert found.kind == "run"
    # The toy names fields of another checksum than those of the workspace.
    assert [finding.what for finding in found.bad] == ["trained on fields fields.nc"]


@pytest.mark.parametrize("where", [0.3, 0.999])
def test_a_damaged_byte_of_the_weights(run, where):
    flip_byte(run / "model.safetensors", where)
    (found,) = verify(run)
    (detail,) = [finding.detail for finding in found.bad if finding.what == "model.safetensors"]
    assert "damaged" in detail


def test_an_edited_description_of_the_network(run):
    path = run / "model.json"
    path.write_text(path.read_text().replace('"spread": 10.0', '"spread": 20.0'))
    assert bad(run)["model.json"] == "changed"


def test_scores_and_temperatures_of_other_weights(run):
    scores = json.loads((run / "scores.json").read_text())
    scores["test"]["pa"] = 0.9
    write_json(run / "scores.json", scores)
    write_json(run / "calibration.json", {"model_sha256": "c" * 64})
    assert {"scores.json", "calibration.json"} <= {what for what, state in bad(run).items() if state == "disagrees"}


# What cannot be checked


def test_a_folder_that_holds_nothing(tmp_path):
    with pytest.raises(InputError, match="nothing to verify"):
        verify(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        verify(tmp_path / "absent")


def test_a_truncated_record_is_refused(folder):
    path = folder / "provenance.json"
    record = json.loads(path.read_text())
    for key in ("inputs", "settings", "models"):
        write_json(path, {name: value for name, value in record.items() if name != key})
        with pytest.raises(InputError, match=f"lacks {key}"):
            verify(folder)


def test_one_unreadable_record_does_not_hide_the_others(root):
    (root / "maps" / "old").mkdir()
    (root / "maps" / "old" / "provenance.json").write_text('{"made_by": "gravmap 0.0.1"}')
    (root / "runs" / "broken").mkdir()
    (root / "runs" / "broken" / "model.json").write_text("[]")
    found = {one.folder.name: one for one in verify(root)}
    assert set(found) == {"toy", "old", "first", "broken"}
    assert not found["toy"].bad
    for name in ("old", "broken"):
        (finding,) = found[name].bad
        assert finding.state == "unreadable"


def test_a_record_of_another_format(folder):
    path = folder / "provenance.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(InputError, match="format 99"):
        verify(folder)
    path.write_text('{"made_by": "gravmap 0.1.0"}')
    with pytest.raises(InputError, match="anew"):
        verify(folder)


# Tiles


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiled") / "ws"
    write_fields(residual_fields(gravity(), [10_000.0]), root / "data" / "fields.nc")
    write_labels(root / "data" / "labels.tif")
    make_tiles(
        root / "data" / "fields.nc",
        root / "data" / "labels.tif",
        root / "data" / "tiles",
        sizes_deg=[2.5],
        strides_deg=[2.5],
        size_px=32,
        splits=["blocks"],
    )
    return root


def test_tiles_and_what_they_were_cut_from(tiled, tmp_path):
    root = shutil.copytree(tiled, tmp_path / "ws")
    folder = root / "data" / "tiles"
    assert bad(folder) == {}
    (found,) = verify(root)  # the workspace holds no more than these tiles
    assert (found.kind, found.bad) == ("tile set", [])
    flip_byte(folder / "2.5deg" / "r000_c000_field.tif")
    (folder / "2.5deg" / "r000_c001_label.tif").unlink()
    write_labels(root / "data" / "labels.tif", seed=3)
    assert bad(folder) == {
        "2.5deg/r000_c000_field.tif": "changed",
        "2.5deg/r000_c001_label.tif": "missing",
        "labels ../labels.tif": "changed",
    }


def test_what_was_measured_on_a_network_is_compared_with_its_record(root):
    run = root / "runs" / "first"
    (run / "metrics.csv").write_text("epoch,loss\n1,0.5\n")
    record_files(run, {name: sha256(run / name) for name in ("scores.json", "metrics.csv")})
    write_checksummed_json(run / "evaluation.json", {"model_sha256": "", "files": {"distance.png": "0" * 64}})
    found = bad(run)
    assert found["distance.png"] == "missing"
    assert not {"scores.json", "metrics.csv"} & set(found)
    for name, change in (
        ("scores.json", ("0.5", "0.6")),
        ("metrics.csv", ("0.5", "0.6")),
        ("evaluation.json", ("0", "1")),
    ):
        path = run / name
        path.write_text(path.read_text().replace(*change, 1))
        assert bad(run)[name] == "changed", name


def test_the_shipped_network_is_as_recorded():
    (found,) = verify(shipped_model())
    assert found.bad == []
    assert {path.name for path in shipped_model().iterdir()} - {"model.safetensors", "model.json"} == {
        each.what for each in found.findings if each.what != "model.safetensors and model.json"
    }


def test_a_map_made_before_the_list_of_files_was_added_to_its_network_is_sound(root, folder):
    run = root / "runs" / "first"
    record_files(run, {"scores.json": sha256(run / "scores.json")})
    assert bad(folder) == {}
    (run / "model.json").write_text((run / "model.json").read_text().replace('"seed": 0', '"seed": 1'))
    assert bad(folder) == {"model json ../../runs/first/model.json": "changed"}
