"""Networks of segmentation-models-pytorch, to compare GGMNet with: the extra `gravmap[peers]`.

A name is `smp:ARCH:ENCODER`, such as `smp:unet:resnet34`, `smp:segformer:mit_b0`, `smp:fpn:tu-hrnet_w32`. They start
from random weights like the rest: weights taught on photographs would make another comparison, and are a download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from torch import Tensor, nn

from gravmap.errors import OptionError
from gravmap.network.ggmnet import pad_to_multiple

# At least what the deepest of the encoders divides by; some divide by less and are padded more than they need. PAN
# halves the map three times more below an encoder of 1/16.
LEAST_MULTIPLE = 32
PAN_MULTIPLE = 128


@dataclass(frozen=True)
class SmpArchitecture:
    """A network of segmentation-models-pytorch.

    Parameters
    ----------
    arch : str
        Such as ``unet``, ``fpn``, ``segformer``; in small letters.
    encoder : str
        Such as ``resnet34``, ``mit_b0``, or a timm model with ``tu-`` before its name.
    """

    KIND: ClassVar[str] = "smp"

    arch: str
    encoder: str

    @classmethod
    def named(cls, name: str) -> SmpArchitecture:
        """Take ``smp:ARCH:ENCODER`` apart.

        Raises
        ------
        OptionError
            Those are not three parts, the extra is not installed, or it knows no such network.
        """
        parts = name.split(":")
        if len(parts) != 3 or not all(parts):
            raise OptionError(f"{name!r} names no network.", "Write smp:ARCH:ENCODER, such as smp:unet:resnet34.")
        made = cls(parts[1].lower(), parts[2])
        _check(made, _library())
        return made

    def to_dict(self) -> dict[str, Any]:
        """Give the record as plain JSON types."""
        return {"kind": self.KIND, "arch": self.arch, "encoder": self.encoder}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SmpArchitecture:
        """Read the record back.

        Raises
        ------
        OptionError
            `arch` or `encoder` is missing or no word, or another field is there.
        """
        if set(record) - {"kind"} != {"arch", "encoder"} or not all(isinstance(part, str) for part in record.values()):
            raise OptionError(f"An smp network's record holds the words arch and encoder, not {dict(record)}.")
        return cls(record["arch"], record["encoder"])


class SmpNetwork(nn.Module):
    """A network of the library, for images of any size.

    Raises
    ------
    OptionError
        The extra is not installed, it knows no such network, or the two parts do not go together.
    """

    def __init__(self, architecture: SmpArchitecture, in_channels: int, classes: int) -> None:
        super().__init__()
        library = _library()
        _check(architecture, library)
        self.architecture = architecture
        self.in_channels, self.classes = in_channels, classes
        try:
            self.network: Any = library.create_model(
                architecture.arch,
                encoder_name=architecture.encoder,
                encoder_weights=None,
                in_channels=in_channels,
                classes=classes,
                **({"dynamic_img_size": True} if architecture.arch == "dpt" else {}),  # else one size only
            )
        except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise OptionError(
                f"smp:{architecture.arch}:{architecture.encoder} cannot be built: {str(error).splitlines()[0]}",
                "Not every encoder goes with every architecture; resnet34 goes with most.",
            ) from error
        least = PAN_MULTIPLE if architecture.arch == "pan" else LEAST_MULTIPLE
        self.multiple = max(least, int(getattr(self.network.encoder, "output_stride", least)))

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores: the last convolution of the library's `segmentation_head`."""
        *_, last = (layer for layer in self.network.segmentation_head.modules() if isinstance(layer, nn.Conv2d))
        return last

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, C, H, W) of any size as (B, K, H, W)."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)  # (B, C, H, W), H and W now multiples of the encoder's stride
        logits: Tensor = self.network(x)  # (B, K, H, W)
        return logits[:, :, :height, :width]


def _library() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise OptionError(
            f"Networks named smp:ARCH:ENCODER come from segmentation-models-pytorch, which is not here ({error}).",
            'Install it: pip install "gravmap[peers]".',
        ) from None
    return segmentation_models_pytorch


def _check(architecture: SmpArchitecture, library: Any) -> None:
    """Refuse names the library does not know, and say which are near."""
    _known("architecture", architecture.arch, list(library.MODEL_ARCHITECTURES_MAPPING))
    encoder = architecture.encoder
    if encoder.startswith("tu-"):
        import timm

        # A tag behind a dot names pre-trained weights; the model is what stands before it.
        _known("encoder", encoder, [f"tu-{model}" for model in timm.list_models()])
    else:
        _known("encoder", encoder, library.encoders.get_encoder_names())


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = get_close_matches(name, names, n=4, cutoff=0.5)
        some = ", ".join(sorted(names)[:12]) + (" ..." if len(names) > 12 else "")
        raise OptionError(
            f"segmentation-models-pytorch has no {what} named {name!r}.",
            f"Did you mean {' or '.join(near)}?" if near else f"It has {some}.",
        )
