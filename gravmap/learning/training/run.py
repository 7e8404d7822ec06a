"""The state of a training run: network, optimiser, history, and how it is saved and taken up again."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gravmap.errors import InputError
from gravmap.files import write_text
from gravmap.lattice import TEST, TUNE
from gravmap.learning.data.dataset import RegionDataset
from gravmap.learning.data.splits import DatasetSplits
from gravmap.learning.evaluation import metrics
from gravmap.learning.evaluation.held_out import (
    HeldOutPredictions,
    count_windows,
    default_scales,
    evaluate,
    predict_held_out,
    scoring_scale,
)
from gravmap.learning.sampling.sampler import Sampler
from gravmap.learning.training import schedule
from gravmap.learning.training.checkpoint import LAST, ModelSpec, read_pair, save_model, under, versions, write_pair
from gravmap.learning.training.config import TrainConfig
from gravmap.learning.training.curves import TensorBoardWriter, history_csv
from gravmap.learning.training.distributed import Group
from gravmap.learning.training.loss import class_counts, class_weights, loss_terms
from gravmap.learning.training.optimizer import ADAM, OptimizerSchedule
from gravmap.learning.training.step import Stepper
from gravmap.learning.training.warm_start import choose_inputs, load_weights, make_network
from gravmap.learning.training.weight_averaging import ExponentialMovingAverage
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

SCORES = ("loss", "pa", "mpa", "miou", "fwiou")


class Run:
    """The state of a run: network, optimiser, history, and where it is."""

    def __init__(
        self,
        ground: RegionDataset | DatasetSplits,
        run_dir: Path,
        config: TrainConfig,
        group: Group,
    ) -> None:
        given = DatasetSplits.of(ground)
        config = replace(config, from_tiles=given.tiles is not None)
        self.fingerprint = given.fingerprint()
        self.grounds = given.with_outcrop(config.cuts, config.seed) if config.context else given
        self.run_dir, self.config, self.group = run_dir, config, group
        self.tile_size_px = config.tile_size_px or int(self.grounds.meta["tile_size_px"])
        self.inputs = choose_inputs(self.grounds, config)
        self.sampler = Sampler(
            self.grounds,
            self.inputs,
            self.tile_size_px,
            group.device,
            seed=config.seed,
            augmentation=config.augmentation,
            even_scales=config.even_scales,
            scales_deg=config.scales_deg,
        )
        self.steps = config.steps or math.ceil(self.sampler.window_count / config.batch_size)
        counts = np.sum([class_counts(area) for area in self.grounds.train], axis=0)
        weights = class_weights(counts, config.class_weight)
        self.class_weight = torch.as_tensor(weights, dtype=torch.float32, device=group.device)
        self.absent = [str(each["name"]) for each, count in zip(self.classes, counts, strict=True) if not count]
        torch.manual_seed(config.seed)
        network: Any = make_network(self.inputs, config, counts)
        self.architecture: dict[str, Any] = network.architecture.to_dict()
        self.network: nn.Module = network.to(group.device)
        self.average = ExponentialMovingAverage(self.network, config.average) if config.average else None
        self.stepper = Stepper(self.network, self.sampler, self.class_weight, config, group)
        self.phases = OptimizerSchedule(self.network, config, self.steps)
        self.epoch = self.step = 0
        self.progress = 0.0
        self.history: list[dict[str, Any]] = []
        self.best: tuple[float, int] = (-1.0, 0)
        self.ending_s = 0.0
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._confusion = torch.zeros(len(counts), len(counts), dtype=torch.int64, device=group.device)
        self._tune: dict[str, Any] = {}
        self._events: TensorBoardWriter | None = None

    def begin_epoch(self) -> None:
        """Set what an epoch starts with; random numbers inside the network depend on epoch and process alone."""
        self.network.train()
        if self.config.freeze_statistics:
            for layer in self.network.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        seeds = np.random.SeedSequence((self.config.seed, self.epoch, self.group.rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(seeds[0] >> np.uint64(1)))
        self._sums.zero_()
        self._confusion.zero_()

    def train_step(self, index: int, elapsed_s: float, parts: int | None = None) -> float:
        """Teach one batch (or only so many of its parts); gives the seconds on the clock of the first process.

        Raises
        ------
        NonFiniteLoss
            Loss or gradient is no finite number.
        """
        self.phases.set_rate(self.progress, self.epoch, index)
        share = schedule.topk_share(self.progress, self.config.topk_share, self.config.topk_warmup)
        taught = self.stepper.gradients(self.epoch, index, share, elapsed_s, parts)
        if taught.weight:
            self.phases.optimiser.step()
        self._sums += torch.tensor([taught.loss, taught.weight], dtype=torch.float64)
        self._confusion += taught.confusion
        self.step += 1
        if self.average is not None:
            self.average.take(self.step)
        return taught.elapsed_s

    def keep_batch(self, index: int) -> None:
        """Save this process's crops of a step, to look at what went wrong in it."""
        numbers = self.stepper.numbers(index)
        fields, target, small = self.sampler.batch(self.epoch, numbers)
        record = {
            "epoch": self.epoch + 1,
            "step": index + 1,
            "process": self.group.rank,
            "seed": self.config.seed,
            "samples": numbers,
            "crops": [asdict(self.sampler.draw(self.epoch, number)) for number in numbers],
            "channels": self.grounds.first.channels,
            "lr": self.phases.optimiser.param_groups[0]["lr"],
            "phase": self.phases.name,
        }
        stem = "nonfinite_batch" + (f"-{self.group.rank}" if self.group.rank else "")
        write_pair(self.run_dir, stem, {"fields": fields, "target": target, "small": small}, record)

    def told(self) -> str:
        """Loss so far in this epoch and the last score, in words."""
        scored = [row["tune_fwiou"] for row in self.history if row["tune_fwiou"] is not None]
        loss = float(self._sums[0] / self._sums[1].clamp_min(1e-30))
        return f"loss {loss:.3f}" + (f", FWIoU {scored[-1]:.3f}" if scored else "")

    def stale(self) -> bool:
        """Whether the score has not risen for too long; before the switch to SGD nothing is too long."""
        patience, phases = self.config.patience, self.phases
        if not patience or not self.history or (self.config.schedule == "adam-sgd" and phases.name == ADAM):
            return False
        return self.epoch - max(self.best[1], phases.began) >= patience

    def end_epoch(self, began: float, score: bool) -> None:
        """Score, keep the best, change the optimiser when its time has come, and save the state."""
        self.epoch += 1
        self.group.average_buffers(self.network)
        confusion = self.group.sum(self._confusion).cpu().numpy()
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "phase": self.phases.name,
            "lr": self.phases.optimiser.param_groups[0]["lr"],
            "loss": float(self._sums[0] / self._sums[1].clamp_min(1e-30)),
            "train_fwiou": metrics.scores(confusion)["fwiou"],
            **{f"tune_{name}": None for name in SCORES},
        }
        # What is scored and kept is the running average where there is one.
        with self.average.in_place(self.group) if self.average else contextlib.nullcontext():
            better = self._score(row) if score else False
            if better and self.group.rank == 0:
                save_model(self.run_dir, self.network, self.spec({"tune": self._tune}))
        row["seconds"] = round(time.monotonic() - began, 3)
        self.history.append(row)
        if self.group.agree(self.phases.due([row["loss"] for row in self.history])):
            self.phases.switch(self.epoch)
            log.info("SGD takes over after %d epochs of Adam.", self.epoch)
        if self.group.rank == 0:
            self.save()
            write_text(self.run_dir / "metrics.csv", history_csv(self.history))
            if self.config.tensorboard:
                self._events = self._events or TensorBoardWriter(self.run_dir, self.epoch)
                self._events.write(row)

    def _score(self, row: dict[str, Any]) -> bool:
        """Score on the tuning ground, into a row of the history; gives whether the network is the best so far."""
        scoring = time.monotonic()
        self._tune = self.scores(TUNE, self._mapped_loss)
        row |= {f"tune_{name}": self._tune[name] for name in SCORES}
        # What is asked of the best weights in the end must still fit into a time limit.
        self.ending_s = self.group.agree(self._ending_scores * (time.monotonic() - scoring))
        fwiou = row["tune_fwiou"]
        # Without labelled tuning blocks nothing tells epochs apart: the last one is kept.
        better: bool = fwiou is None or fwiou > self.best[0]
        if better:
            self.best = (-1.0 if fwiou is None else fwiou, self.epoch)
        return better

    def _mapped_loss(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss of a map, with the share of pixels that teach in the end, bodies of all sizes alike."""
        small = torch.zeros_like(target, dtype=torch.bool)
        weights, share = self.class_weight.to(logits.device), self.config.topk_share
        return loss_terms(logits, target, small, weights, topk_share=share)

    def scores(
        self, role: int, loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, Any]:
        """Scores on the ground of a role."""
        return evaluate(
            self.network, self.grounds, role, scale_deg=scoring_scale(self.scales_deg), loss=loss, **self._asking
        )

    def held_out(self, progress: Progress = silent) -> HeldOutPredictions:
        """What the network as it is says of all held-out ground, at the sizes of window that maps are made with."""
        return self.ask(self.grounds, self.ending_scales_deg, progress)

    def ask(self, grounds: DatasetSplits, scales_deg: list[float], progress: Progress = silent) -> HeldOutPredictions:
        """What the network as it is says of held-out ground, its own or another."""
        return predict_held_out(self.network, grounds, scales_deg, progress=progress, **self._asking)

    @property
    def classes(self) -> list[dict[str, Any]]:
        """What the network tells apart."""
        return self.grounds.classes

    @property
    def scales_deg(self) -> list[float]:
        """Sizes of the windows the network is taught on, degrees."""
        return sorted(set(self.config.scales_deg or self.grounds.scales_deg))

    @property
    def ending_scales_deg(self) -> list[float]:
        """Sizes of the windows that the best weights are asked with in the end: a map's, and the score's."""
        return sorted({*default_scales(self.scales_deg, self.group.device.type), scoring_scale(self.scales_deg)})

    @property
    def _asking(self) -> dict[str, Any]:
        device = self.group.device
        shape = {"inputs": self.inputs, "tile_size_px": self.tile_size_px}
        return {**shape, "device": device, "batch_size": 1 if device.type == "cpu" else 4, "group": self.group}

    @functools.cached_property
    def _ending_scores(self) -> float:
        """How many times as long as a score on the tuning blocks all asking in the end takes, by windows."""
        one = count_windows(self.grounds, [scoring_scale(self.scales_deg)], TUNE)
        every = count_windows(self.grounds, self.ending_scales_deg, TUNE, TEST)
        if self.grounds.simulated:  # asked once more, with foreign gravity
            every += count_windows(self.grounds, [scoring_scale(self.scales_deg)], TEST)
        return every / one if one else 1.0

    def spec(self, scores: dict[str, Any]) -> ModelSpec:
        """What `predict` must know."""
        meta = self.grounds.meta
        return ModelSpec(
            model=self.config.model,
            architecture=self.architecture,
            inputs=self.inputs.to_list(),
            classes=self.classes,
            tile_size_px=self.tile_size_px,
            scales_deg=self.scales_deg,
            field_recipe=dict(meta.get("field_recipe", {})),
            split=dict(meta.get("split", {})),
            seed=self.config.seed,
            recipe=json.loads(self.config.to_json()),
            versions=versions(),
            sources=[
                *meta.get("sources", []),
                *([self.grounds.tiles.record] if self.grounds.tiles is not None else []),
            ],
            scores=scores,
            legend_toml=str(meta.get("legend_toml", "")),
            region_wsen=[] if self.grounds.simulated else [float(side) for side in meta.get("region_wsen", [])],
            area_sha256=self.fingerprint,
            taught_on=self.grounds.record,
        )

    def save(self) -> None:
        """Write the full state: weights, the optimiser's tensors, and where the run is."""
        tensors: dict[str, Tensor] = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        optimiser, phase = self.phases.state()
        tensors |= {f"optimiser/{name}": value for name, value in optimiser.items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.state.items()}
        record = {
            "config": json.loads(self.config.to_json()),
            "area_sha256": self.fingerprint,
            "inputs": self.inputs.names,
            "taught_on": self.grounds.record,
            "split": self.grounds.meta.get("split", {}),
            "processes": self.group.size,
            "at_once": self.stepper.at_once,
            **phase,
            "epoch": self.epoch,
            "step": self.step,
            "progress": self.progress,
            "best": list(self.best),
            "history": self.history,
            "tune": self._tune,
            "versions": versions(),
        }
        write_pair(self.run_dir, LAST, tensors, record)

    def begin(self) -> None:
        """Take the weights that the run begins with, where they are another run's."""
        if self.config.init is not None:
            load_weights(self.network, self.config.init)
            if self.average is not None:
                self.average.load(self.network.state_dict())

    def restore(self) -> None:
        """Take up the state that :meth:`save` wrote.

        Raises
        ------
        InputError
            There is none, it is of another tile set, network or version, or the run is complete.
        """
        tensors, record = read_pair(self.run_dir, LAST)
        try:
            self._take_up(tensors, record)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            first, wrote = str(error).splitlines()[0], record.get("versions", {}).get("gravmap", "another version")
            raise InputError(
                f"{self.run_dir}/{LAST}.safetensors, written by gravmap {wrote}, does not fit the network: {first}.",
                "Train anew under another --name.",
            ) from None

    def _take_up(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        if record["area_sha256"] != self.fingerprint:
            what = "crusts are not those" if self.grounds.simulated else "tile set is not the one"
            raise InputError(
                f"The {what} {self.run_dir.name} began with.",
                "Train anew under another --name, or bring the old ones back.",
            )
        if record["epoch"] >= self.config.epochs and (self.run_dir / "scores.json").exists():
            raise InputError(
                f"{self.run_dir.name} is complete with {record['epoch']} epochs.",
                "--epochs with a larger number goes on.",
            )
        self.network.load_state_dict(under("network/", tensors))
        if self.average is not None:
            self.average.load(under("average/", tensors))
        self.phases.restore(under("optimiser/", tensors), record)
        if record["config"]["micro_batch"] == self.config.micro_batch:
            self.stepper.take_at_once(record["at_once"])
        self.epoch, self.step, self.progress = record["epoch"], record["step"], record["progress"]
        self.best = (record["best"][0], record["best"][1])
        self.history, self._tune = record["history"], record["tune"]
