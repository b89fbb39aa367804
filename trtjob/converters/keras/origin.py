"""Where a network comes from, as its layers tell, and so what it expects of a pixel."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from trtjob.converters.keras.functional import Call, calls_of, is_model, layers_of
from trtjob.converters.keras.functions import short_name

# Names of layers that keras.applications gives to a family of networks, all of which are there, and the mode of its
# preprocess_input (keras/src/applications: the module of each family). The first that fits counts.
_FAMILIES: tuple[tuple[str, frozenset[str], str], ...] = (
    ("Xception", frozenset({"block1_conv1_bn", "block14_sepconv2"}), "tf"),
    ("VGG", frozenset({"block1_conv1", "block1_pool", "block5_conv3"}), "caffe"),
    ("DenseNet", frozenset({"conv1_conv", "conv2_block1_concat", "pool4_conv"}), "torch"),
    ("ResNetV2", frozenset({"conv1_conv", "conv2_block1_preact_bn", "post_bn"}), "tf"),
    ("ResNet", frozenset({"conv1_conv", "conv1_bn", "conv2_block1_out"}), "caffe"),
    ("MobileNetV2", frozenset({"Conv1", "expanded_conv_depthwise", "Conv_1"}), "tf"),
    ("MobileNet", frozenset({"conv1", "conv_dw_1", "conv_pw_13"}), "tf"),
    ("InceptionResNetV2", frozenset({"mixed_5b", "mixed_6a", "conv_7b"}), "tf"),
    ("InceptionV3", frozenset({"mixed0", "mixed10"}), "tf"),
    ("NASNet", frozenset({"stem_conv1", "stem_bn1"}), "tf"),
)
_PREPARES_ITSELF = frozenset({"Rescaling", "Normalization"})
_LEAVES_PIXELS = frozenset(
    {
        "ActivityRegularization",
        "Cast",
        "CenterCrop",
        "Dropout",
        "GaussianNoise",
        "GetItem",
        "Identity",
        "Resizing",
        "Stack",
    }
)
_LEAVES_PIXELS |= {"__operators__.getitem", "cast", "image.resize", "reverse", "stack"}
# What a number does to pixels, by operator, and whether its size tells that they are of 0 to 255, not of 0 to 1.
_DIVISION = frozenset({"TrueDivide", "Divide", "truediv", "divide"})
_SHIFT = frozenset({"Add", "Subtract", "__operators__.add", "add", "bias_add", "subtract"})
_PRODUCT = frozenset({"Multiply", "multiply"})
_LARGE = 2


def mode_of(model: Any) -> tuple[str, str] | None:
    """Return what a model expects of a pixel, as a name of `--preprocess`, and why; None where it does not show."""
    if model.inputs[0].dtype == "uint8":
        return "none", "its input is of bytes"
    first = _first_on_pixels(model)
    kind = "" if first is None else _kind(first)
    if kind in _PREPARES_ITSELF:
        return "none", f"it begins with a layer {kind}"
    if first is not None and _is_of_bytes(first):
        return "none", f"it begins with '{first.layer.name}', a number for pixels of 0 to 255"
    if kind not in {"Conv2D", "ZeroPadding2D"}:  # some operation on pixels comes first
        return None
    names = {layer.name for layer in layers_of(model)}
    for family, marks, mode in _FAMILIES:
        if marks <= names:
            return mode, f"its layers are those of keras.applications' {family}"
    return None


def _first_on_pixels(model: Any) -> Call | None:
    for call in calls_of(model):
        found = _first_on_pixels(call.layer) if is_model(call.layer) else call
        if found is not None and not _leaves_pixels(_kind(found)):
            return found
    return None


def _kind(call: Call) -> str:
    """Return the name of a layer's class, or of the function that it calls."""
    function = getattr(call.layer, "function", None)
    return short_name(function) if isinstance(function, str) else type(call.layer).__name__


def _is_of_bytes(call: Call) -> bool:
    kind, sizes = _kind(call), np.abs(_numbers(call))
    if not sizes.size:
        return False
    largest = float(sizes.max())
    return largest > _LARGE if kind in _DIVISION | _SHIFT else kind in _PRODUCT and 0 < largest < 1 / _LARGE


def _numbers(call: Call) -> Any:
    """Return the numbers that an operator is given beside tensors."""
    return np.array(list(_flat([*call.args, *call.kwargs.values()])), np.float64)


def _flat(part: Any) -> Iterator[float]:
    if hasattr(part, "numpy"):
        part = part.numpy().ravel().tolist()
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _flat(inner)
    elif isinstance(part, int | float):
        yield part


def _leaves_pixels(kind: str) -> bool:
    return kind in _LEAVES_PIXELS or kind.startswith("Random")
