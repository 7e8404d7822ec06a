"""A network that starts from the outcrop: at first the outcrop alone, then every part of its body is trained."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network import build, registry
from gravmap.network.cost import count_macs, count_parameters, peak_bytes
from gravmap.network.outcrop_start import (
    AllOutputs,
    OutcropStart,
    OutcropStartArchitecture,
    has_thickness,
    with_outcrop_start,
)
from gravmap.network.registry import build_from_dict, describe, read_architecture

CLASSES, PLANES = 4, (2, 6)
CHANNELS = 8
BODIES = ["ggmnet-tiny", "ggmnet-a", "ggmnet-d", "unet", "bisenet-resnet18", "hrnetv1-w32"]


def started(name):
    torch.manual_seed(0)
    return build_from_dict(with_outcrop_start(describe(name), PLANES), CHANNELS, CLASSES)


def crops(images=2, px=64):
    x = torch.randn(images, CHANNELS, px, px, generator=torch.Generator().manual_seed(1))
    x[:, 2:6] = functional.log_softmax(x[:, 2:6], dim=1)
    return x


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("training", [True, False])
def test_before_the_first_step_the_logits_are_those_of_the_outcrop(name, training):
    network, x = started(name).train(training), crops()
    with torch.no_grad():
        logits = network(x)
    assert torch.equal(logits, torch.tensor(0.6) * x[:, 2:6])
    assert torch.equal(logits.argmax(1), x[:, 2:6].argmax(1))


@pytest.mark.parametrize("name", BODIES[:5])
def test_every_part_of_the_body_has_a_gradient_from_the_second_step_on(name):
    network, x = started(name).train(), crops(images=3)
    target = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()  # gravity knows the class, the outcrop does not
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(x), target)
        loss.backward()
        optimizer.step()
    gradients = {
        key: float(each.grad.abs().max()) if each.grad is not None else 0.0 for key, each in network.named_parameters()
    }
    without_gradient = {key for key, size in gradients.items() if size == 0}
    # Parameters without a gradient in the body alone may have none here.
    alone = build(name, in_channels=CHANNELS, classes=CLASSES).train()
    functional.cross_entropy(alone(x), target).backward()
    never = {f"body.{key}" for key, each in alone.named_parameters() if each.grad is None or not each.grad.abs().max()}
    assert without_gradient <= never
    assert gradients["scale"] > 0
    with torch.no_grad():
        assert functional.cross_entropy(network(x), target) < functional.cross_entropy(0.6 * x[:, 2:6], target)


def test_the_record_makes_the_same_network_again(tmp_path):
    network = started("ggmnet-tiny")
    record = json.loads(json.dumps(network.architecture.to_dict()))
    assert record["kind"] == "outcrop-start"
    assert record["body"] == describe("ggmnet-tiny")
    again = build_from_dict(record, CHANNELS, CLASSES)
    again.load_state_dict(network.state_dict())
    (tmp_path / "net.json").write_text(json.dumps(record))
    assert read_architecture(tmp_path / "net.json") == record
    assert OutcropStartArchitecture.from_dict(record).planes == PLANES


def test_its_cost_is_that_of_the_body():
    network, body = started("unet"), build("unet", in_channels=CHANNELS, classes=CLASSES)
    assert count_parameters(network) == count_parameters(body) + 1
    assert count_macs(network, CHANNELS, 64) == count_macs(body, CHANNELS, 64)
    assert 1 <= peak_bytes(network, CHANNELS, 64) / peak_bytes(body, CHANNELS, 64) < 1.2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"planes": [2, 2]}, "not a range of input channels"),
        ({"planes": [2, 7]}, "log probabilities of 4 classes"),
        ({"planes": [6, 10]}, "log probabilities of 4 classes"),
        ({"planes": [2.0, 6.0]}, "not two integers"),
        ({"planes": 2}, "not two integers"),
        ({"body": "unet"}, "not an architecture record"),
        ({"body": {"kind": "never"}}, "Unknown kind of architecture: 'never'"),
        ({"body": with_outcrop_start({"kind": "unet", "widths": [4]}, (0, 4))}, "cannot be of the same kind"),
        ({"more": 1}, "keys body and planes, not .*more"),
    ],
)
def test_invalid_records_are_refused(change, words):
    record = with_outcrop_start(describe("ggmnet-tiny"), PLANES) | change
    with pytest.raises(OptionError, match=words):
        build_from_dict(record, CHANNELS, CLASSES)


def test_mixed_precision_does_not_round_the_outcrop():
    network, x = started("unet").eval(), crops(1)
    nn.init.ones_(network.body.classify.bias)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    assert torch.equal(logits, 0.6 * x[:, 2:6] + 1)


class ClassifierFirst(nn.Module):
    """A network whose classifier is registered before its other layers."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(3, CLASSES, 1)
        self.features = nn.Conv2d(CHANNELS, 3, 3, padding=1)

    def forward(self, x):
        return self.classifier(self.features(x))


def test_the_classifier_is_set_to_zero_wherever_it_is_registered():
    body = ClassifierFirst()
    network = OutcropStart(OutcropStartArchitecture({"kind": "any"}, PLANES), body, CHANNELS, CLASSES)
    assert not body.classifier.weight.any()
    assert body.features.weight.any()
    x = crops()
    with torch.no_grad():
        assert torch.equal(network(x), torch.tensor(0.6) * x[:, 2:6])


def test_a_network_without_a_classifier_is_refused():
    body = nn.Sequential(nn.Conv2d(CHANNELS, CLASSES, 1))
    with pytest.raises(OptionError, match="Sequential has no attribute `classifier`"):
        OutcropStart(OutcropStartArchitecture({"kind": "any"}, PLANES), body, CHANNELS, CLASSES)
    body.classifier = nn.Conv2d(CHANNELS, CLASSES + 1, 1)
    with pytest.raises(OptionError, match=f"has {CLASSES + 1} output channels, but there are {CLASSES} classes"):
        OutcropStart(OutcropStartArchitecture({"kind": "any"}, PLANES), body, CHANNELS, CLASSES)


def test_build_refuses_a_network_without_a_classifier(monkeypatch):
    read, _ = registry._KINDS["unet"]
    monkeypatch.setitem(registry._KINDS, "unet", (read, lambda *shape: nn.Conv2d(CHANNELS, CLASSES, 1)))
    with pytest.raises(OptionError, match="no attribute `classifier`"):
        build("unet", in_channels=CHANNELS, classes=CLASSES)


@pytest.mark.parametrize("name", [*registry.MODELS, "outcrop-start"])
def test_every_network_names_the_classifier_that_its_output_comes_from(name):
    with torch.device("meta"):
        record = with_outcrop_start(describe("unet"), PLANES) if name == "outcrop-start" else describe(name)
        network = build_from_dict(record, CHANNELS, CLASSES)
    assert network.classifier.out_channels == CLASSES
    # A second name for the layer would change the keys that trained weights are saved under.
    assert sum(value is network.classifier.weight for value in network.state_dict(keep_vars=True).values()) == 1


@pytest.mark.parametrize("name", ["ggmnet-tiny", "residual-unet", "unet"])
def test_thickness_starts_as_a_constant_and_its_quantiles_never_cross(name):
    torch.manual_seed(0)
    record = with_outcrop_start(describe(name), PLANES, thickness=True)
    network, x = build_from_dict(record, CHANNELS, CLASSES).eval(), crops()
    assert network.architecture.to_dict() == record
    assert has_thickness(network)
    assert not has_thickness(started(name))
    with torch.no_grad():
        outputs = network.outputs(x)
        assert torch.equal(network(x), torch.tensor(0.6) * x[:, 2:6])
        assert torch.equal(AllOutputs(network)(x), outputs)
        assert torch.equal(outputs[:, :CLASSES], network(x))
        for plane, km in zip(outputs[0, CLASSES:], (0.4, 0.8, 1.8), strict=True):
            torch.testing.assert_close(plane, torch.full_like(plane, km))
        nn.init.normal_(network.classifier.weight, std=5.0)
        quantiles = network.outputs(x)[:, CLASSES:]
    assert quantiles.std() > 0.1
    assert (quantiles >= 0).all()
    assert (quantiles.diff(dim=1) >= 0).all()


def test_a_network_without_thickness_has_the_record_and_the_outputs_of_earlier_versions():
    network, x = started("unet"), crops()
    assert set(network.architecture.to_dict()) == {"kind", "body", "planes"}
    assert torch.equal(AllOutputs(network)(x), network(x))
    with pytest.raises(OptionError, match="keys body and planes"):
        OutcropStartArchitecture.from_dict({**network.architecture.to_dict(), "thickness": 1})
