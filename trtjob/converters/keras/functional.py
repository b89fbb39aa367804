"""Walk a Keras model, functional or sequential, models inside it included, and translate it call by call."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trtjob.converters.keras.activations import activation_name
from trtjob.converters.keras.layers import LAYERS, OTHERS, WITH_KERNEL, WITH_NUMBERS
from trtjob.converters.keras.network import Network, Translate, UntranslatableError, Value

_OF_TRAINING = frozenset({"training", "mask"})  # what a call may say that makes no difference to an answer


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer or an operator. Tensors among its arguments and outputs are Keras's symbolic ones."""

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


def translate(net: Network, model: Any, image: Value) -> Value:
    """Append a model's nodes and return its output. Raises UntranslatableError, which names the layer."""
    if (len(model.inputs), len(model.outputs)) != (1, 1):
        raise UntranslatableError(
            f"the model '{model.name}' has {len(model.inputs)} inputs, {len(model.outputs)} outputs"
        )
    values = {id(model.inputs[0]): image}
    calls = list(calls_of(model))
    net.norms.update(_norms_taken_in(calls, model.outputs[0]))
    for call in calls:
        if len(call.outputs) != 1:
            raise UntranslatableError(f"layer '{call.layer.name}' has {len(call.outputs)} outputs")
        values[id(call.outputs[0])] = _translated(net, call, values)
    return values[id(model.outputs[0])]


def calls_of(model: Any) -> Iterator[Call]:
    """Yield the calls of a model's layers, each after those that make what it reads."""
    # What Keras itself runs through; nothing public has it.
    nodes = getattr(model, "_functional", model)._nodes_by_depth
    for depth in sorted(nodes, reverse=True):
        for node in nodes[depth]:
            if not node.is_input:
                inputs, outputs = tuple(node.input_tensors), tuple(node.outputs)
                yield Call(node.operation, node.arguments.args, node.arguments.kwargs, inputs, outputs)


def layers_of(model: Any) -> Iterator[Any]:
    """Yield the layers and operators of a model in their order, those of models inside it for the model itself."""
    for layer in model.layers if type(model).__name__ == "Sequential" else model.operations:
        if is_model(layer):
            yield from layers_of(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def is_model(layer: Any) -> bool:
    return type(layer).__name__ in {"Functional", "Sequential"}


def _translated(net: Network, call: Call, values: dict[int, Value]) -> Value:
    layer, kind = call.layer, type(call.layer)
    if is_model(layer):
        return translate(net, layer, values[id(call.inputs[0])])
    net.graph.scope = f"{net.count:03d}_{kind.__name__.lower()}"
    net.count += 1
    try:
        args, kwargs = (_with_values(part, values) for part in (list(call.args), call.kwargs))
        translation = _translation(kind)
        if translation not in WITH_NUMBERS:
            args, kwargs = _tensors_alone(args, kwargs), {}
        return translation(net, layer, *args, **kwargs)
    except UntranslatableError as err:
        raise UntranslatableError(f"layer '{layer.name}' ({kind.__name__}): {err}") from err


def _with_values(part: Any, values: dict[int, Value]) -> Any:
    """Return arguments with the graph's values for Keras's tensors."""
    if id(part) in values:
        return values[id(part)]
    if isinstance(part, list | tuple):
        return type(part)(_with_values(inner, values) for inner in part)
    if isinstance(part, dict):
        return {key: _with_values(inner, values) for key, inner in part.items()}
    return part


def _tensors_alone(args: list[Any], kwargs: dict[str, Any]) -> list[Value]:
    """Return a layer's inputs. Raises UntranslatableError where it is given something else, or one by name."""
    if any(value is not None for name, value in kwargs.items() if name not in _OF_TRAINING):
        raise UntranslatableError("it is given something by name")
    flat = [part for arg in args for part in (arg if isinstance(arg, list | tuple) else [arg])]
    if not all(isinstance(part, Value) for part in flat):
        raise UntranslatableError("it is given something that is no tensor")
    return flat


def _translation(kind: type) -> Translate:
    table: Translate | None = OTHERS.get((kind.__module__, kind.__name__))
    if kind.__module__.startswith("keras.src.layers."):
        table = LAYERS.get(kind.__name__)
    if table is None:
        raise UntranslatableError("there is no translation of this kind")
    return table


def _norms_taken_in(calls: list[Call], last: Any) -> dict[int, Any]:
    """Return the batch normalisations that alone read a layer with a kernel and no activation, by that layer's id."""
    times = Counter(id(call.layer) for call in calls)
    readers = Counter(id(tensor) for call in calls for tensor in call.inputs)
    readers[id(last)] += 1
    makers = {id(call.outputs[0]): call.layer for call in calls}
    return {
        id(before): call.layer
        for call in calls
        if type(call.layer).__name__ == "BatchNormalization"
        and (before := makers.get(id(call.inputs[0]))) is not None
        and type(before).__name__ in WITH_KERNEL
        and activation_name(before) == "linear"
        and readers[id(call.inputs[0])] == times[id(before)] == times[id(call.layer)] == 1
        and call.layer.axis in {-1, 3, 1}
    }
