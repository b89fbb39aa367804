"""A Darknet network written as it is described, with random weights whose answers depend on the image.

Weights of a seed, scaled so that a layer's outputs vary as much as its inputs did (He et al., "Delving Deep into
Rectifiers", 2015, section 2.2), are not enough in a deep network: what all channels have in common grows from layer to
layer, until every image gives the same answer. So each filter's weights lose a part of their mean, and take less of it
on; were it all of it, rounding errors would grow from layer to layer as they do in no trained network.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The file's header: version 0.2.5, and no image seen.
HEADER = np.array([0, 2, 5, 0, 0], "<i4").tobytes()

LOST = 0.25  # of a filter's mean

_GRID = np.linspace(-8, 8, 4001)
_DENSITY = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()
_ACTIVATIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "leaky": lambda x: np.maximum(x, 0.1 * x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}
_PIXEL_MEAN, _PIXEL_DEVIATION = 0.45, 0.25
# Logits of a head, mean and deviation: places within a cell, sides beside the anchor's, objectness, classes.
_PLACE, _SIDE, _OBJECT, _CLASS = (0.0, 1.0), (0.0, 0.3), (-4.5, 1.5), (-4.5, 1.3)


class Cfg:
    """Sections and their weights, in order. channels: of each layer's output; `at`: the number of the last layer."""

    def __init__(self, size: int, *, activation: str = "leaky", seed: int = 4) -> None:
        self.text = f"[net]\nwidth={size}\nheight={size}\nchannels=3\n"
        self.channels: list[int] = []
        self._activation = activation
        self._parts: list[NDArray[np.float32]] = []
        self._rng = np.random.default_rng(seed)

    @property
    def at(self) -> int:
        return len(self.channels) - 1

    def section(self, kind: str, channels: int, **options: object) -> int:
        """Append a layer; return its number."""
        self.text += f"\n[{kind}]\n" + "".join(f"{option}={value}\n" for option, value in options.items())
        self.channels.append(channels)
        return self.at

    def activate(self, activation: str) -> None:
        """Use another activation from the next layer on."""
        self._activation = activation

    def conv(self, filters: int, size: int = 1, stride: int = 1, *, scale: float = 1.0) -> int:
        """Append a convolution with batch normalisation. scale: of its outputs before the activation."""
        weights = self._weights(filters, size)
        # What the network's input has in common stays: three channels cannot lose it and tell anything.
        means = weights.sum(1) * _PIXEL_MEAN if not self.channels else np.zeros(filters, np.float32)
        biases = self._rng.normal(0, 0.2, filters)
        ones = np.ones(filters)
        for part in (biases, scale * ones, means, ones, weights):
            self._parts.append(np.asarray(part, np.float32))
        return self.section(
            "convolutional",
            filters,
            batch_normalize=1,
            filters=filters,
            size=size,
            stride=stride,
            pad=1,
            activation=self._activation,
        )

    def _weights(self, filters: int, size: int) -> NDArray[np.float32]:
        before = self.channels[-1] if self.channels else 3
        inputs = before * size * size
        weights = self._rng.standard_normal((filters, inputs), np.float32)
        if self.channels:
            weights -= LOST * weights.mean(1, keepdims=True)
            variance = variance_after(self._activation)
        else:
            variance = _PIXEL_DEVIATION**2
        return np.asarray(weights / math.sqrt(inputs * variance), np.float32)

    def route(self, *layers: int) -> int:
        """Append the outputs of layers, by number, put together."""
        return self.section("route", sum(self.channels[layer] for layer in layers), layers=",".join(map(str, layers)))

    def half(self) -> int:
        """Append the second half of the last layer's channels."""
        return self.section("route", self.channels[-1] // 2, layers=-1, groups=2, group_id=1)

    def shortcut(self, layer: int) -> int:
        """Append the sum of the last layer and an earlier one."""
        return self.section("shortcut", self.channels[-1], **{"from": layer}, activation="linear")

    def pool(self, size: int, stride: int) -> int:
        return self.section("maxpool", self.channels[-1], size=size, stride=stride)

    def upsample(self) -> int:
        return self.section("upsample", self.channels[-1], stride=2)

    def head(self, mask: tuple[int, ...], anchors: str, classes: int, *, gain: float = 1.0, **options: object) -> int:
        """Append a head. gain: divides the deviation that the trunk's outputs have grown to."""
        rows = [_PLACE] * 2 + [_SIDE] * 2 + [_OBJECT] + [_CLASS] * classes
        logits = np.array(rows * len(mask), np.float32)
        filters = len(logits)
        weights = self._weights(filters, 1) * logits[:, 1:] / gain
        self._parts += [logits[:, 0], weights]
        self.section("convolutional", filters, filters=filters, size=1, stride=1, pad=1, activation="linear")
        return self.section(
            "yolo",
            filters,
            mask=",".join(map(str, mask)),
            anchors=anchors,
            classes=classes,
            num=len(anchors.split(",")) // 2,
            **options,
        )

    def write(self, folder: Path, name: str, classes: int) -> Path:
        """Write `name.cfg`, `.names` and `.weights`; return the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.cfg").write_text(self.text)
        (folder / f"{name}.names").write_text("".join(f"class {number}\n" for number in range(classes)))
        weights = folder / f"{name}.weights"
        with weights.open("wb") as file:
            file.write(HEADER)
            for part in self._parts:
                file.write(np.ascontiguousarray(part, "<f4").tobytes())
        return weights


def variance_after(activation: str) -> float:
    """Return the variance of standard normal values behind an activation, with what filters keep of the mean in it."""
    values = _ACTIVATIONS[activation](_GRID)
    mean = float((values * _DENSITY).sum())
    return float((values**2 * _DENSITY).sum()) - (1 - (1 - LOST) ** 2) * mean**2
