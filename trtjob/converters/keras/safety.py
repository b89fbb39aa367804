"""Find in a model's description what would run code when it is loaded."""

from pathlib import Path
from typing import Any

from trtjob.converters.keras.modern import POLICIES, modern_config, moved
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
_TRAINING = "compile_config"  # optimizer and loss: never loaded
_VALUES = frozenset({"__keras_tensor__", "__ellipsis__", "__slice__", "__numpy__", "__tensor__", "__bytes__"})


def check_safe(config: dict[str, Any], path: Path, known_layers: frozenset[str]) -> None:
    """Raise ConversionError for Lambda layers and for classes of others, with the layer that brings them.

    known_layers: the names in keras.layers; older files name no module.
    """
    pending: list[tuple[Any, str]] = [(config, "")]
    while pending:
        part, place = pending.pop()
        if isinstance(part, list):
            pending.extend((inner, place) for inner in part)
        if not isinstance(part, dict):
            continue
        if "class_name" in part and "config" in part:
            if what := _danger(part, known_layers):
                raise ConversionError(
                    f"'{path}': {_where(part, place)} {what}, code that would run when it is loaded. Save the model "
                    "without it, or pass --allow-unsafe if you trust whoever made the file"
                )
            place = _named(part) or place
        pending.extend((inner, place) for key, inner in part.items() if key != _TRAINING)


def with_modules(part: Any, known_layers: frozenset[str]) -> Any:
    """Return a description as today's Keras has it, an older one's, too, and without what only training needs."""
    if isinstance(part, list):
        return [with_modules(inner, known_layers) for inner in part]
    if not isinstance(part, dict):
        return part
    kind = part.get("class_name")
    if isinstance(kind, str) and isinstance(config := part.get("config"), dict):
        part = part | {"config": modern_config(kind, config)}
        if "module" in part:
            part["module"] = moved(part["module"])
    fresh = {
        key: "zeros" if key.endswith("_initializer") else with_modules(value, known_layers)
        for key, value in part.items()
        if key != _TRAINING
    }
    if isinstance(kind, str) and "config" in part and "module" not in part:
        if kind in _MODELS:
            fresh |= {"module": _MODELS[kind], "class_name": "Sequential" if kind == "Sequential" else "Functional"}
        elif kind in known_layers:
            fresh["module"] = "keras.layers"
    return fresh


def _danger(part: dict[str, Any], known_layers: frozenset[str]) -> str | None:
    """Return what is wrong with an object, None where nothing is."""
    kind, module = part["class_name"], moved(part.get("module"))
    if not isinstance(kind, str):
        return "is of no class"
    if kind in _CODE:
        return f"is {_CODE[kind]}"
    if kind in _VALUES or (kind in POLICIES and module is None):
        return None
    if module is None:
        is_known = kind in known_layers or kind in _MODELS or not _is_layer(part)
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
