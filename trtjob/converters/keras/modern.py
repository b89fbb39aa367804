"""Descriptions of Keras 2 as today's Keras has them: most files that exist are of TensorFlow 1, or of 2.0 to 2.15."""

from typing import Any

_SHAPE, _OLD_SHAPE = "batch_shape", "batch_input_shape"
# Where TensorFlow 2.13 to 2.15 had what lies elsewhere today.
_MOVED = {
    "keras.src.engine.functional": "keras.src.models.functional",
    "keras.src.engine.sequential": "keras",
    "keras.src.engine.training": "keras.src.models.functional",
    "keras.src.engine.input_layer": "keras.layers",
}
# What layers had that made no difference to what they answer, unless it was set, or what is worked out anew.
_GONE = frozenset(
    {
        _OLD_SHAPE,
        "adjustment",
        "fused",
        "implementation",
        "input_dim",
        "input_length",
        "renorm",
        "renorm_clipping",
        "renorm_momentum",
        "rng_type",
        "virtual_batch_size",
    }
)
POLICIES = frozenset({"Policy", "PolicyV1", "DTypePolicy"})  # of numbers: a name, and nothing else
_MIXED = "mixed_"
_ONLY_IF_SET = frozenset({"sparse", "ragged", "optional", "time_major"})


def moved(module: Any) -> Any:
    """Return where a class lies today."""
    return _MOVED.get(module, module) if isinstance(module, str) else module


def modern_config(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's settings as today's Keras takes them.

    >>> modern_config("BatchNormalization", {"name": "norm", "axis": [3], "fused": True})
    {'name': 'norm', 'axis': 3}
    """
    if "dtype" in config:
        config = config | {"dtype": _dtype(config["dtype"])}
    if kind == "InputLayer":
        fresh = {key: value for key, value in config.items() if key not in _ONLY_IF_SET or value}
        if _OLD_SHAPE in fresh:
            fresh[_SHAPE] = fresh.pop(_OLD_SHAPE)
        return fresh
    if kind == "Sequential":
        return config | {"layers": _with_input(config.get("layers"))}
    fresh = {key: value for key, value in config.items() if key not in _GONE}
    if kind == "BatchNormalization" and isinstance(axis := fresh.get("axis"), list) and len(axis) == 1:
        fresh["axis"] = axis[0]
    if kind == "DepthwiseConv2D" and fresh.get("groups") == 1:
        del fresh["groups"]
    return fresh


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
    config = first.get("config")
    if first.get("class_name") == "InputLayer" or not isinstance(config, dict) or _OLD_SHAPE not in config:
        return layers
    return [{"class_name": "InputLayer", "config": {_SHAPE: config[_OLD_SHAPE], "name": "input"}}, *layers]
