"""Encoders of a spectrogram as a picture (B, 1, H, W): AlexNet, and a small one for two cores."""

from __future__ import annotations

import logging
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_ser.errors import ConfigError
from train.systems import count_parameters

ALEXNET_SIZE = 224
"""Pixels, high and wide, of the pictures that AlexNet was made for: its last map is then 6 x 6."""
_SMALLEST = 63


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky 2014, one column) up to its second fully connected layer, for pictures of one channel.

    Names of parameters are those of torchvision's AlexNet. It starts from random weights; `load_imagenet` reads others.
    """

    def __init__(self, *, size: int = ALEXNET_SIZE, tap: str = "fc7", units: int = 4096, dropout: float = 0.5) -> None:
        """Build for pictures of `size` pixels squared.

        Args:
            size: Pixels, high and wide.
            tap: `fc7`: the activation after the second fully connected layer; `pool`: the flattened last maps.
            units: Width of both fully connected layers.
            dropout: Before each of them.

        Raises:
            ConfigError: Pictures too small to leave a map.
        """
        super().__init__()
        if size < _SMALLEST:
            raise ConfigError(
                f"image_size is {size}; AlexNet needs {_SMALLEST} or more; or set image_encoder = 'small'"
            )
        # AdaptiveAvgPool is left out: at 224 pixels the map is 6 x 6 already, and it does not export for free sizes.
        self.features = nn.Sequential(
            nn.Conv2d(1, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        flat = 256 * _map_side(size) ** 2
        self.width = units if tap == "fc7" else flat
        self.classifier = nn.Sequential()
        if tap == "fc7":
            self.classifier = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(flat, units), nn.ReLU(),
                nn.Dropout(dropout), nn.Linear(units, units), nn.ReLU(),
            )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, width) of pictures (B, 1, size, size)."""
        return self.classifier(self.features(image).flatten(1))

    def parts(self) -> dict[str, int]:
        """Return parameters of the convolutions and, where there are any, of each fully connected layer."""
        dense = [layer for layer in self.classifier if isinstance(layer, nn.Linear)]
        sizes = {f"alexnet_fc{place}": count_parameters(layer) for place, layer in enumerate(dense, start=6)}
        return {"alexnet_conv": count_parameters(self.features), **sizes}


class SmallImageEncoder(nn.Module):
    """Five depthwise-separable convolutions of stride 2 and a mean over the map: a stand-in for AlexNet."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        """Build with these widths; the last is the width of the result."""
        super().__init__()
        self.width = channels[-1]
        # Over one channel a depthwise convolution with several filters a channel is a plain one.
        self.features = nn.Sequential(*_block(nn.Conv2d(1, channels[0], 3, stride=2, padding=1, bias=False)))
        for inputs, outputs in pairwise(channels):
            self.features.append(nn.Conv2d(inputs, inputs, 3, stride=2, padding=1, groups=inputs, bias=False))
            self.features.extend(_block(nn.Conv2d(inputs, outputs, 1, bias=False)))

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, width) of pictures (B, 1, size, size)."""
        return self.features(image).mean(dim=(2, 3))

    def parts(self) -> dict[str, int]:
        """Return all parameters, as one part."""
        return {"small_image_encoder": count_parameters(self)}


def load_imagenet(encoder: AlexNet, path: Path) -> None:
    """Put ImageNet weights, as torchvision names them, into an AlexNet; the first layer's are summed over colours.

    Args:
        encoder: Changed in place.
        path: A safetensors file; tensors that the encoder has no use for are left aside.

    Raises:
        ConfigError: No such file, not safetensors, or a tensor that is missing or of another shape.
    """
    if not path.is_file():
        raise ConfigError(
            f"no AlexNet weights at {path}; need a safetensors file; leave image_weights out for random ones"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as problem:
        raise ConfigError(
            f"{path} is not safetensors ({problem}); convert torchvision's AlexNet with safetensors"
        ) from None
    if "features.0.weight" in tensors and tensors["features.0.weight"].dim() == 4:
        tensors["features.0.weight"] = tensors["features.0.weight"].sum(dim=1, keepdim=True)
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise ConfigError(
            f"{path} lacks {', '.join(missing)}; need the state of torchvision's AlexNet under its own names"
        )
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            raise ConfigError(
                f"{name} in {path} has shape {tuple(tensors[name].shape)}; need {tuple(value.shape)}; "
                f"use image_size = {ALEXNET_SIZE} and image_units = 4096 with ImageNet weights"
            )
    encoder.load_state_dict({name: tensors[name].to(torch.float32) for name in wanted})


@lru_cache(maxsize=1)
def say_random_alexnet() -> None:
    """Log, once a process, that AlexNet has no ImageNet weights, which the published system starts from."""
    logging.getLogger(__name__).warning(
        "AlexNet starts from random weights; the published system starts from ImageNet's: set image_weights to a file"
    )


def _block(conv: nn.Conv2d) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]


def _map_side(size: int) -> int:
    side = (size + 4 - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
