"""The calls in a functional model's description by Keras 2, as today's Keras has them.

A call was the structure of a layer's first argument. Each tensor in it was a list: the layer that makes it, which of
that layer's calls, which output of that, and the other arguments: `["conv2d", 0, 0, {"y": 127.5}]`. Now a call has
`args` and `kwargs` (tf_keras/src/engine/node.py, Node.serialize; keras/src/models/functional.py, serialize_node).
"""

from collections.abc import Callable, Iterator
from typing import Any

from trtjob.converters.keras.functions import FUNCTIONS_OF_TENSORFLOW
from trtjob.converters.keras.op_layers import CONSTANT, OP_LAYER, as_function

_FUNCTIONAL = frozenset({"Functional", "Model"})
_SLICE = frozenset({"start", "stop", "step"})

_Counted = Callable[[str, int], int]  # the number of a layer's call, of the number that Keras 2 gave it


def modern_calls(config: dict[str, Any]) -> dict[str, Any]:
    """Return a functional model's settings with calls as today's Keras has them."""
    layers = [as_function(layer) if layer["class_name"] == OP_LAYER else layer for layer in config["layers"]]
    if not any(isinstance(call, list) for layer in layers for call in layer["inbound_nodes"]):
        return config
    config = config | {"layers": layers}
    counted = _counted(config)
    functional = {layer["name"] for layer in layers if layer["class_name"] in _FUNCTIONAL}

    def end(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: end(inner) for key, inner in part.items()}
        if not _is_place(part):  # a list of one was the one itself
            return end(part[0]) if len(part) == 1 else [end(inner) for inner in part]
        name, call, output = part[:3]
        # Here, and here alone, Keras still counts a model's own making as its first call.
        return [name, counted(name, call) + (name in functional), output]

    fresh = [
        layer | {"inbound_nodes": [_modern_call(call, counted, layer["class_name"]) for call in layer["inbound_nodes"]]}
        for layer in layers
    ]
    return config | {"layers": fresh} | {key: end(config[key]) for key in ("input_layers", "output_layers")}


def _counted(config: dict[str, Any]) -> _Counted:
    """Return how calls are counted: from one where Keras 2 took a model's own making for its first."""
    calls = {layer["name"]: max(1, len(layer["inbound_nodes"])) for layer in config["layers"]}
    nodes = [layer["inbound_nodes"] for layer in config["layers"]]
    from_one = {name for name, call in _places([nodes, config["output_layers"]]) if call >= calls.get(name, call + 1)}
    return lambda name, call: call - (name in from_one)


def _places(part: Any) -> Iterator[tuple[str, int]]:
    if _is_place(part):
        yield part[0], part[1]
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _places(inner)


def _is_place(part: Any) -> bool:
    return isinstance(part, list) and len(part) in {3, 4} and isinstance(part[0], str) and isinstance(part[1], int)


def _modern_call(call: Any, counted: _Counted, kind: str) -> Any:
    if not isinstance(call, list):
        return call
    others: dict[str, Any] = {}

    def argument(part: Any) -> Any:
        if _is_place(part):
            others.update(part[3] if len(part) == 4 else {})
            return _literal(part[2], counted) if part[0] == CONSTANT else _tensor(part, counted)
        if isinstance(part, dict):
            return {key: argument(inner) for key, inner in part.items()}
        return [argument(inner) for inner in part] if isinstance(part, list) else part

    first = argument(call)
    if isinstance(first, list) and len(first) == 1 and kind not in FUNCTIONS_OF_TENSORFLOW:
        first = first[0]
    kwargs = {key: _literal(value, counted) for key, value in others.items() if _says_something(key, value)}
    return {"args": [first], "kwargs": kwargs}


def _says_something(key: str, value: Any) -> bool:
    return value is not None and not (key == "training" and value is False)


def _literal(part: Any, counted: _Counted) -> Any:
    """Return an argument; tensors may be anywhere in it."""
    if _is_place(part) and isinstance(part[2], int):
        return _tensor(part, counted)
    if isinstance(part, list):
        return [_literal(inner, counted) for inner in part]
    if not isinstance(part, dict):
        return part
    if part.keys() == _SLICE:
        return {"class_name": "__slice__", "config": {key: _literal(part[key], counted) for key in sorted(_SLICE)}}
    if part.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    return {key: _literal(inner, counted) for key, inner in part.items()}


def _tensor(place: list[Any], counted: _Counted) -> dict[str, Any]:
    name, call, output = place[:3]
    history = [name, counted(name, call), output]
    return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": history}}
