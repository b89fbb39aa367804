"""Build a Keras model and give it its weights."""

import difflib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtjob.converters.keras import packages
from trtjob.converters.keras.archive import Archive, opened
from trtjob.converters.keras.safety import check_safe, with_modules
from trtjob.converters.request import ConversionRequest
from trtjob.converters.texts import one_line
from trtjob.errors import ConversionError

_DEFAULT_CLASSES = 1000
# Of the networks that take any size and do not say which they were trained with (MobileNetV3).
_DEFAULT_HW = (224, 224)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A Keras model. loss: what it was trained with, as Keras describes it; None where the file does not say."""

    model: Any
    loss: Any = None


def load(request: ConversionRequest) -> Loaded:
    """Load the model that a request means. Raises ConversionError, MissingDependencyError."""
    keras = packages.keras()
    with tempfile.TemporaryDirectory(prefix="trtjob-") as folder, opened(request.model, Path(folder)) as archive:
        if archive.config is None:
            build = _architecture(keras, request)
        else:
            if request.arch is not None:
                raise ConversionError(f"'{request.model}' holds a whole model, so --arch {request.arch} is not needed")
            build = _described(keras, request, archive.config)
        model = _built(keras, request, build, archive)
        try:
            with packages.quiet():
                model.load_weights(archive.weights)
        except Exception as err:  # plain ValueErrors of many kinds, and h5py's
            raise ConversionError(
                f"'{request.model}': its weights do not fit the network '{model.name}': {one_line(err)}"
            ) from err
        return Loaded(model, archive.loss)


def _described(keras: Any, request: ConversionRequest, config: dict[str, Any]) -> Callable[[], Any]:
    """Return what builds a model from its description."""
    known = frozenset(dir(keras.layers))
    try:
        if not request.allow_unsafe:
            check_safe(config, request.model, known)
        fresh = with_modules(config, known)
    except RecursionError as err:
        raise ConversionError(f"'{request.model}' is damaged: its description lies too deep in itself") from err
    return lambda: keras.saving.deserialize_keras_object(fresh, safe_mode=not request.allow_unsafe)


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
        raise ConversionError(
            f"'{request.model}': Keras {keras.__version__} cannot build the network: {_last_line(err)}"
        ) from err
    if needed > archive.numbers:
        keras.utils.clear_session()
        hint = "" if archive.config else ". Is --arch right, and is --classes? Weights saved without the top do not do"
        raise ConversionError(
            f"'{request.model}' holds {archive.numbers:,} numbers, but the network '{model.name}' has {needed:,} "
            f"weights{hint}"
        )
    with keras.StatelessScope():
        pass  # makes the weights when it is left
    return model


def _last_line(err: Exception) -> str:
    """Return the end of what Keras says, which names the cause; its first lines say where it was."""
    *_, last = ("", *(line for line in str(err).splitlines() if line.strip()))
    return one_line(Exception(last) if last else err)


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
