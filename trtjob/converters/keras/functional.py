"""Walk a Keras model, functional or sequential, models inside it included, and translate it layer by layer."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trtjob.converters.keras.activations import activation_name
from trtjob.converters.keras.layers import LAYERS, OTHERS, WITH_KERNEL
from trtjob.converters.keras.network import Network, Translate, UntranslatableError, Value

Place = tuple[str, int, int]  # of a tensor: whose it is, of which of its calls, and which of its outputs


@dataclass(frozen=True, slots=True)
class _Step:
    """One call of a layer: what it reads, and what it makes."""

    layer: Any
    inputs: tuple[Place, ...]
    output: Place


def translate(net: Network, model: Any, image: Value) -> Value:
    """Append a model's nodes and return its output. Raises UntranslatableError, which names the layer."""
    values = {_input_of(model): image}
    steps, last = _steps(model)
    net.norms.update(_norms_taken_in(steps, last))
    while steps:
        ready = [step for step in steps if all(place in values for place in step.inputs)]
        if not ready:
            raise UntranslatableError("the layers of the model do not follow from its input")
        for step in ready:
            values[step.output] = _translated(net, step.layer, [values[place] for place in step.inputs])
        steps = [step for step in steps if step.output not in values]
    return values[last]


def layers_of(model: Any) -> Iterator[Any]:
    """Yield the layers and operators of a model in their order, those of models inside it for the model itself."""
    for layer in _operations(model):
        if _is_model(layer):
            yield from layers_of(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def _is_model(layer: Any) -> bool:
    return type(layer).__name__ in {"Functional", "Sequential"}


def _operations(model: Any) -> list[Any]:
    return list(model.layers if type(model).__name__ == "Sequential" else model.operations)


def _translated(net: Network, layer: Any, inputs: list[Value]) -> Value:
    if _is_model(layer):
        return translate(net, layer, inputs[0])
    kind = type(layer)
    net.graph.scope = f"{net.count:03d}_{kind.__name__.lower()}"
    net.count += 1
    try:
        return _translation(kind)(net, layer, *inputs)
    except UntranslatableError as err:
        raise UntranslatableError(f"layer '{layer.name}' ({kind.__name__}): {err}") from err


def _translation(kind: type) -> Translate:
    table: Translate | None = OTHERS.get((kind.__module__, kind.__name__))
    if kind.__module__.startswith("keras.src.layers."):
        table = LAYERS.get(kind.__name__)
    if table is None:
        raise UntranslatableError("there is no translation of this kind")
    return table


def _input_of(model: Any) -> Place:
    if type(model).__name__ == "Sequential":
        return "", 0, 0
    places = list(_places(model.get_config()["input_layers"]))
    if len(places) != 1:
        raise UntranslatableError(f"the model '{model.name}' has {len(places)} inputs")
    return places[0]


def _steps(model: Any) -> tuple[list[_Step], Place]:
    """Return the calls of a model's layers and the place of its output."""
    if type(model).__name__ == "Sequential":
        return _steps_in_a_row(model.layers)
    config = model.get_config()
    operations = {operation.name: operation for operation in model.operations}
    steps = [
        _Step(operations[layer["name"]], tuple(_tensors_read(node, layer["name"])), (layer["name"], number, 0))
        for layer in config["layers"]
        for number, node in enumerate(layer["inbound_nodes"])
    ]
    places = list(_places(config["output_layers"]))
    if len(places) != 1:
        raise UntranslatableError(f"the model '{model.name}' has {len(places)} outputs")
    return steps, places[0]


def _steps_in_a_row(layers: list[Any]) -> tuple[list[_Step], Place]:
    places: list[Place] = [("", 0, 0), *((str(number), 0, 0) for number in range(len(layers)))]
    steps = [_Step(layer, (places[number],), places[number + 1]) for number, layer in enumerate(layers)]
    return steps, places[-1]


def _places(spec: Any) -> Iterator[Place]:
    """Yield the places in what a config says of inputs or outputs: one, or a list or dict of them."""
    match spec:
        case [str(name), int(call), int(output)]:
            yield name, call, output
        case list() | tuple():
            for part in spec:
                yield from _places(part)
        case dict():
            for part in spec.values():
                yield from _places(part)


def _tensors_read(node: dict[str, Any], name: str) -> Iterator[Place]:
    """Yield the tensors that a call is given. A number beside them, or one given by name, has no translation."""
    if any(_is_tensor(value) for value in node["kwargs"].values()):
        raise UntranslatableError(f"layer '{name}' is given a tensor by name")
    for argument in node["args"]:
        for part in argument if isinstance(argument, list | tuple) else [argument]:
            if not _is_tensor(part):
                raise UntranslatableError(f"layer '{name}' is given something that is no tensor")
            yield from _places(list(part["config"]["keras_history"]))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _norms_taken_in(steps: list[_Step], last: Place) -> dict[int, Any]:
    """Return the batch normalisations that alone read a layer with a kernel and no activation, by that layer's id."""
    calls = Counter(id(step.layer) for step in steps)
    readers = Counter(place for step in steps for place in step.inputs)
    readers[last] += 1
    by_output = {step.output: step.layer for step in steps}
    return {
        id(before): step.layer
        for step in steps
        if type(step.layer).__name__ == "BatchNormalization"
        and (before := by_output.get(step.inputs[0])) is not None
        and type(before).__name__ in WITH_KERNEL
        and activation_name(before) == "linear"
        and readers[step.inputs[0]] == calls[id(before)] == calls[id(step.layer)] == 1
        and step.layer.axis in {-1, 3, 1}
    }
