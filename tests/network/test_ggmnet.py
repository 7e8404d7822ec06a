"""GGMNet: any size, shared prefixes, gradients, independence of neighbours and place, and its published size."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network import GGMNet
from gravmap.network.architecture import Architecture
from gravmap.network.cost import count_macs, count_parameters
from gravmap.network.deform import DeformConv3x3
from gravmap.network.ggmnet import pad_to_multiple
from gravmap.network.presets import ablation, cycle, reference, small, tiny
from gravmap.network.registry import build_from_dict, describe


def little(**switches) -> Architecture:
    """Make the smallest network with all three branches and every operator."""
    thin = {"encoder": (4, 6, 8), "head": (6, 5, 4), "arm_norm": "none"} | switches
    return cycle(5, ((), (3,), (1, 4)), ("conv", "zoom", "conv2", "skip", "zoom2"), (1,), **thin)


def stir(network: nn.Module, seed: int = 3) -> nn.Module:
    """Give normalisations and offsets values as after some training, so that nothing is neutral by chance."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in ((layer.weight, 0.5), (layer.bias, -0.3), (layer.running_var, 0.5)):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + low)
            layer.running_mean.copy_(0.2 * torch.randn(layer.running_mean.shape, generator=generator))
        elif isinstance(layer, DeformConv3x3):
            layer.offset.bias.data.copy_(torch.randn(18, generator=generator))
            layer.offset.weight.data.copy_(0.05 * torch.randn(layer.offset.weight.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return stir(GGMNet(little(), 2, 4)).eval()


@torch.no_grad()
def test_every_odd_size_is_scored_pixel_by_pixel(network):
    for size in range(1, 131, 2):
        other = 131 - size
        assert network(torch.randn(1, 2, size, other)).shape == (1, 4, size, other)


@torch.no_grad()
@pytest.mark.parametrize("half_res_stage", [True, False])
def test_interpolating_network_reads_the_interpolated_field(half_res_stage):
    torch.manual_seed(1)
    parts = {"full_res_stage": False, "half_res_stage": half_res_stage}
    plain = stir(GGMNet(little(**parts), 2, 4)).eval()
    finer = GGMNet(little(interpolate=(4, 2), **parts), 2, 4).eval()
    finer.load_state_dict(plain.state_dict())
    field = torch.randn(1, 2, 32, 64)
    pixels = functional.interpolate(field, scale_factor=(4.0, 2.0), mode="bilinear")
    last = {}
    plain.classify.register_forward_hook(lambda *at: last.update(logits=at[2]))
    plain(pixels)
    expected = functional.interpolate(last["logits"], size=(32, 64), mode="bilinear")
    torch.testing.assert_close(finer(field), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (65, 100), (128, 191)])
def test_interpolating_network_scores_every_cell(shape):
    network = stir(GGMNet(little(attention=True, interpolate=(3, 2)), 2, 4)).eval()
    logits = network(torch.randn(1, 2, *shape))
    assert logits.shape == (1, 4, *shape)
    assert torch.isfinite(logits).all()


def test_attention_is_the_identity_at_first_and_then_links_all_pixels():
    torch.manual_seed(2)
    plain, attending = (stir(GGMNet(little(attention=on, arm=False, ffm=False), 1, 3)).eval() for on in (False, True))
    missing, unexpected = attending.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("attend.") for name in missing)
    x = torch.randn(1, 1, 256, 512, requires_grad=True)
    torch.testing.assert_close(attending(x), plain(x))
    torch.nn.init.normal_(attending.attend.tell.weight)
    far = []
    for network in (plain, attending):
        (gradient,) = torch.autograd.grad(network(x)[0, :, :8, :8].sum(), x)
        far.append(float(gradient[..., -8:].abs().max()))
    assert far[0] == 0  # the receptive field ends before
    assert far[1] > 0


@pytest.mark.parametrize("wrong", [{"interpolate": (0, 1)}, {"interpolate": (2,)}, {"interpolate": (2, True)},
    {"interpolate": (9, 1)}, {"half_res_stage": False},
])  # fmt: skip
def test_options_that_are_not_the_paper_s_are_checked(wrong):
    with pytest.raises(OptionError, match=r"interpolate|full size"):
        little(**wrong)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1), (2, 64), (64, 65), (128, 1)])
def test_edge_sizes_give_numbers(network, shape):
    assert torch.isfinite(network(torch.randn(1, 2, *shape))).all()


def test_padding_mirrors_below_and_to_the_right_and_repeats_small_images():
    x = torch.arange(40.0).view(1, 1, 40, 1).expand(1, 1, 40, 3)
    padded = pad_to_multiple(x, 64)
    assert padded.shape == (1, 1, 64, 64)
    assert torch.equal(padded[0, 0, :40, :3], x[0, 0])
    assert padded[0, 0, 40:, 0].tolist() == list(range(38, 14, -1))  # mirrored about the last row
    few = torch.arange(3.0).view(1, 1, 1, 3)
    assert pad_to_multiple(few, 64)[0, 0, 0, 3:].unique().tolist() == [2.0]  # 61 more columns of 3: repeated
    assert pad_to_multiple(torch.zeros(1, 1, 64, 128), 64).shape == (1, 1, 64, 128)


@torch.no_grad()
def test_padding_inside_is_padding_outside(network):
    x = torch.randn(1, 2, 100, 70)
    outside = functional.pad(x, (0, 58, 0, 28), mode="reflect")
    assert torch.equal(network(x), network(outside)[:, :, :100, :70])


@torch.no_grad()
def test_scores_do_not_depend_on_the_neighbours_in_the_batch(network):
    # In double precision: rounding in float32 can move a sample of a deformable convolution across a pixel's edge.
    exact = copy.deepcopy(network).double()
    x = torch.randn(3, 2, 64, 64, dtype=torch.float64)
    alone = torch.cat([exact(image[None]) for image in x])
    torch.testing.assert_close(exact(x), alone, rtol=1e-6, atol=1e-8)


@torch.no_grad()
def test_a_window_64_pixels_on_gives_the_same_scores_in_its_interior():
    # Attention pools over the whole window, so it is left out here; the next test has it.
    torch.manual_seed(1)
    local = stir(
        GGMNet(
            cycle(
                2, ((), (1,), (0, 1)), ("conv", "zoom"), (1,), encoder=(4, 6, 8), head=(6, 5, 4), arm=False, ffm=False
            ),
            1,
            3,
        )
    ).eval()
    field = torch.randn(1, 1, 512, 512)
    whole, shifted = local(field)[..., 64:, 64:], local(field[..., 64:, 64:])
    torch.testing.assert_close(shifted[..., 160:288, 160:288], whole[..., 160:288, 160:288], rtol=1e-3, atol=1e-4)
    # 32 pixels on, the coarsest branch falls on other pixels: the test above can fail.
    whole, shifted = local(field)[..., 31:, 31:], local(field[..., 31:, 31:])
    assert (shifted[..., 160:288, 160:288] - whole[..., 160:288, 160:288]).abs().max() > 1e-2


@torch.no_grad()
def test_an_anomaly_moved_64_pixels_moves_its_scores(network):
    field = torch.zeros(1, 2, 704, 704)
    field[..., 304:336, 304:336] = torch.randn(2, 32, 32)
    moved = torch.roll(field, (64, 64), (2, 3))
    # The zero padding at the edges reaches some 250 pixels in; beyond that only the anomaly speaks.
    first, second = network(field)[..., 272:368, 272:368], network(moved)[..., 336:432, 336:432]
    assert first.std() > 1e-2
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-4)


def test_branches_share_their_prefix_cell_by_cell():
    network = GGMNet(little(), 1, 3)
    assert network.routes[0][:3] == network.routes[1][:3] == [0, 1, 2]
    assert network.routes[2][0] == 0
    assert not set(network.routes[2][1:]) & {*network.routes[0], *network.routes[1]}
    assert len(network.cells) == 5 + 2 + 4

    # The same parameter, so its gradient comes from every branch.
    x = torch.randn(1, 8, 16, 16)
    weight = network.cells[0].operator[0].weight
    each = [torch.autograd.grad(network.branches(x)[b].square().sum(), weight)[0].abs().sum() for b in range(3)]
    assert all(gradient > 0 for gradient in each)

    # Branches 1 and 2 go down together and stay together longer than with branch 0.
    late = GGMNet(cycle(5, ((), (2,), (2, 4)), ("conv",), (1,), arm_norm="none"), 1, 3)
    assert late.routes == [[0, 1, 2, 3, 4], [0, 1, 5, 6, 7], [0, 1, 5, 6, 8]]
    assert late(torch.randn(1, 1, 64, 64)).shape == (1, 3, 64, 64)

    alone = GGMNet(little(share_prefix=False), 1, 3)
    assert len(alone.cells) == 15
    assert alone.split_points == set()


@torch.no_grad()
def test_a_shared_prefix_computes_what_equal_branches_compute():
    shared = stir(GGMNet(little(), 1, 3)).eval()
    apart = GGMNet(little(share_prefix=False), 1, 3).eval()
    rest = {name: value for name, value in shared.state_dict().items() if not name.startswith("cells.")}
    apart.load_state_dict(rest | apart_cells(shared, apart))
    x = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(apart(x), shared(x))


def apart_cells(shared: GGMNet, apart: GGMNet) -> dict[str, torch.Tensor]:
    """Give every branch of `apart` its own copy of the cells that `shared` holds once."""
    state = {}
    for mine, theirs in zip(apart.routes, shared.routes, strict=True):
        for number, source in zip(mine, theirs, strict=True):
            for name, value in shared.cells[source].state_dict().items():
                state[f"cells.{number}.{name}"] = value
    return state


def test_gradients_reach_every_parameter():
    torch.manual_seed(2)
    network = stir(GGMNet(little(arm_norm="batch"), 1, 3)).train()
    network(torch.randn(2, 1, 64, 128)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_offsets_start_at_zero_and_the_rest_does_not():
    network = GGMNet(tiny(), 1, 3)
    offsets = [layer.offset for layer in network.modules() if isinstance(layer, DeformConv3x3)]
    assert len(offsets) == 3
    for offset in offsets:
        assert not offset.weight.any()
        assert not offset.bias.any()
    # Kaiming normal, fan in: variance 2 / (9 * 24)
    assert network.encoder[2][0].weight.var().item() == pytest.approx(2 / (9 * 24), rel=0.1)
    assert network.head[0].conv.weight.var().item() == pytest.approx(2 / (9 * 56), rel=0.1)


def test_an_untrained_network_predicts_the_class_frequencies():
    network = GGMNet(little(), 1, 4)
    network.set_prior([50, 30, 20, 0])
    assert network.classify.bias.softmax(0).tolist() == pytest.approx([0.49995, 0.29997, 0.19998, 1e-4], rel=1e-3)
    for wrong in ([1, 2, 3], [1, 2, 3, -1], [0, 0, 0, 0], [1, 2, 3, float("nan")]):
        with pytest.raises(OptionError, match="4 numbers"):
            network.set_prior(wrong)


SWITCHES = ("share_prefix", "cell_residual", "encoder_skip", "arm", "ffm", "deform", "full_res_stage")


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_the_network_and_nothing_breaks(switch):
    def scores(architecture):
        torch.manual_seed(4)
        return GGMNet(architecture, 1, 3).eval()(torch.linspace(-1, 1, 64 * 64).view(1, 1, 64, 64))

    on, off = scores(little()), scores(little(**{switch: False}))
    assert off.shape == on.shape
    assert not torch.equal(on, off)


@pytest.mark.parametrize("switches", [{}, *({name: False} for name in SWITCHES), {"arm_norm": "batch"}])
def test_json_and_a_state_dict_rebuild_the_same_scores(switches):
    network = stir(GGMNet(little(**switches), 2, 4)).eval()
    again = build_from_dict(json.loads(json.dumps(network.architecture.to_dict())), 2, 4).eval()
    again.load_state_dict(network.state_dict())
    x = torch.randn(1, 2, 40, 70)
    assert torch.equal(again(x), network(x))


def test_one_image_per_training_step_is_refused_where_attention_normalises():
    network = GGMNet(little(arm_norm="batch"), 1, 3).train()
    with pytest.raises(OptionError, match="one image per step"):
        network(torch.randn(1, 1, 64, 64))
    network(torch.randn(2, 1, 64, 64))
    network.eval()(torch.randn(1, 1, 64, 64))
    network.train()
    for layer in network.modules():  # frozen statistics need no batch
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    network(torch.randn(1, 1, 64, 64))
    GGMNet(little(), 1, 3).train()(torch.randn(1, 1, 64, 64))  # arm_norm none


def test_bf16_autocast_stays_close_and_trains():
    torch.manual_seed(5)
    network = stir(GGMNet(tiny(), 1, 5)).eval()
    x = torch.randn(2, 1, 64, 64)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x)
        rough.float().square().mean().backward()
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_it_learns_two_classes_within_a_few_steps():
    torch.manual_seed(6)
    network = GGMNet(tiny(), 1, 2).train()
    x = torch.nn.functional.interpolate(torch.randn(2, 1, 8, 8), size=(64, 64), mode="bicubic")
    target = (x[:, 0] > 0).long()
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(25):
        optimiser.zero_grad()
        functional.cross_entropy(network(x), target).backward()
        optimiser.step()
    assert (network(x).argmax(1) == target).float().mean() > 0.95


def on_paper(architecture: Architecture, in_channels: int = 1) -> GGMNet:
    with torch.device("meta"):
        return GGMNet(architecture, in_channels, 10)


# The figures of the design note: three input channels; parameters and multiply-adds without shared prefixes.
@pytest.mark.parametrize(
    ("architecture", "parameters", "macs"),
    [
        (reference(), 10.0, 64.6),
        (reference(16), 6.1, 58.9),
        (reference(18), 7.1, 60.0),
        (reference(20), 9.0, 63.5),
        (reference(24), 12.0, 68.1),
        (reference(paths=((), (4,), (2, 8))), 12.4, 64.5),
        (reference(paths=((), (14,), (9, 13))), 8.8, 65.4),
    ],
)
def test_size_on_the_meta_device(architecture, parameters, macs):
    network = on_paper(dataclasses.replace(architecture, share_prefix=False), in_channels=3)
    assert round(count_parameters(network) / 1e6, 1) == parameters
    assert round(count_macs(network, 3) / 1e9, 1) == macs


def test_size_of_the_shipped_networks():
    assert round(count_parameters(on_paper(reference())) / 1e6, 1) == 9.6
    network = on_paper(small(), in_channels=3)
    assert round(count_parameters(network) / 1e6, 1) == 3.2
    assert round(count_macs(network, 3) / 1e9) == 45
    assert 0.25e6 < count_parameters(on_paper(tiny())) < 0.35e6
    assert 0.12e6 < sum(p.numel() for p in on_paper(reference()).encoder.parameters()) < 0.13e6


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("16", 6.1, 58.9),
        ("18", 7.1, 60.0),
        ("20", 9.0, 63.5),
        ("22", 10.0, 64.6),
        ("24", 12.0, 68.1),
        ("e", 10.0, 64.6),
    ],
)
def test_names_give_the_depths_of_the_design_note(name, parameters, macs):
    record = describe(f"ggmnet-{name}") | {"share_prefix": False}
    network = on_paper(Architecture.from_dict(record), in_channels=3)
    assert round(count_parameters(network) / 1e6, 1) == parameters
    assert round(count_macs(network, 3) / 1e9, 1) == macs


def test_the_ablation_adds_one_part_after_another():
    nets = [on_paper(ablation(letter)) for letter in "abcde"]
    parts = [{type(layer).__name__ for layer in net.modules()} for net in nets]
    weighs = [net.refine[0].weigh is not None for net in nets]
    fuses = ["FeatureFusion" in each for each in parts]
    deforms = ["DeformConv3x3" in each for each in parts]
    residuals = [net.architecture.cell_residual for net in nets]
    assert weighs == [False, True, True, True, True]
    assert fuses == [False, False, True, True, True]
    assert deforms == [False, False, False, True, True]
    assert residuals == [False, False, False, False, True]
    assert ablation("e") == reference() == Architecture.from_dict(describe("ggmnet-22"))
    # Every cell that keeps its size has a residual connection: of 54, three lead to a coarser scale.
    assert [sum(cell.residual for cell in net.cells) for net in nets] == [0, 0, 0, 0, 51]
    # The fusion mixes four maps of 96: three branches and the encoder's own.
    assert nets[2].fuse.mix[0].weight.shape[:2] == (96, 384)
    with pytest.raises(OptionError, match="a, b, c, d, e"):
        ablation("f")


@pytest.mark.slow
def test_it_fits_four_tiles():
    # Labels have nothing to do with the field: they can only be learnt by heart.
    torch.manual_seed(8)
    network = GGMNet(tiny(), 1, 4).train()
    field = functional.interpolate(torch.randn(4, 1, 8, 8), size=(64, 64), mode="bicubic")
    target = functional.interpolate(torch.randn(4, 4, 4, 4), size=(64, 64), mode="bicubic").argmax(1)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        functional.cross_entropy(network(field), target).backward()
        optimiser.step()
    assert (network(field).argmax(1) == target).float().mean() > 0.95


def test_macs_of_one_convolution_by_hand():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    assert count_macs(layer, 3, 10) == 10 * 10 * 5 * 3 * 9
    assert count_macs(DeformConv3x3(3, 5), 3, 10) == 10 * 10 * (5 + 18) * 3 * 9


@pytest.mark.gpu
def test_cuda_scores_as_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(7)
    network = stir(GGMNet(tiny(), 1, 5)).eval()
    x = torch.randn(2, 1, 200, 130)
    exact = network(x)
    torch.testing.assert_close(network.cuda()(x.cuda()).cpu(), exact, rtol=1e-2, atol=1e-2)
    network.train()
    with torch.autocast("cuda", torch.bfloat16):
        network(x.cuda()).float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
