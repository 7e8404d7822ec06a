import dataclasses

import numpy as np
import pytest

from gravmap.errors import InputError, OptionError
from gravmap.learning import TrainConfig, make_config
from gravmap.learning.sampling.augmentation import PAPER, Augmentation
from gravmap.learning.training.recipes import RecipeData, at_grid_resolution, grid_windows, recipe_data


def test_the_default_recipe_uses_two_optimizers_in_600_epochs():
    config = make_config()
    assert (config.recipe, config.schedule, config.epochs, config.patience) == ("default", "adam-sgd", 600, 100)
    assert (config.switch, config.switch_from, config.switch_window, config.switch_by) == ("plateau", 50, 20, 300)
    assert (config.switch_smoothing, config.switch_gain) == (0.9, 0.01)
    assert (config.sgd_milestones, config.lr_floor, config.sgd_warmup_epochs) == ((50, 100, 150), 1e-6, 5)
    assert config.topk_warmup * config.epochs == pytest.approx(10)
    assert (config.topk_base, config.class_weight, config.even_scales) == ("valid", "enet", True)
    assert config.augmentation == Augmentation()


def test_a_shorter_run_is_scaled_down():
    config = make_config(epochs=120)
    assert (config.switch_from, config.switch_window, config.switch_by) == (10, 4, 60)
    assert (config.sgd_milestones, config.sgd_warmup_epochs, config.patience) == ((10, 20, 30), 1, 20)
    # After a fifth of the run the average remembers what it did after the whole: 0.9^5 in one epoch.
    assert config.switch_smoothing == pytest.approx(0.9**5)


@pytest.mark.parametrize("options", [{"time_limit_s": 900.0}, {"epochs": 59}, {"epochs": 3, "time_limit_s": 5.0}])
def test_a_short_run_uses_cosine_annealing(options):
    config = make_config(**options)
    assert config.schedule == "cosine"
    assert config.patience is None
    plain = TrainConfig(recipe="default", epochs=config.epochs, time_limit_s=config.time_limit_s)
    assert config == plain


def test_the_paper_recipe_has_the_papers_values():
    config = make_config("paper", model="ggmnet")
    assert (config.epochs, config.batch_size, config.lr, config.patience) == (600, 4, 1e-3, None)
    assert make_config("paper", processes=4).batch_size == 16
    assert make_config("paper", processes=4, batch_size=8).batch_size == 8
    assert config.precision == "float32"
    assert (config.schedule, config.sgd_momentum, config.sgd_weight_decay) == ("adam-sgd", 0.9, 5e-4)
    assert config.sgd_milestones == (50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550)
    assert (config.lr_floor, config.sgd_decay, config.clip) == (0.0, 0.1, None)
    assert (config.topk_share, config.topk_base, config.topk_warmup) == (0.15, "all", 0.0)
    assert config.even_scales is False
    assert config.augmentation == PAPER
    assert (PAPER.contrast, PAPER.brightness, PAPER.picture_noise) == ((0.5, 1.5), (0.8, 1.2), (0.01, 0.1))
    assert (PAPER.amplitude, PAPER.offset_mgal, PAPER.noise) == ((1.0, 1.0), 0.0, (0.0, 0.0))
    # A clock does not make another recipe of it.
    assert make_config("paper", time_limit_s=60.0).schedule == "adam-sgd"


def test_the_data_of_a_recipe(tmp_path):
    assert recipe_data() == recipe_data("crusts") == recipe_data("cpu") == RecipeData(None, "blocks", may_leak=False)
    assert recipe_data("paper") == RecipeData("rgb", "random", may_leak=True)
    path = tmp_path / "mine.toml"
    path.write_text('base = "paper"\nbatch_size = 6\n')
    assert recipe_data(str(path)) == recipe_data("paper")
    assert make_config(str(path), processes=4).batch_size == 6
    path.write_text("epochs = 3\n")
    assert recipe_data(str(path)) == RecipeData()
    with pytest.raises(OptionError, match="Unknown recipe 'papers'"):
        recipe_data("papers")


def test_the_recipe_for_a_cpu(tmp_path):
    config = make_config("cpu")
    assert (config.model, config.time_limit_s, config.schedule, config.precision) == (
        "ggmnet-small", 7200.0, "cosine", "auto",
    )  # fmt: skip
    assert make_config("cpu", time_limit_s=60.0, model="unet").time_limit_s == 60
    assert make_config("cpu", model="unet").model == "unet"
    assert make_config("cpu", epochs=200).time_limit_s is None
    path = tmp_path / "mine.toml"
    path.write_text('base = "cpu"\nlr = 0.01\n')
    assert (make_config(str(path)).model, at_grid_resolution(str(path))) == ("ggmnet-small", True)
    assert not at_grid_resolution("paper")


@pytest.mark.parametrize(
    ("nodes", "sizes", "wanted", "found"),
    [
        (31, (1.0, 5.0, 10.0), (), ([5.0], 128)),  # 10 cells a degree: 50 in a window of 5 degrees
        (451, (1.0, 5.0, 10.0), (), ([5.0], 768)),
        (91, (1.0, 5.0, 10.0), (), ([5.0], 128)),  # 30 cells a degree: 150
        (91, (1.0, 5.0, 10.0), (10.0,), ([10.0], 256)),
        (91, (1.0, 5.0, 10.0), (10.0, 5.0), ([5.0, 10.0], 128)),
        (91, (1.0,), (), ([1.0], 128)),
    ],
)
def test_windows_at_the_resolution_of_the_grid(area, nodes, sizes, wanted, found):
    dataset = dataclasses.replace(
        area,
        fields=np.zeros((1, nodes, nodes), np.float32),
        field_valid=np.ones((nodes, nodes), bool),
        field_nodes_wsen=np.array([80.0, 40.0, 83.0, 43.0]),
        windows=np.zeros((len(sizes), 4)),
        window_scale_deg=np.array(sizes),
        window_role=np.zeros(len(sizes), np.uint8),
    )
    assert grid_windows(dataset, wanted) == found


def test_options_override_the_recipe():
    config = make_config("paper", epochs=7, lr=0.5, batch_size=4, patience=None)
    assert (config.epochs, config.lr, config.batch_size) == (7, 0.5, 4)
    assert make_config(patience=9).patience == 9
    assert make_config(epochs=30, schedule="adam-sgd").switch_by == 15


def test_a_recipe_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "paper"\nepochs = 40\nclip = 2\nsgd_milestones = [3, 6]\nclass_weight = "sqrt"\n'
        "scales_deg = [1, 5.0]\n[augmentation]\nrotate_share = 0\ncontrast = [1, 1.5]\n"
    )
    config = make_config(str(path), lr=0.1)
    assert (config.epochs, config.clip, config.sgd_milestones, config.lr) == (40, 2.0, (3, 6), 0.1)
    assert (config.class_weight, config.topk_base, config.scales_deg) == ("sqrt", "all", [1.0, 5.0])
    assert config.augmentation == dataclasses.replace(PAPER, rotate_share=0.0, contrast=(1.0, 1.5))
    assert config.recipe == str(path)
    assert make_config(str(path), epochs=50).epochs == 50
    path.write_text("epochs = 30\n")
    assert make_config(str(path)).schedule == "cosine"
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "found", "hint"),
    [
        ("epoch = 3", "unknown key 'epoch'", "'epochs'"),
        ("[augmentation]\nflips = true", "unknown key 'flips'", "'flip'"),
        ("epochs = 3.5", "epochs = 3.5 has the wrong type", "a whole number"),
        ('lr = "fast"', "lr = 'fast'", "a number"),
        ("even_scales = 1", "even_scales = 1", "true or false"),
        ("sgd_milestones = [1.5]", "sgd_milestones", "list"),
        ("[augmentation]\nnoise = [0.1]", "noise", "list"),
        ("augmentation = 3", "is not a table", "[augmentation]"),
        ("model = 'unet'", "unknown key 'model'", ""),
        ("inputs = ['bouguer']", "unknown key 'inputs'", ""),
        ("epochs = ", "not valid TOML", ""),
    ],
)
def test_an_invalid_file_is_refused(tmp_path, text, found, hint):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        make_config(str(path))
    assert found in caught.value.message
    assert hint in (caught.value.hint or "")


def test_unknown_names_and_values_are_refused(tmp_path):
    with pytest.raises(InputError, match="missing"):
        make_config(str(tmp_path / "none.toml"))
    with pytest.raises(OptionError, match="Unknown recipe 'papers'"):
        make_config("papers")
    for wrong in (
        {"schedule": "linear"}, {"topk_base": "some"}, {"class_weight": "median"}, {"precision": "float16"},
        {"switch": "epoch:0"}, {"topk_share": 0.0}, {"switch_smoothing": 1.5}, {"clip": 0.0},
    ):  # fmt: skip
        with pytest.raises(OptionError):
            make_config(**wrong)
