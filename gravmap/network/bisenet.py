"""BiSeNet: a shallow path that keeps detail and a ResNet-18 that sees far, fused. GGMNet has its ARM and FFM.

The attention that refines the context path and the fusion are the very modules of GGMNet (`ggmnet.py`). The two
auxiliary losses of the original are left out: every network here learns by one loss.

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
from gravmap.network.ggmnet import AttentionRefinement, FeatureFusion, pad_to_multiple
from gravmap.network.operators import conv_bn_relu, upsample
from gravmap.network.residual import BasicBlock, start


@dataclass(frozen=True)
class BiSeNetArchitecture:
    """A BiSeNet on ResNet-18.

    Parameters
    ----------
    width : int
        Channels of the ResNet's first stage, 64 in the original; all others are multiples of it.

    Raises
    ------
    OptionError
        `width` is below 1.
    """

    KIND: ClassVar[str] = "bisenet"

    width: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) or self.width < 1:
            raise OptionError(f"A BiSeNet needs a width of at least 1, not {self.width!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Give the record as plain JSON types."""
        return {"kind": self.KIND, **asdict(self)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> BiSeNetArchitecture:
        """Read the record back.

        Raises
        ------
        OptionError
            `width` is missing or wrong, or another field is there.
        """
        if set(record) - {"kind"} != {"width"}:
            raise OptionError(f"A BiSeNet's record holds width and nothing else, not {sorted(record)}.")
        return cls(record["width"])


class ResNet18(nn.Module):
    """The trunk of ResNet-18, without its classifier."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn_relu(in_channels, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(widths[n], widths[n + 1], 2 if n else 1), BasicBlock(widths[n + 1], widths[n + 1]))
            for n in range(4)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the maps at 1/4, 1/8, 1/16 and 1/32 of (B, C, H, W)."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class BiSeNet(nn.Module):
    """The network; scores are given at an eighth of the size and enlarged bilinearly."""

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
        start(self)

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores."""
        last = self.classify[-1]
        assert isinstance(last, nn.Conv2d)
        return last

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, C, H, W) of any size as (B, K, H, W); w is the architecture's width."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)
        _, _, at16, at32 = self.context(x)  # (B, 4w, H/16, W/16), (B, 8w, H/32, W/32)
        # The attention first: it tells in plain words when a batch is too small to be normalised.
        coarse = self.attend32(at32) + self.whole(at32.mean((2, 3), keepdim=True))  # (B, 2w, H/32, W/32)
        coarse = self.refine32(upsample(coarse, 2))  # (B, 2w, H/16, W/16)
        context = self.refine16(upsample(self.attend16(at16) + coarse, 2))  # (B, 2w, H/8, W/8)
        fused = self.fuse([self.detail(x), context])  # (B, 4w, H/8, W/8)
        logits: Tensor = upsample(self.classify(fused), 8)  # (B, K, H, W)
        return logits[:, :, :height, :width]
