import copy
import dataclasses
import json

import pytest
import torch

from gravmap.errors import DeviceError, InputError
from gravmap.files import sha256
from gravmap.learning import load_model
from gravmap.learning.calibration.temperature import read_calibration, write_calibration
from gravmap.learning.training.checkpoint import (
    ModelSpec,
    read_pair,
    record_files,
    save_model,
    versions,
    write_pair,
)
from gravmap.network import build
from gravmap.network.registry import build_from_dict, read_architecture


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("ggmnet-tiny", in_channels=2, classes=3).eval()


@pytest.fixture(scope="module")
def spec(network):
    return ModelSpec(
        model="ggmnet-tiny",
        architecture=network.architecture.to_dict(),
        inputs=[
            {"kind": "field", "field": "residual_10km", "unit": "mGal", "spread": 12.34567890123},
            {"kind": "field", "field": "bouguer", "unit": "mGal", "spread": 55.5},
        ],
        classes=[{"index": i + 1, "name": f"Klasse {i} é", "colour": "#000000", "age": ""} for i in range(3)],
        tile_size_px=64,
        scales_deg=[1.0, 5.0],
        field_recipe={"method": "regional", "heights_m": [10000.0]},
        split={"name": "blocks", "fold": 0},
        seed=3,
        versions=versions(),
        scores={"tune": {"fwiou": None}},
        region_wsen=[65.0, 40.0, 95.0, 55.0],
    )


def test_a_network_comes_back_from_its_files_alone(network, spec, tmp_path):
    save_model(tmp_path, network, spec)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    back, loaded_spec = load_model(tmp_path)
    assert loaded_spec == spec
    assert not back.training
    x = torch.randn(1, 2, 40, 50)
    with torch.no_grad():
        assert torch.equal(back(x), network(x))


def test_the_json_names_the_weights_hash(network, spec, tmp_path):
    import hashlib

    save_model(tmp_path, network, spec)
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["weights_sha256"] == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_one_damaged_byte_is_refused(network, spec, tmp_path, where):
    save_model(tmp_path, network, spec)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path)


def test_an_edited_description_is_refused_in_either_file(network, spec, tmp_path):
    save_model(tmp_path, network, spec)
    sidecar, weights = tmp_path / "model.json", tmp_path / "model.safetensors"
    text, content = sidecar.read_text(), weights.read_bytes()
    sidecar.write_text(text.replace("Klasse 1", "Klasse 2"))
    with pytest.raises(InputError, match=r"model\.json was changed: classes differs from the copy of it inside"):
        load_model(tmp_path)
    sidecar.write_text(text)
    weights.write_bytes(content.replace(b"Klasse 1", b"Klasse 2"))
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path)


def test_a_file_that_belongs_to_the_network_is_compared_where_it_is_read(network, spec, tmp_path, caplog):
    save_model(tmp_path, network, spec)
    write_calibration(tmp_path, {"temperatures": {"5deg": 1.3}, "scales": [5.0]})
    path = tmp_path / "calibration.json"
    record_files(tmp_path, {path.name: sha256(path)})
    load_model(tmp_path)
    assert read_calibration(tmp_path).temperature([5.0]) == 1.3
    path.write_text(path.read_text().replace("1.3", "1.4"))
    with pytest.raises(InputError, match=r"calibration\.json was changed"):
        read_calibration(tmp_path)
    path.unlink()
    assert read_calibration(tmp_path) is None
    assert "model.json records it" in caplog.text
    # Weights that are written anew, as in a resumed run, have no such files yet.
    save_model(tmp_path, network, spec)
    write_calibration(tmp_path, {"temperatures": {"5deg": 1.4}, "scales": [5.0]})
    assert read_calibration(tmp_path).temperature([5.0]) == 1.4


def test_truncated_and_missing_files_are_refused(network, spec, tmp_path):
    save_model(tmp_path, network, spec)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        load_model(tmp_path)


def test_a_kill_between_the_two_files_leaves_a_readable_pair(tmp_path):
    write_pair(tmp_path, "last", {"a": torch.zeros(3)}, {"epoch": 1})
    old = (tmp_path / "last.json").read_bytes()
    write_pair(tmp_path, "last", {"a": torch.ones(3)}, {"epoch": 2})
    (tmp_path / "last.json").write_bytes(old)  # new weights were renamed, the JSON not yet
    tensors, record = read_pair(tmp_path, "last")
    assert record["epoch"] == 2
    assert torch.equal(tensors["a"], torch.ones(3))


def test_weights_of_another_architecture_are_refused(network, spec, tmp_path):
    save_model(tmp_path, network, dataclasses.replace(spec, inputs=spec.inputs[:1]))
    with pytest.raises(InputError, match="does not describe the network"):
        load_model(tmp_path)


@pytest.mark.parametrize(("layout", "message"), [(1, "Train anew"), (99, "Upgrade gravmap")])
def test_another_layout_is_refused(network, spec, tmp_path, monkeypatch, layout, message):
    with monkeypatch.context() as patched:
        patched.setattr("gravmap.learning.training.checkpoint.FORMAT", layout)
        save_model(tmp_path, network, spec)
    with pytest.raises(InputError, match=f"in layout {layout}; this gravmap reads layout 2 only(.|\n)*{message}"):
        load_model(tmp_path)


def test_no_pickle_and_all_types_survive(tmp_path):
    tensors = {
        "step": torch.tensor(7.0),
        "count": torch.tensor(3),
        "state": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0),
        "shared": torch.ones(4)[:2],
    }
    write_pair(tmp_path, "last", {**tensors, "again": tensors["shared"]}, {})
    back, _ = read_pair(tmp_path, "last")
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor)
        assert back[name].dtype == tensor.dtype
    assert b"pickle" not in (tmp_path / "last.safetensors").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(network, spec, tmp_path, value):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.classifier.weight[0] = value
    save_model(tmp_path, broken, spec)
    with pytest.raises(InputError, match=r"model\.safetensors holds values that are not finite, in .*weight"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [(torch.Tensor.long, "is int64"), (torch.Tensor.flatten, r"is float32 \[\d+\], not float32 \[")],
)
def test_tensors_of_another_type_or_shape_are_refused(network, spec, tmp_path, change, words):
    tensors = network.state_dict()
    name = next(name for name in tensors if name.endswith("weight") and tensors[name].ndim == 4)
    write_pair(tmp_path, "model", {**tensors, name: change(tensors[name])}, dataclasses.asdict(spec))
    with pytest.raises(InputError, match=f"the tensor {name} {words}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("classes", 3, "classes is 3"),
        ("inputs", [{"kind": "field", "field": "a", "unit": "mGal", "spread": 0}], r"inputs\[0\]\.spread is 0"),
        ("classes", [{"index": 2, "name": "a"}, {"index": 1, "name": "b"}, {"index": 3, "name": "c"}], "numbered"),
        ("tile_size_px", 10**7, "tile_size_px is 10000000"),
        ("split", None, "split is null"),
    ],
)
def test_a_wrong_value_of_the_record_is_named(network, spec, tmp_path, key, value, words):
    write_pair(tmp_path, "model", network.state_dict(), {**dataclasses.asdict(spec), key: value})
    with pytest.raises(InputError, match=words):
        load_model(tmp_path)


def test_a_huge_network_is_refused_before_its_memory_is_allocated(network, spec, tmp_path):
    huge = {**network.architecture.to_dict(), "head": [10**7, 32, 16]}
    with pytest.raises(DeviceError, match="million parameters"):
        build_from_dict(huge, 1, 3)
    (tmp_path / "mine.json").write_text(json.dumps(huge))
    with pytest.raises(DeviceError, match=r"mine\.json: .*million parameters"):
        read_architecture(tmp_path / "mine.json")
    save_model(tmp_path, network, dataclasses.replace(spec, architecture=huge))
    with pytest.raises(InputError, match=r"model\.json does not describe the network beside it: the tensor"):
        load_model(tmp_path)
