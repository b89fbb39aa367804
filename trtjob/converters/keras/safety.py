"""Find in a model's description what would run code when it is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtjob.converters.keras.functions import FUNCTIONS_OF_TENSORFLOW, is_allowed
from trtjob.converters.keras.modern import POLICIES, RENAMED, modern_config, moved
from trtjob.converters.keras.op_layers import OP_LAYER, is_computation, operation_of
from trtjob.converters.texts import shown
from trtjob.errors import ConversionError

# Where Keras's own classes are, of those that a network is made of.
_MODULES = frozenset(
    {
        "builtins",
        "keras",
        "keras.activations",
        "keras.constraints",
        "keras.dtype_policies",
        "keras.initializers",
        "keras.layers",
        "keras.quantizers",
        "keras.regularizers",
    }
)
_BELOW = ("keras.src.models.", "keras.src.ops.", "keras.src.applications.", "keras.src.layers.")
_MODELS = {
    "Functional": "keras.src.models.functional",
    "Model": "keras.src.models.functional",
    "Sequential": "keras",
}
_CODE = {"Lambda": "a Lambda layer", "TorchModuleWrapper": "a PyTorch module", "JaxLayer": "a function of JAX"}
_CODE |= {"TFSMLayer": "a layer that loads another file", "__lambda__": "a Python function"}
FUNCTION_OF_TENSORFLOW = "TensorFlowFunction"  # as which `operation` is known while a model is built
_OUR_MODULE = "trtjob"
_TRAINING = "compile_config"  # optimizer and loss: never loaded
_BUILDING = "build_config"  # shapes, which the calls of a layer tell as well
_VALUES = frozenset({"__keras_tensor__", "__ellipsis__", "__slice__", "__numpy__", "__tensor__", "__bytes__"})


@dataclass(frozen=True, slots=True)
class Known:
    """The names of what Keras has itself: older files name no module.

    layers: in keras.layers; operations: such as the + between tensors, with the module of each.
    """

    layers: frozenset[str]
    operations: Mapping[str, str]


def check_safe(config: dict[str, Any], path: Path, known: Known) -> None:
    """Raise ConversionError for Lambda layers and for classes of others, with the layer that brings them."""
    pending: list[tuple[Any, str]] = [(config, "")]
    while pending:
        part, place = pending.pop()
        if isinstance(part, list):
            pending.extend((inner, place) for inner in part)
        if not isinstance(part, dict):
            continue
        if "class_name" in part and "config" in part:
            if what := _danger(part, known):
                raise ConversionError(
                    f"'{path}': {_where(part, place)} {what}, code that would run when it is loaded. Save the model "
                    "without it, or pass --allow-unsafe if you trust whoever made the file"
                )
            place = _named(part) or place
        pending.extend((inner, place) for key, inner in part.items() if key != _TRAINING)


def with_modules(part: Any, known: Known, *, is_old: bool) -> Any:
    """Return a description as today's Keras has it, and without what only training needs. is_old: Keras 2 wrote it."""
    if isinstance(part, list):
        return [with_modules(inner, known, is_old=is_old) for inner in part]
    if not isinstance(part, dict):
        return part
    kind = part.get("class_name")
    if isinstance(kind, str) and isinstance(config := part.get("config"), dict):
        part = part | {"config": modern_config(kind, config, is_old=is_old)} | _home(kind, part, known)
    return {
        key: "zeros" if key.endswith("_initializer") else with_modules(value, known, is_old=is_old)
        for key, value in part.items()
        if key != _TRAINING and not (is_old and key == _BUILDING)
    }


def _home(kind: str, part: dict[str, Any], known: Known) -> dict[str, Any]:
    """Return the name and the module of an object's class, where today's are others than the description's."""
    if kind in FUNCTIONS_OF_TENSORFLOW:
        config = {key: part["config"][key] for key in ("name", "function")}
        return {
            "module": _OUR_MODULE,
            "class_name": FUNCTION_OF_TENSORFLOW,
            "registered_name": FUNCTION_OF_TENSORFLOW,
            "config": config,
        }
    if kind in RENAMED and moved(part.get("module")) in {None, "keras.layers"}:
        return {"module": "keras.layers", "class_name": RENAMED[kind]}
    if "module" in part:
        return {"module": moved(part["module"])}
    if kind in _MODELS:
        return {"module": _MODELS[kind], "class_name": "Sequential" if kind == "Sequential" else "Functional"}
    if kind in known.operations and (_is_operation(part) or kind not in known.layers):
        return {"module": known.operations[kind]}
    return {"module": "keras.layers"} if kind in known.layers else {}


def _is_operation(part: dict[str, Any]) -> bool:
    """Tell an operator from the layer of the same name: every layer says whether it may be trained."""
    calls = part.get("inbound_nodes")
    return (
        "trainable" not in part["config"] and isinstance(calls, list) and any(isinstance(call, dict) for call in calls)
    )


def _danger(part: dict[str, Any], known: Known) -> str | None:
    """Return what is wrong with an object, None where nothing is."""
    kind, module = part["class_name"], moved(part.get("module"))
    if not isinstance(kind, str):
        return "is of no class"
    if kind in _CODE:
        return f"is {_CODE[kind]}"
    if kind in FUNCTIONS_OF_TENSORFLOW:
        function = part["config"].get("function") if isinstance(part["config"], dict) else None
        return None if is_allowed(function) else f"is the function {shown(str(function))} of TensorFlow"
    if kind == OP_LAYER:
        operation = operation_of(part["config"])
        return None if is_computation(operation) else f"is the operation {shown(str(operation))} of TensorFlow"
    if kind in _VALUES or (kind in POLICIES and module in {None, "keras.mixed_precision"}):
        return None
    if module is None:
        names = (known.layers, known.operations, _MODELS, RENAMED)
        is_known = any(kind in some for some in names) or not _is_layer(part)
        return None if is_known and ">" not in kind else f"is of the custom class {shown(kind)}"
    is_ours = isinstance(module, str) and (module in _MODULES or module.startswith(_BELOW))
    return None if is_ours else f"is of the custom class {shown(kind)} in {shown(str(module))}"


def _is_layer(part: dict[str, Any]) -> bool:
    return "inbound_nodes" in part or (isinstance(part["config"], dict) and "name" in part["config"])


def _named(part: dict[str, Any]) -> str:
    config = part["config"]
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) else ""


def _where(part: dict[str, Any], place: str) -> str:
    if name := _named(part):
        return f"the layer {shown(name)}" + (f" in {shown(place)}" if place else "")
    return f"something in {shown(place)}" if place else "the model"
