"""BiSeNet: a shallow spatial path and a ResNet-18 context path, fused.

Attention refinement (ARM) and feature fusion (FFM) are the modules of GGMNet (`ggmnet.py`), which took them from
BiSeNet. The two auxiliary losses of the original are omitted: all networks are trained with the same loss.

References
----------
Yu et al. 2018, BiSeNet: bilateral segmentation network for real-time semantic segmentation, arXiv:1808.00897.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from gravmap.errors import OptionError
from gravmap.network.ggmnet import AttentionRefinement, FeatureFusion, crop, pad_to_multiple
from gravmap.network.operators import conv_bn_relu, upsample
from gravmap.network.residual import BasicBlock, init_weights


@dataclass(frozen=True)
class BiSeNetArchitecture:
    """Architecture of a BiSeNet on ResNet-18.

    Parameters
    ----------
    width : int
        Channels of the first stage of the ResNet, 64 in the original; all other widths are multiples of it.

    Raises
    ------
    OptionError
        `width` is below 1.
    """

    KIND: ClassVar[str] = "bisenet"

    width: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) or not 1 <= self.width <= 1 << 16:
            raise OptionError(f"A BiSeNet needs a width of at least 1, not {self.width!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        return {"kind": self.KIND, **asdict(self)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> BiSeNetArchitecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            `width` is missing or invalid, or there is another field.
        """
        if set(record) - {"kind"} != {"width"}:
            raise OptionError(f"The record of a BiSeNet has the key width only, not {sorted(record)}.")
        return cls(record["width"])


class ResNet18(nn.Module):
    """The backbone of ResNet-18, without its classifier."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn_relu(in_channels, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(widths[n], widths[n + 1], 2 if n else 1), BasicBlock(widths[n + 1], widths[n + 1]))
            for n in range(4)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to feature maps at 1/4, 1/8, 1/16 and 1/32 of its size."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class BiSeNet(nn.Module):
    """The network; logits are computed at 1/8 of the size and upsampled bilinearly."""

    multiple = 32

    def __init__(self, architecture: BiSeNetArchitecture, in_channels: int, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.in_channels, self.classes = in_channels, classes
        width = architecture.width
        both = 2 * width
        self.detail = nn.Sequential(
            conv_bn_relu(in_channels, width, 7, 2),
            conv_bn_relu(width, width, 3, 2),
            conv_bn_relu(width, width, 3, 2),
            conv_bn_relu(width, both, 1),
        )
        self.context = ResNet18(in_channels, width)
        self.whole = conv_bn_relu(8 * width, both, 1)
        self.attend16, self.attend32 = (AttentionRefinement(n * width, both, True, "batch") for n in (4, 8))
        self.refine16, self.refine32 = (conv_bn_relu(both, both) for _ in range(2))
        self.fuse = FeatureFusion(2 * both, 2 * both)
        self.classify = nn.Sequential(conv_bn_relu(2 * both, 2 * both), nn.Conv2d(2 * both, classes, 1))
        init_weights(self)

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores."""
        last = self.classify[-1]
        assert isinstance(last, nn.Conv2d)
        return last

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) of any size to logits (B, K, H, W); w is the width of the architecture."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)
        _, _, at16, at32 = self.context(x)  # (B, 4w, H/16, W/16), (B, 8w, H/32, W/32)
        # Attention first: it raises a clear error if the batch is too small for batch normalisation.
        coarse = self.attend32(at32) + self.whole(at32.mean((2, 3), keepdim=True))  # (B, 2w, H/32, W/32)
        coarse = self.refine32(upsample(coarse, 2))  # (B, 2w, H/16, W/16)
        context = self.refine16(upsample(self.attend16(at16) + coarse, 2))  # (B, 2w, H/8, W/8)
        fused = self.fuse([self.detail(x), context])  # (B, 4w, H/8, W/8)
        logits: Tensor = upsample(self.classify(fused), 8)  # (B, K, H, W)
        return crop(logits, height, width)
