"""The planned runs, compared with the numbers of the paper and with the named networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gravmap.errors import OptionError
from gravmap.learning import make_config
from gravmap.learning.sampling.augmentation import UNCHANGED
from gravmap.network import smp as smp_module
from gravmap.network.presets import reference
from gravmap.network.registry import describe
from gravmap.reproduce.plan import REFERENCE, TABLES, load_plan

PARTS = ("arm", "ffm", "encoder_skip", "deform", "cell_residual")


def test_the_paper_s_numbers_agree_with_the_gains_its_text_names():
    scores = load_plan("full").paper["scores"]
    nets = [scores[f"ggmnet-{letter}"] for letter in "abcd"] + [scores[REFERENCE]]
    gains = [{key: round(after[key] - before[key], 2) for key in ("mpa", "fwiou")} for before, after in pairwise(nets)]
    # "4.12 and 1.6 points" for the FFM, "4.2 and 2.2" for the deformable convolution.
    assert gains[1] == {"mpa": 4.12, "fwiou": 1.6}
    assert gains[2] == {"mpa": 4.2, "fwiou": 2.2}
    assert set(scores) == {"ggmnet-a", "ggmnet-b", "ggmnet-c", "ggmnet-d", REFERENCE}, "nothing else is known"


def test_the_paper_s_windows_add_up():
    paper = load_plan("full").paper
    assert paper["windows"] == paper["windows_with_bedrock"] + paper["windows_set_apart"]


@pytest.mark.parametrize("profile", ["laptop", "full"])
def test_every_table_has_its_networks(profile):
    plan = load_plan(profile)
    depths = [run.architecture["depth"] for run in plan.networks("depth")]
    assert depths == [16, 18, 20, 22, 24]
    ablation = [sum(run.architecture[part] for part in PARTS) for run in plan.networks("ablation")]
    assert ablation == [0, 1, 3, 4, 5]
    assert plan.networks("comparison")[0].network == REFERENCE
    assert len(plan.networks("comparison")) == 6
    assert len({run.name for run in plan.runs}) == len(plan.runs)
    assert all(run.tables and set(run.tables) <= set(TABLES) for run in plan.runs)


def test_quick_trains_one_network_under_both_splits():
    plan = load_plan("quick")
    assert [(run.network, run.protocol) for run in plan.runs] == [(REFERENCE, "random"), (REFERENCE, "blocks")]
    for table in TABLES:
        assert [run.network for run in plan.networks(table)] == [REFERENCE]


def test_seeds_are_counted_from_that_of_the_reproduction(tmp_path):
    runs = [run for run in load_plan("laptop").runs if (run.network, run.protocol) == ("ggmnet-a", "random")]
    assert [run.name for run in runs] == ["random-ggmnet-a", "random-ggmnet-a-seed1"]
    words = [run.words(tmp_path, {"train": []}, seed=7) for run in runs]
    assert [line[line.index("--seed") + 1] for line in words] == ["7", "8"]


def test_the_short_profiles_train_with_their_own_recipe(tmp_path):
    for profile in ("quick", "laptop"):
        plan = load_plan(profile)
        words = plan.runs[0].words(tmp_path, plan.settings, seed=0)
        config = make_config(words[words.index("--recipe") + 1])
        assert (config.topk_share, config.schedule, config.average) == (1.0, "cosine", 0.99)
        assert config.augmentation == replace(UNCHANGED, metric=False)
    full = load_plan("full")
    words = full.runs[0].words(tmp_path, full.settings, seed=0)
    assert words[words.index("--recipe") + 1] == "paper"
    assert words.count("--recipe") == 1


def test_full_trains_every_network_under_both_splits_and_laptop_ggmnet_alone_on_blocks():
    laptop, full = load_plan("laptop"), load_plan("full")
    assert {(run.network, run.protocol) for run in full.runs} == {
        (run.network, split) for run in full.runs for split in ("random", "blocks")
    }
    assert [run.network for run in laptop.runs if run.protocol == "blocks"] == [REFERENCE]
    assert len(laptop.runs) == 29


@pytest.mark.parametrize("profile", ["quick", "laptop", "full"])
def test_every_profile_trains_the_paper_s_networks(profile):
    pytest.importorskip("segmentation_models_pytorch")
    for run in load_plan(profile).runs:
        assert run.architecture == describe(run.model), run.name
        if run.network == REFERENCE:
            assert run.architecture == reference().to_dict()


def test_without_the_extra_its_networks_are_left_out_with_the_reason(monkeypatch):
    def absent():
        raise OptionError("segmentation-models-pytorch is not here.", 'Install it: pip install "gravmap[peers]".')

    monkeypatch.setattr(smp_module, "_library", absent)
    plan = load_plan("laptop")
    missing = {run.network: run.missing for run in plan.runs if run.missing}
    assert set(missing) == {"deeplabv3plus-resnet50", "unet-resnet34", "segformer-b0"}
    assert all("gravmap[peers]" in reason for reason in missing.values())
    assert len(plan.networks("comparison")) == 6


def test_an_unknown_profile_is_refused():
    with pytest.raises(OptionError, match="quick, laptop, full"):
        load_plan("slow")
