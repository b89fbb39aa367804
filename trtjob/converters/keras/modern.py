"""Descriptions of Keras 2 as today's Keras has them: most files that exist are of TensorFlow 1, or of 2.0 to 2.15."""

import re
from collections.abc import Callable, Collection
from typing import Any

from trtjob.converters.keras.calls import modern_calls

_SHAPE, _OLD_SHAPE = "batch_shape", "batch_input_shape"
_OLD_PACKAGE = re.compile(r"^tf_keras\b")
# Where TensorFlow up to 2.15 had what lies elsewhere today.
_ENGINE = re.compile(r"^keras(\.src)?\.engine\.")
_MOVED = {
    "functional": "keras.src.models.functional",
    "input_layer": "keras.layers",
    "sequential": "keras",
    "training": "keras.src.models.functional",
}
_EXPERIMENTAL = "keras.layers.experimental"
# What layers had that made no difference to what they answer, unless it was set, or what is worked out anew.
_GONE = frozenset(
    {
        _OLD_SHAPE,
        "adjustment",
        "fused",
        "implementation",
        "input_dim",
        "input_length",
        "key_shape",
        "query_shape",
        "rng_type",
        "softmax_robust_masking",
        "value_shape",
        "virtual_batch_size",
    }
)
_ONE_KERNEL = frozenset({"kernel_initializer", "kernel_regularizer", "kernel_constraint"})
_NORMALIZATIONS = ("BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization")
# Classes that are called otherwise today.
RENAMED = {
    **dict.fromkeys(_NORMALIZATIONS, "BatchNormalization"),
    "ThresholdedReLU": "ReLU",
}
# Of Keras 2 it is another function than of Keras 3, and known as this one while a model is built.
_HARD_SIGMOID, OLD_HARD_SIGMOID = "hard_sigmoid", "hard_sigmoid_of_keras_2"
POLICIES = frozenset({"Policy", "PolicyV1", "DTypePolicy"})  # of numbers: a name, and nothing else
_MIXED = "mixed_"
_RENORMALISED = frozenset({"renorm", "renorm_clipping", "renorm_momentum"})
_ONLY_IF_SET = frozenset({"sparse", "ragged", "optional", "time_major"})


def moved(module: Any) -> Any:
    """Return where a class lies today."""
    if not isinstance(module, str):
        return module
    module = _OLD_PACKAGE.sub("keras", module)
    if _ENGINE.match(module):
        return _MOVED.get(module.rpartition(".")[2], module)
    return "keras.layers" if module.startswith(_EXPERIMENTAL) else module


def modern_config(kind: str, config: dict[str, Any], *, is_old: bool) -> dict[str, Any]:
    """Return a layer's settings as today's Keras takes them. is_old: Keras 2 wrote them.

    >>> modern_config("BatchNormalization", {"name": "norm", "axis": [3], "fused": True}, is_old=True)
    {'name': 'norm', 'axis': 3}
    """
    if "dtype" in config:
        config = config | {"dtype": _dtype(config["dtype"])}
    if is_old and _function_name(config.get("activation")) == _HARD_SIGMOID:
        config = config | {"activation": _function(OLD_HARD_SIGMOID)}
    if kind == "InputLayer" and _OLD_SHAPE in config:
        config = config | {_SHAPE: config[_OLD_SHAPE]}
    return _KINDS.get(kind, _as_it_is)(_without(config, _GONE))


def _as_it_is(config: dict[str, Any]) -> dict[str, Any]:
    return config


def _input_layer(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _ONLY_IF_SET or value}


def _sequential(config: dict[str, Any]) -> dict[str, Any]:
    return config | {"layers": _with_input(config.get("layers"))}


def _batch_normalization(config: dict[str, Any]) -> dict[str, Any]:
    if isinstance(axis := config.get("axis"), list) and len(axis) == 1:
        config = config | {"axis": axis[0]}
    return config if config.get("renorm") else _without(config, _RENORMALISED)


def _thresholded_relu(config: dict[str, Any]) -> dict[str, Any]:
    return _without(config, {"theta"}) | {"threshold": config["theta"]}


def _one_group(config: dict[str, Any]) -> dict[str, Any]:
    """Of kinds that can have no more today."""
    return config if config.get("groups", 1) != 1 else _without(config, {"groups"})


def _separable(config: dict[str, Any]) -> dict[str, Any]:
    """Each of its two kernels has its own."""
    return _one_group(_without(config, _ONE_KERNEL))


def _without(config: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


_KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    **{name: _batch_normalization for name in ("BatchNormalization", *_NORMALIZATIONS)},
    "Conv2DTranspose": _one_group,
    "DepthwiseConv2D": _one_group,
    "Functional": modern_calls,
    "InputLayer": _input_layer,
    "Model": modern_calls,
    "SeparableConv2D": _separable,
    "Sequential": _sequential,
    "ThresholdedReLU": _thresholded_relu,
}


def _function_name(function: Any) -> Any:
    return function.get("config") if isinstance(function, dict) else function


def _function(name: str) -> dict[str, Any]:
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}


def _dtype(dtype: Any) -> Any:
    """Return what a layer computes in; float32 where half was there for the speed of its training."""
    is_policy = (
        isinstance(dtype, dict) and dtype.get("class_name") in POLICIES and isinstance(dtype.get("config"), dict)
    )
    name = dtype["config"].get("name") if is_policy else dtype
    return "float32" if isinstance(name, str) and name.startswith(_MIXED) else name


def _with_input(layers: Any) -> Any:
    """Return a row of layers that begins with its input, where the first one alone said how large that is."""
    if not isinstance(layers, list) or not layers or not isinstance(first := layers[0], dict):
        return layers
    if first.get("class_name") == "InputLayer" or (shape := _input_shape(first)) is None:
        return layers
    return [{"class_name": "InputLayer", "config": {_SHAPE: shape, "name": "input"}}, *layers]


def _input_shape(layer: dict[str, Any]) -> Any:
    """Return what a layer, or a model, says of its input's shape; None where that is nothing."""
    config = layer.get("config")
    if not isinstance(config, dict):
        return None
    if isinstance(layers := config.get("layers"), list) and layers and isinstance(layers[0], dict):
        return _input_shape(layers[0])
    return config.get(_OLD_SHAPE, config.get(_SHAPE))
