"""Networks of segmentation-models-pytorch, to compare GGMNet with: the extra `gravmap[peers]`.

A name is `smp:ARCH:ENCODER`, such as `smp:unet:resnet34`, `smp:segformer:mit_b0`, `smp:fpn:tu-hrnet_w32`. Weights are
random as in all networks here; ImageNet weights would be another comparison, and need a download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from torch import Tensor, nn

from gravmap.errors import OptionError
from gravmap.network.ggmnet import crop, pad_to_multiple

# Output stride of the deepest encoders; inputs of encoders with a smaller stride are padded more than needed. PAN
# halves the map three more times after an encoder with stride 16.
LEAST_MULTIPLE = 32
PAN_MULTIPLE = 128


@dataclass(frozen=True)
class SmpArchitecture:
    """Architecture of a network of segmentation-models-pytorch.

    Parameters
    ----------
    arch : str
        Such as ``unet``, ``fpn``, ``segformer``; in lower case.
    encoder : str
        Such as ``resnet34``, ``mit_b0``, or a timm model with the prefix ``tu-``.
    """

    KIND: ClassVar[str] = "smp"

    arch: str
    encoder: str

    @classmethod
    def named(cls, name: str) -> SmpArchitecture:
        """Parse the name ``smp:ARCH:ENCODER``.

        Raises
        ------
        OptionError
            The name does not have three parts, the extra is not installed, or the library has no such network.
        """
        parts = name.split(":")
        if len(parts) != 3 or not all(parts):
            raise OptionError(
                f"{name!r} is not the name of a network.", "Write smp:ARCH:ENCODER, such as smp:unet:resnet34."
            )
        made = cls(parts[1].lower(), parts[2])
        _check(made, _library())
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as a JSON-able record."""
        return {"kind": self.KIND, "arch": self.arch, "encoder": self.encoder}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SmpArchitecture:
        """Read the record that :meth:`to_dict` returns.

        Raises
        ------
        OptionError
            `arch` or `encoder` is missing or not a string, or there is another field.
        """
        if set(record) - {"kind"} != {"arch", "encoder"} or not all(isinstance(part, str) for part in record.values()):
            raise OptionError(f"The record of an smp network has the strings arch and encoder, not {dict(record)}.")
        return cls(record["arch"], record["encoder"])


class SmpNetwork(nn.Module):
    """A network of segmentation-models-pytorch, for images of any size.

    Raises
    ------
    OptionError
        The extra is not installed, the library has no such network, or encoder and architecture are incompatible.
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
                **({"dynamic_img_size": True} if architecture.arch == "dpt" else {}),  # otherwise for one size only
            )
        except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise OptionError(
                f"smp:{architecture.arch}:{architecture.encoder} cannot be built: {str(error).splitlines()[0]}",
                "Not every encoder works with every architecture; resnet34 works with most.",
            ) from error
        least = PAN_MULTIPLE if architecture.arch == "pan" else LEAST_MULTIPLE
        self.multiple = max(least, int(getattr(self.network.encoder, "output_stride", least)))

    @property
    def classifier(self) -> nn.Conv2d:
        """The layer that computes the class scores: the last convolution of the library's `segmentation_head`."""
        *_, last = (layer for layer in self.network.segmentation_head.modules() if isinstance(layer, nn.Conv2d))
        return last

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) of any size to logits (B, K, H, W)."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)  # (B, C, H, W), H and W now multiples of the encoder's stride
        logits: Tensor = self.network(x)  # (B, K, H, W)
        return crop(logits, height, width)


def _library() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise OptionError(
            f"Networks named smp:ARCH:ENCODER come from segmentation-models-pytorch, which is not installed ({error}).",
            'Install it: pip install "gravmap[peers]".',
        ) from None
    return segmentation_models_pytorch


def _check(architecture: SmpArchitecture, library: Any) -> None:
    """Refuse names that the library does not have, and suggest similar ones."""
    _known("architecture", architecture.arch, list(library.MODEL_ARCHITECTURES_MAPPING))
    encoder = architecture.encoder
    if encoder.startswith("tu-"):
        import timm

        # The part after a dot is the tag of pre-trained weights; the model is the part before it.
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
