"""Build a Keras model and give it its weights."""

import difflib
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from trtjob.converters.keras import packages
from trtjob.converters.keras.archive import Archive, opened
from trtjob.converters.keras.messages import last_line, why_unbuilt
from trtjob.converters.keras.safety import Known, check_safe, with_modules
from trtjob.converters.request import ConversionRequest
from trtjob.converters.texts import shown
from trtjob.engines.protocol import FloatArray
from trtjob.errors import ConversionError
from trtjob.memory import trim_heap

_LARGE_NUMBERS = 1 << 18
_ALIGNMENT = 64  # of TensorFlow's own buffers, which its operators count on
_MOST_SHOWN = 8  # names of outputs
_DEFAULT_CLASSES = 1000
_NEW_VERSION = "3."
_OPERATIONS = ("core", "image", "linalg", "math", "nn", "numpy")  # where Keras has operators
# Of the networks that take any size and do not say which they were trained with (MobileNetV3).
_DEFAULT_HW = (224, 224)


@dataclass(slots=True)
class Loaded:
    """A Keras model. loss: what it was trained with, as Keras describes it; None where the file does not say."""

    model: Any
    loss: Any = None

    def close(self) -> None:
        """Forget the model, and give its memory back."""
        self.model = None
        packages.keras().utils.clear_session()
        gc.collect()
        trim_heap()


def load(request: ConversionRequest) -> Loaded:
    """Load the model that a request means. Raises ConversionError, MissingDependencyError."""
    keras = packages.keras()
    with tempfile.TemporaryDirectory(prefix="trtjob-") as folder, opened(request.model, Path(folder)) as archive:
        if archive.config is None:
            build = _architecture(keras, request)
        else:
            if request.arch is not None:
                raise ConversionError(f"'{request.model}' holds a whole model, so --arch {request.arch} is not needed")
            build = _described(keras, request, archive.config, archive.version)
        model = _built(keras, request, build, archive)
        try:
            with packages.quiet(), _assigned_without_copies(model):
                model.load_weights(archive.weights)
        except Exception as err:  # plain ValueErrors of many kinds, and h5py's
            raise ConversionError(
                f"'{request.model}': its weights do not fit the network '{model.name}': {last_line(err)}"
            ) from err
        return _with_one_output(keras, model, archive.loss, request)


@contextmanager
def _assigned_without_copies(model: Any) -> Iterator[None]:
    """Let large variables take what is assigned to them as it is: there would be three copies of each for a while."""
    large = _large(model)
    for variable in large:
        variable.assign = partial(_assign, variable)
    try:
        yield
    finally:
        for variable in large:
            del variable.assign


def _assign(variable: Any, value: Any) -> None:
    """Assign an array or an HDF5 dataset. Raises ValueError."""
    shape = tuple(variable.shape)
    if tuple(value.shape) != shape:
        raise ValueError(f"the weights of {variable.path} have the shape {tuple(value.shape)}: expected {shape}")
    array = _aligned(shape)
    if hasattr(value, "read_direct"):
        value.read_direct(array)
    else:
        array[...] = value
    variable.value.assign(_tensor(array))


def _large(model: Any) -> list[Any]:
    return [v for v in model.variables if v.dtype == "float32" and prod(v.shape) >= _LARGE_NUMBERS]


def _blank(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Return zeros that take no memory before something is written to them, as initial weights."""
    return _tensor(_aligned(tuple(shape)))


def _aligned(shape: tuple[int, ...]) -> FloatArray:
    """Return zeros where TensorFlow may use them in place."""
    space = np.zeros(4 * prod(shape) + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    return space[start : start + 4 * prod(shape)].view(np.float32).reshape(shape)


def _tensor(array: FloatArray) -> Any:
    """Return a tensor of an array's own memory."""
    return packages.tensorflow().experimental.dlpack.from_dlpack(array.__dlpack__())


def _with_one_output(keras: Any, model: Any, loss: Any, request: ConversionRequest) -> Loaded:
    """Return the model with the output that --output names, else with its only one. Raises ConversionError."""
    names, answer = _outputs(model)
    wanted = request.output
    if wanted is not None and wanted not in names:
        shown_names = ", ".join(map(shown, names[:_MOST_SHOWN]))
        raise ConversionError(
            f"'{request.model}' has no output {shown(wanted)}, which --output names. It has: {shown_names}"
        )
    if wanted is None and len(names) != 1:
        shown_names = ", ".join(map(shown, names[:_MOST_SHOWN]))
        raise ConversionError(
            f"'{request.model}' has {len(names)} outputs: {shown_names}. Expected one; name it with --output NAME"
        )
    number = 0 if wanted is None else names.index(wanted)
    if isinstance(loss, list | dict) and len(names) > 1:
        loss = loss[number : number + 1] if isinstance(loss, list) else loss.get(names[number], loss)
    if len(names) == 1 and not isinstance(answer, list | dict):
        return Loaded(model, loss)
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return Loaded(keras.Model(inputs, model.outputs[number], name=model.name), loss)


def _outputs(model: Any) -> tuple[list[str], Any]:
    """Return the names of a model's outputs, and what it gives: a tensor, or a list or dict of them."""
    if type(model).__name__ == "Sequential":
        return [model.layers[-1].name], model.outputs[0]
    answer = model.output
    return list(answer) if isinstance(answer, dict) else list(model.output_names), answer


def _described(keras: Any, request: ConversionRequest, config: dict[str, Any], version: str) -> Callable[[], Any]:
    """Return what builds a model from its description."""
    known = _known(keras)
    try:
        if not request.allow_unsafe:
            check_safe(config, request.model, known)
        fresh = with_modules(config, known, is_old=not version.startswith(_NEW_VERSION))
    except RecursionError as err:
        raise ConversionError(f"'{request.model}' is damaged: its description lies too deep in itself") from err
    except (AttributeError, KeyError, TypeError, ValueError) as err:  # what should be a list is none, and the like
        raise ConversionError(f"'{request.model}' is damaged: its description is none of a network") from err

    def build() -> Any:
        from trtjob.converters.keras.operation import KNOWN

        with keras.saving.custom_object_scope(KNOWN):
            return keras.saving.deserialize_keras_object(fresh, safe_mode=not request.allow_unsafe)

    return build


def _known(keras: Any) -> Known:
    layers = frozenset(dir(keras.layers))
    found = [vars(sys.modules[f"keras.src.ops.{name}"]).values() for name in _OPERATIONS]
    operations = [
        kind for kinds in found for kind in kinds if isinstance(kind, type) and issubclass(kind, keras.Operation)
    ]
    return Known(layers, {kind.__name__: kind.__module__ for kind in operations})


def _architecture(keras: Any, request: ConversionRequest) -> Callable[[], Any]:
    """Return what builds the network that --arch names. Raises ConversionError."""
    applications = keras.applications
    names = {name.lower(): name for name in dir(applications) if name[0].isupper()}
    if request.arch is None:
        raise ConversionError(
            f"'{request.model}' holds weights alone. Name their network in keras.applications with --arch, such as "
            "--arch resnet50, or save the whole model with model.save('model.keras')"
        )
    wanted = request.arch.lower().replace("-", "").replace("_", "")
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, 3, 0.5) or ["vgg16", "resnet50", "mobilenetv2"]
        raise ConversionError(
            f"--arch {request.arch}: keras.applications has no such network. Did you mean {' or '.join(near)}?"
        )
    shape = None if request.size is None else (*request.size, 3)
    return lambda: getattr(applications, names[wanted])(
        weights=None, classes=request.classes or _DEFAULT_CLASSES, input_shape=shape
    )


def _built(keras: Any, request: ConversionRequest, build: Callable[[], Any], archive: Archive) -> Any:
    """Build a model, whose weights take no memory before it is known that the file holds as many."""
    try:
        with packages.quiet(), keras.StatelessScope(initialize_variables=False):
            model = build()
            needed = model.count_params()
    except Exception as err:
        keras.utils.clear_session()  # forgets the weights that were to be made
        raise ConversionError(f"'{request.model}': {why_unbuilt(keras.__version__, err)}") from err
    if needed > archive.numbers:
        keras.utils.clear_session()
        hint = "" if archive.config else ". Is --arch right, and is --classes? Weights saved without the top do not do"
        raise ConversionError(
            f"'{request.model}' holds {archive.numbers:,} numbers, but the network '{model.name}' has {needed:,} "
            f"weights{hint}"
        )
    for variable in _large(model):
        variable._initializer = _blank  # nothing public changes it once a layer is made
    with keras.StatelessScope():
        pass  # makes the weights when it is left
    return model


def input_hw(model: Any, request: ConversionRequest) -> tuple[tuple[int, int], int]:
    """Return the size and the channels of a model's only input. Raises ConversionError."""
    shape = model.input_shape
    if isinstance(shape, list | dict):
        raise ConversionError(f"'{request.model}' has {len(shape)} inputs: expected one, the image")
    return image_shape(request, tuple(shape))


def image_shape(request: ConversionRequest, shape: tuple[int | None, ...]) -> tuple[tuple[int, int], int]:
    """Return the size and the channels that an input takes, the open ones as asked for. Raises ConversionError."""
    shown = "x".join("?" if size is None else str(size) for size in shape[1:])
    if len(shape) != 4 or shape[3] not in {1, 3}:
        raise ConversionError(
            f"'{request.model}' takes {shown or 'single numbers'}: expected an image, height x width x channels, of 3 "
            "(colour) or 1 (grey)"
        )
    _, height, width, channels = shape
    hw = request.size or (_DEFAULT_HW if request.arch else None)
    if None not in (height, width):
        fixed = (int(height or 0), int(width or 0))
        if request.size not in {None, fixed}:
            raise ConversionError(
                f"'{request.model}' takes images of {shown}, so --size cannot change that. Leave it out"
            )
        hw = fixed
    if hw is None:
        raise ConversionError(f"'{request.model}' takes images of any size ({shown}). Choose one with --size")
    return hw, int(channels or 0)
