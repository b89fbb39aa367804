"""How coarse the layers of a network are, before it is built: what sizes of input it can take, and whose it is."""

from fractions import Fraction

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.geometry import strides
from trtjob.errors import ConversionError

_STRIDED = frozenset({"convolutional", "maxpool", "local_avgpool", "reorg", "reorg3d"})
_FIXED = frozenset({"connected", "local", "detection"})
_ON_A_GRID = frozenset({"yolo", "Gaussian_yolo", "region"})

_Strides = tuple[Fraction, Fraction]  # pixels of the input for one of a layer's, vertically and horizontally
_OF_INPUT = Fraction(1), Fraction(1)


def check_size(sections: list[Section], hw: tuple[int, int]) -> None:
    """Raise unless a network, `[net]` left out, can take images of another size than its weights were trained with.

    Layers with a weight for each place cannot (DarknetParseError), and what a head's grid is laid over has to be a
    multiple of the largest stride (ConversionError), else layers that are brought together differ by a pixel.
    """
    _check_free(sections)
    if not any(section.kind in _ON_A_GRID for section in sections):
        return
    for name, pixels, stride in zip(("height", "width"), hw, total_strides(sections), strict=True):
        if pixels % stride:
            below = pixels // stride * stride
            nearest = f"{below} or {below + stride}" if below else str(stride)
            raise ConversionError(
                f"size: a {name} of {pixels} is no multiple of {stride}, the network's total stride. Try {nearest}"
            )


def total_strides(sections: list[Section]) -> tuple[int, int]:
    """Return how many pixels of the input, vertically and horizontally, are one of the coarsest layer: 1 or more."""
    layers = [_OF_INPUT, *_strides_of_layers(sections)]
    return int(max(y for y, _ in layers)), int(max(x for _, x in layers))


def has_resampled_shortcut(sections: list[Section]) -> bool:
    """Tell whether a [shortcut] adds a layer of another size, as the ResNets do: only pjreddie's Darknet can."""
    layers = _strides_of_layers(sections)
    for index, section in enumerate(sections[1:], start=1):
        if section.kind == "shortcut":
            numbers = (number + index if number < 0 else number for number in section.integers("from"))
            if any(0 <= number < index and layers[number] != layers[index - 1] for number in numbers):
                return True
    return False


def _strides_of_layers(sections: list[Section]) -> list[_Strides]:
    layers: list[_Strides] = []
    for section in sections:
        before = layers[-1] if layers else _OF_INPUT
        layers.append(_strides(section, before, layers))
    return layers


def _strides(section: Section, before: _Strides, layers: list[_Strides]) -> _Strides:
    if section.kind == "route":
        numbers = section.integers("layers")
        return layers[numbers[0]] if numbers and -len(layers) <= numbers[0] < len(layers) else before
    if section.kind == "upsample":
        stride = section.integer("stride", 2, least=1)
        return before[0] / stride, before[1] / stride
    if section.kind in _STRIDED and not section.integer("reverse", 0):
        y, x = strides(section)
        return before[0] * y, before[1] * x
    return before


def _check_free(sections: list[Section]) -> None:
    for section in sections:
        if section.kind == "avgpool":  # from here on, nothing depends on the size
            return
        if section.kind in _FIXED:
            raise section.error("has weights for each place of its input, so the size cannot be changed")
