"""The state of a training run: network, optimiser, history, and how it is saved and taken up again."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gravmap.errors import GravmapError, InputError, OptionError
from gravmap.files import write_json, write_text
from gravmap.learning import schedule
from gravmap.learning.area import TEST, TUNE, Area
from gravmap.learning.channels import InputChannels
from gravmap.learning.checkpoint import LAST, ModelSpec, load_model, read_pair, save_model, versions, write_pair
from gravmap.learning.config import TrainConfig
from gravmap.learning.curves import draw_curves
from gravmap.learning.distributed import Group
from gravmap.learning.evaluation import evaluate, scoring_scale
from gravmap.learning.loss import class_frequencies, class_weights, loss_terms
from gravmap.learning.sampler import Sampler

SCORES = ("pa", "mpa", "miou", "fwiou")


class Run:
    """The state of a run: network, optimiser, history, and where it is."""

    def __init__(self, area: Area, run_dir: Path, config: TrainConfig, group: Group) -> None:
        from gravmap.network import build, build_from_dict

        self.area, self.run_dir, self.config, self.group = area, run_dir, config, group
        self.tile_size_px = config.tile_size_px or int(area.meta["tile_size_px"])
        self.inputs = InputChannels.fit(area, config.inputs)
        self.sampler = Sampler(
            area,
            self.inputs,
            self.tile_size_px,
            group.device,
            seed=config.seed,
            augmentation=config.augmentation,
            even_scales=config.even_scales,
            scales_deg=config.scales_deg,
        )
        self.steps = config.steps or math.ceil(self.sampler.window_count / config.batch_size)
        self.local_batch, self.parts = _shares(config, group)
        frequencies = class_frequencies(area)
        self.class_weight = torch.as_tensor(class_weights(frequencies), dtype=torch.float32, device=group.device)
        self.absent = [str(each["name"]) for each, share in zip(area.classes, frequencies, strict=True) if not share]
        torch.manual_seed(config.seed)
        shape = {"in_channels": self.inputs.width, "classes": len(area.classes)}
        described = config.architecture
        network: Any = build_from_dict(described, **shape) if described else build(config.model, **shape)
        if hasattr(network, "set_prior"):
            network.set_prior(frequencies.tolist())
        self.architecture: dict[str, Any] = network.architecture.to_dict()
        self.network: nn.Module = network.to(group.device)
        self.trained = _shared(self.network, group)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.lr)
        self.epoch = self.step = 0
        self.progress = 0.0
        self.history: list[dict[str, Any]] = []
        self.best: tuple[float, int] = (-1.0, 0)
        self.ending_s = 0.0
        self._sums = torch.zeros(3, dtype=torch.float64, device=group.device)
        self._tune: dict[str, Any] = {}

    def begin_epoch(self) -> None:
        """Set what an epoch starts with; random numbers inside the network depend on epoch and process alone."""
        self.trained.train()
        if self.config.freeze_statistics:
            for layer in self.network.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        seeds = np.random.SeedSequence((self.config.seed, self.epoch, self.group.rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(seeds[0] >> np.uint64(1)))
        self._sums.zero_()

    def train_step(self, index: int, elapsed_s: float, parts: int | None = None) -> float:
        """Teach one batch; gives the seconds elapsed on the clock of the first process.

        The gradient is that of the sum of all numerators over the sum of all denominators, whatever
        the number of parts and processes.
        """
        config, group = self.config, self.group
        rate = schedule.learning_rate(self.progress, config.lr)
        share = schedule.hard_share(self.progress, config.hard_share, config.hard_until)
        first = index * config.batch_size + group.rank * self.local_batch
        numbers = np.arange(first, first + self.local_batch)
        terms = torch.zeros(3, dtype=torch.float64, device=group.device)
        terms[2] = elapsed_s if group.rank == 0 else 0.0
        self.optimiser.zero_grad(set_to_none=True)
        chunks = np.array_split(numbers, self.parts)[:parts]
        for part, chunk in enumerate(chunks):
            values, target, small = self.sampler.batch(self.epoch, chunk.tolist())
            with self._apart(part + 1 < len(chunks)):
                numerator, denominator = loss_terms(
                    self.trained(values),
                    target,
                    small,
                    self.class_weight,
                    hard_share=share,
                    small_weight=config.small_weight,
                )
                numerator.backward()  # type: ignore[no-untyped-call]
            terms[0] += numerator.detach()
            terms[1] += denominator
        group.sum(terms)
        loss, weight, elapsed_s = terms.tolist()
        if not math.isfinite(loss):
            raise GravmapError(
                f"The loss is no finite number in epoch {self.epoch + 1}, step {index + 1}.",
                "Lower --lr; `--resume` goes on from the last whole epoch.",
            )
        if weight:
            # DDP has divided the summed gradients by the number of processes.
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(group.size / weight)
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
            for settings in self.optimiser.param_groups:
                settings["lr"] = rate
            self.optimiser.step()
        self._sums += terms
        self.step += 1
        return float(elapsed_s)

    def _apart(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Leave gradients unsummed over processes while more parts of the batch are to come."""
        if more and isinstance(self.trained, DistributedDataParallel):
            return self.trained.no_sync()
        return contextlib.nullcontext()

    def told(self) -> str:
        """Loss so far in this epoch and the last score, in words."""
        scored = [row["tune_fwiou"] for row in self.history if row["tune_fwiou"] is not None]
        loss = float(self._sums[0] / self._sums[1].clamp_min(1e-30))
        return f"loss {loss:.3f}" + (f", FWIoU {scored[-1]:.3f}" if scored else "")

    def stale(self) -> bool:
        """Whether the score has not risen for too long."""
        return bool(self.config.patience and self.history and self.epoch - self.best[1] >= self.config.patience)

    def end_epoch(self, began: float, score: bool) -> None:
        """Score, keep the best, and save the state."""
        self.epoch += 1
        self.group.average_buffers(self.network)
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "loss": float(self._sums[0] / self._sums[1].clamp_min(1e-30)),
            "lr": self.optimiser.param_groups[0]["lr"],
            **{f"tune_{name}": None for name in SCORES},
        }
        if score:
            scoring = time.monotonic()
            self._tune = self.scores(TUNE)
            row |= {f"tune_{name}": self._tune[name] for name in SCORES}
            # Both scores at the end must still fit into a time limit.
            self.ending_s = self.group.agree(2 * (time.monotonic() - scoring))
        row["seconds"] = round(time.monotonic() - began, 3)
        self.history.append(row)
        fwiou = row["tune_fwiou"]
        # Without labelled tuning blocks nothing tells epochs apart: the last one is kept.
        better = score and (fwiou is None or fwiou > self.best[0])
        if better:
            self.best = (-1.0 if fwiou is None else fwiou, self.epoch)
        if self.group.rank == 0:
            if better:
                save_model(self.run_dir, self.network, self.spec({"tune": self._tune}))
            self.save()
            write_text(self.run_dir / "metrics.csv", _as_csv(self.history))

    def scores(self, role: int) -> dict[str, Any]:
        """Scores on the blocks of a role."""
        scales = self.config.scales_deg or self.area.window_scale_deg.tolist()
        return evaluate(
            self.network,
            self.area,
            role,
            inputs=self.inputs,
            tile_size_px=self.tile_size_px,
            scale_deg=scoring_scale(scales),
            device=self.group.device,
            batch_size=1 if self.group.device.type == "cpu" else 4,
            group=self.group,
        )

    def finish(self) -> dict[str, Any]:
        """Score the best weights on the test blocks, once, and write what came out."""
        self.group.agree(None)  # the first process has written the model by now
        network, spec = load_model(self.run_dir, self.group.device)
        self.network.load_state_dict(network.state_dict())
        result = {
            "tune": spec.scores["tune"],
            "test": self.scores(TEST),
            "best_epoch": self.best[1],
            "epochs": self.epoch,
            "split": self.area.meta.get("split", {}),
            "seconds": round(sum(row["seconds"] for row in self.history), 1),
        }
        if self.group.rank == 0:
            save_model(self.run_dir, self.network, self.spec({"tune": result["tune"], "test": result["test"]}))
            draw_curves(self.history, self.run_dir / "curves.png", f"{self.run_dir.name}: {self.config.model}")
            write_json(self.run_dir / "scores.json", result)
        return result

    def spec(self, scores: dict[str, Any]) -> ModelSpec:
        """What `predict` must know."""
        meta = self.area.meta
        scales = self.config.scales_deg or sorted(set(self.area.window_scale_deg.tolist()))
        return ModelSpec(
            model=self.config.model,
            architecture=self.architecture,
            inputs=self.inputs.to_list(),
            classes=self.area.classes,
            tile_size_px=self.tile_size_px,
            scales_deg=list(scales),
            field_recipe=dict(meta.get("field_recipe", {})),
            split=dict(meta.get("split", {})),
            seed=self.config.seed,
            recipe=json.loads(self.config.to_json()),
            versions=versions(),
            sources=list(meta.get("sources", [])),
            scores=scores,
            legend_toml=str(meta.get("legend_toml", "")),
            region_wsen=[float(side) for side in meta.get("region_wsen", [])],
        )

    def save(self) -> None:
        """Write the full state: weights, the optimiser's tensors, and where the run is."""
        tensors: dict[str, Tensor] = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        state = self.optimiser.state_dict()
        for index, held in state["state"].items():
            tensors |= {f"optimiser/{index}/{name}": value for name, value in held.items()}
        record = {
            "config": json.loads(self.config.to_json()),
            "area_sha256": self.area.fingerprint(),
            "inputs": self.inputs.names,
            "split": self.area.meta.get("split", {}),
            "processes": self.group.size,
            "epoch": self.epoch,
            "step": self.step,
            "progress": self.progress,
            "best": list(self.best),
            "history": self.history,
            "tune": self._tune,
            "versions": versions(),
        }
        write_pair(self.run_dir, LAST, tensors, record)

    def restore(self) -> None:
        """Take up the state that :meth:`save` wrote."""
        tensors, record = read_pair(self.run_dir, LAST)
        if record["area_sha256"] != self.area.fingerprint():
            raise InputError(
                f"The tile set is not the one {self.run_dir.name} began with.",
                "Train anew under another --name, or bring the old tile set back.",
            )
        if record["epoch"] >= self.config.epochs and (self.run_dir / "scores.json").exists():
            raise InputError(
                f"{self.run_dir.name} is complete with {record['epoch']} epochs.",
                "--epochs with a larger number goes on.",
            )
        try:
            self.network.load_state_dict(_under("network/", tensors))
            state = self.optimiser.state_dict()
            state["state"] = {}
            for name, tensor in _under("optimiser/", tensors).items():
                index, _, key = name.partition("/")
                state["state"].setdefault(int(index), {})[key] = tensor
            self.optimiser.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"{self.run_dir}/{LAST}.safetensors does not fit the network: {first}") from None
        self.epoch, self.step, self.progress = record["epoch"], record["step"], record["progress"]
        self.best = (record["best"][0], record["best"][1])
        self.history, self._tune = record["history"], record["tune"]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _shares(config: TrainConfig, group: Group) -> tuple[int, int]:
    """Crops per process and step, and in how many parts they are taken."""
    local, rest = divmod(config.batch_size, group.size)
    if rest:
        raise OptionError(
            f"A batch of {config.batch_size} cannot be divided among {group.size} processes.",
            f"Choose a --batch-size that {group.size} divides.",
        )
    parts = math.ceil(local / min(config.micro_batch or local, max(local, 1))) if local else 1
    synchronised = group.size > 1 and group.device.type == "cuda"
    if local // parts < 2 and not synchronised and not config.freeze_statistics:
        raise OptionError(
            "A batch of one crop per process has no spread for batch normalisation to work with.",
            "Choose --batch-size and --micro-batch so that a process takes at least two crops at once.",
        )
    return local, parts


def _shared(network: nn.Module, group: Group) -> nn.Module:
    """The network as trained by all processes together."""
    if group.size == 1:
        return network
    if group.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(network, device_ids=[group.device.index])
    return DistributedDataParallel(network)


def _as_csv(history: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
