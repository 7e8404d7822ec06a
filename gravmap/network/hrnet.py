"""HRNetV1: branches of four resolutions that exchange their feature maps; the finest one gives the logits.

`hrnetv1-w32` is the network the paper compares GGMNet with: 28.5 million parameters, which in HRNet's own paper is the
count of HRNet-W32 with its single high-resolution output (the wide-output V2 has 29.3 and a wider head).

References
----------
Sun, Xiao, Liu, Wang 2019, Deep high-resolution representation learning for human pose estimation, arXiv:1902.09212.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from gravmap.errors import OptionError
from gravmap.network.ggmnet import crop, pad_to_multiple
from gravmap.network.operators import conv_bn, conv_bn_relu, upsample
from gravmap.network.residual import BasicBlock, Bottleneck, init_weights


@dataclass(frozen=True)
class HRNetArchitecture:
    """Architecture of an HRNetV1.

    Parameters
    ----------
    width : int
        Channels of the finest branch; they double with every coarser branch.
    modules : tuple of int
        Number of exchange modules in the stages of 2, 3 and 4 branches.
    blocks : int
        Residual blocks of a branch per exchange module, and bottlenecks of the first stage.
    stem : int
        Channels of the two convolutions of the stem.

    Raises
    ------
    OptionError
        Not three stages, or a number below 1.
    """

    KIND: ClassVar[str] = "hrnet"

    width: int = 32
    modules: tuple[int, ...] = (1, 4, 3)
    blocks: int = 4
    stem: int = 64

    def __post_init__(self) -> None:
        numbers = (self.width, self.blocks, self.stem, *self.modules)
        whole = all(isinstance(number, int) and 1 <= number <= 1 << 16 for number in numbers)
        if len(self.modules) != 3 or not whole or max(self.blocks, *self.modules) > 64:
            raise OptionError(
                f"An HRNet needs three stages, whole numbers of at least 1, and at most 64 modules and blocks, not"
                f" {asdict(self)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        return {"kind": self.KIND, **asdict(self), "modules": list(self.modules)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> HRNetArchitecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            A field is missing, unknown or has an invalid value.
        """
        values = {name: value for name, value in record.items() if name != "kind"}
        if set(values) != {"width", "modules", "blocks", "stem"} or not isinstance(values["modules"], list | tuple):
            raise OptionError(
                f"The record of an HRNet has the keys width, modules, blocks and stem, not {sorted(values)}."
            )
        return cls(**{**values, "modules": tuple(values["modules"])})


class HRNet(nn.Module):
    """The network; logits are those of the finest branch, at 1/4 of the size, upsampled bilinearly."""

    multiple = 32

    def __init__(self, architecture: HRNetArchitecture, in_channels: int, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.in_channels, self.classes = in_channels, classes
        stem, blocks = architecture.stem, architecture.blocks
        self.stem = nn.Sequential(conv_bn_relu(in_channels, stem, 3, 2), conv_bn_relu(stem, stem, 3, 2))
        self.first = nn.Sequential(*(Bottleneck(4 * stem if index else stem, stem) for index in range(blocks)))
        # Transitions between stages: two branches from the first stage, then one more branch per stage.
        widths = [architecture.width * 2**level for level in range(4)]
        self.enter = nn.ModuleList([conv_bn_relu(4 * stem, widths[0]), conv_bn_relu(4 * stem, widths[1], 3, 2)])
        self.below = nn.ModuleList(conv_bn_relu(widths[n - 1], widths[n], 3, 2) for n in (2, 3))
        self.stages = nn.ModuleList()
        for branches, modules in zip((2, 3, 4), architecture.modules, strict=True):
            last = [branches == 4 and index == modules - 1 for index in range(modules)]
            self.stages.append(nn.ModuleList(Exchange(widths[:branches], blocks, 1 if x else branches) for x in last))
        self.classify = nn.Conv2d(widths[0], classes, 1)
        init_weights(self)

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores."""
        return self.classify

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) of any size to logits (B, K, H, W)."""
        height, width = x.shape[-2:]
        x = self.first(self.stem(pad_to_multiple(x, self.multiple)))  # (B, 4 stem, H/4, W/4)
        maps: list[Tensor] = [enter(x) for enter in self.enter]
        for number, stage in enumerate(self.stages):
            if number:
                maps.append(self.below[number - 1](maps[-1]))
            assert isinstance(stage, nn.ModuleList)
            for exchange in stage:
                maps = exchange(maps)  # branch n: (B, width 2^n, H/2^(2+n), W/2^(2+n))
        logits: Tensor = upsample(self.classify(maps[0]), 4)  # (B, K, H, W)
        return crop(logits, height, width)


class Exchange(nn.Module):
    """Residual blocks on every branch, then every branch sums the maps of all branches, resampled to its size."""

    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(blocks))) for width in widths
        )
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in range(len(widths))) for target in range(outputs)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the branches' feature maps to new ones of the same shapes, of the first `outputs` branches."""
        found = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        summed = []
        for target, paths in enumerate(self.paths):
            assert isinstance(paths, nn.ModuleList)
            total = found[target]
            for source, (path, x) in enumerate(zip(paths, found, strict=True)):
                if source != target:
                    y = path(x)
                    # Nearest, as in HRNetV1.
                    total = total + (functional.interpolate(y, size=total.shape[-2:]) if source > target else y)
            summed.append(functional.relu(total))
        return summed


def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Make the layers that bring a branch's map to the channels and, if coarser, the size of another branch."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_bn(widths[source], widths[target], 1)
    steps: list[nn.Module] = [conv_bn_relu(widths[source], widths[source], 3, 2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, conv_bn(widths[source], widths[target], 3, 2))
