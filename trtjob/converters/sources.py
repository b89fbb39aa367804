"""Which converter reads which file.

A converter is a package here with two modules: `files` finds what belongs to a model and is quick to import; `convert`
does the work.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from trtjob.converters.impostors import expect_no_impostor
from trtjob.converters.own_files import expect_own
from trtjob.converters.request import ConversionRequest
from trtjob.errors import ConfigError, ConversionError, ModelError

if TYPE_CHECKING:
    from trtjob.converters.artefact import Converted

_CONVERTERS = {
    ".weights": "darknet",
    ".backup": "darknet",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".pb": "keras",
    ".onnx": "onnx",
}
ACCEPTED = "Darknet .weights or .backup, Keras .keras or .h5, a TensorFlow SavedModel folder or frozen .pb, or .onnx"
SAVED_MODEL = "saved_model.pb"

# The options that belong to some converters only.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "cfg": ("darknet",),
    "arch": ("keras",),
    "candidates": ("darknet", "onnx"),
    "classes": ("keras",),
    "allow_unsafe": ("keras",),
    "input": ("keras", "onnx"),
    "output": ("keras", "onnx"),
    "preprocess": ("keras", "onnx"),
    "mean": ("keras", "onnx"),
    "std": ("keras", "onnx"),
    "scores": ("keras", "onnx"),
    "color": ("keras", "onnx"),
    "family": ("onnx",),
    "boxes": ("onnx",),
    "background": ("onnx",),
    "anchors": ("onnx",),
}
_TITLES = {"darknet": "Darknet models", "keras": "Keras and TensorFlow models", "onnx": "ONNX files"}

_EXPORT_TORCH = (
    "it can hold any code, so it is never opened here. Export it to ONNX where it was trained: for an Ultralytics "
    "model `yolo export model={name} format=onnx`, else torch.onnx.export(model, example, '{stem}.onnx')"
)
_PLAN = "a TensorRT plan runs only on the machine it was built for. Convert the model that it was built from"
_HINTS = {
    **dict.fromkeys((".pt", ".pth", ".torchscript", ".ckpt", ".safetensors"), _EXPORT_TORCH),
    ".uff": "TensorRT has dropped UFF. Convert the .pb or .h5 that it was made from",
    **dict.fromkeys((".engine", ".plan", ".trt"), _PLAN),
    ".cfg": "it is a network without its weights. Name the .weights file; the .cfg beside it is found by itself",
    ".tflite": "TensorFlow Lite is not supported. Convert the SavedModel or .keras that it was made from",
    ".caffemodel": "Caffe is not supported. Convert the model to ONNX first",
}


def is_model(path: Path) -> bool:
    """Tell whether a path looks like a model that can be converted."""
    return path.suffix.lower() in _CONVERTERS or (path / SAVED_MODEL).is_file()


def needs_tensorflow(path: Path) -> bool:
    """Tell whether a model that can be converted is read by TensorFlow."""
    return is_model(path) and _package(path) == "keras"


def hint_for(path: Path) -> str:
    """Return what to do with a file that is no model for us, as the second half of a sentence."""
    hint = _HINTS.get(path.suffix.lower(), f"expected {ACCEPTED}")
    return hint.format(name=path.name, stem=path.stem)


def files_of(request: ConversionRequest) -> tuple[Path, ...]:
    """Return all files that a conversion reads.

    Raises ConfigError for an option that is not for such a model, ModelError, ConversionError where a file is missing,
    or is not the model's own.
    """
    _check_options(request)
    if request.labels is not None:
        _expect_file(request.labels)
    for path in filter(None, (request.model, request.cfg, request.labels)):
        expect_no_impostor(path)
    find: Callable[[ConversionRequest], tuple[Path, ...]] = _module(request.model, "files").files
    files = find(request)
    model = request.model / SAVED_MODEL if request.model.is_dir() else request.model
    named = {model, *filter(None, (request.cfg, request.labels))}
    for file in set(files) - named:
        expect_no_impostor(expect_own(file, model, request.cfg or model))
    return files


def _expect_file(labels: Path) -> None:
    try:
        labels.stat()
    except FileNotFoundError as err:
        raise ConversionError(
            f"--labels: there is no file '{labels}'. Write the names into one, one on each line, and name that; or "
            "give few of them as they are: --labels no,yes"
        ) from err
    except OSError as err:
        raise ConversionError(f"--labels '{labels}' cannot be read: {err.strerror}") from err


def _check_options(request: ConversionRequest) -> None:
    package = _package(request.model)
    for name, packages in _OPTIONS.items():
        value = getattr(request, name)
        if value is not None and value is not False and package not in packages:
            option = "--" + name.replace("_", "-")
            titles = " and ".join(_TITLES[other] for other in packages)
            raise ConfigError(f"{option} is for {titles}, but the model is '{request.model}'. Leave {option} out")


def convert(request: ConversionRequest) -> "Converted":
    """Convert a model to float32. Raises ConversionError."""
    function: Callable[[ConversionRequest], Converted] = _module(request.model, "convert").convert
    return function(request)


def _module(path: Path, name: str) -> ModuleType:
    return import_module(f"trtjob.converters.{_package(path)}.{name}")


def _package(path: Path) -> str:
    if not is_model(path):
        raise ModelError(f"'{path}' cannot be converted: {hint_for(path)}")
    return _CONVERTERS.get(path.suffix.lower(), "keras")
