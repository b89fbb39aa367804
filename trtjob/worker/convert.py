"""Convert a model: read it, lower its precision, measure what that cost, and put it into the registry."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from trtjob import __version__
from trtjob.converters.output import write_atomically
from trtjob.converters.registry import Facts, ModelRegistry, RegisteredModel, file_sha256, name_of, valid_name
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import SAVED_MODEL, convert, files_of, hint_for, is_model
from trtjob.engines.spec import ModelSpec, describes_itself
from trtjob.errors import ConversionError, ModelError

# Called with what is done now, how many of its steps are done, and how many it has (0: not known).
Progress = Callable[[str, int, int], None]


def convert_model(
    request: ConversionRequest, *, registry: ModelRegistry, on_progress: Progress | None = None
) -> RegisteredModel:
    """Convert a model unless the same was done before, register it, and copy it to `request.out`.

    Raises ModelError where the file is none that can be converted, ConversionError where it cannot be.
    """
    if not _exists(request.model):
        raise ModelError(f"no model file '{request.model}'")
    if request.out is not None and not request.out.parent.is_dir():
        raise ConversionError(f"cannot write '{request.out}': there is no folder '{request.out.parent}'")
    name = valid_name(request.name) if request.name else name_of(request.model)
    files = files_of(request)
    key = _key(request, files)
    if known := registry.converted(key):
        registered = registry.call(name, known)
    else:
        progress = on_progress or _silent
        registered = registry.adopt(name, lambda file: _convert(request, file, progress), key)
    if request.out is not None:
        write_atomically(request.out, registered.path.read_bytes())
    return registered


def resolve_model(
    argument: str,
    *,
    registry: ModelRegistry,
    cfg: Path | None = None,
    labels: Path | None = None,
    on_convert: Callable[[Path], None] | None = None,
) -> RegisteredModel:
    """Return the model that a user means: a model's file, converted where that was not done before, or a name.

    on_convert: called with the file before a conversion. Raises ModelError, ConversionError.
    """
    path = _expanded(argument)
    if path.suffix.lower() == ".onnx" and _exists(path) and (cfg, labels) == (None, None) and describes_itself(path):
        return registry.add(name_of(path), path)
    if _exists(path) and is_model(path):
        request = ConversionRequest(model=path, cfg=cfg, labels=labels)
        announce = None if on_convert is None else _once(lambda: on_convert(path))
        return convert_model(request, registry=registry, on_progress=announce)
    if cfg is not None or labels is not None:
        raise ModelError(f"--cfg and --labels belong to a model's file, but the model is '{argument}'")
    if _exists(path):
        raise ModelError(f"'{argument}' is no model that can be used: {hint_for(path)}")
    if "/" in argument or is_model(path):
        raise ModelError(f"no model file '{argument}'")
    return registry.get(argument)


def _convert(request: ConversionRequest, file: Path, progress: Progress) -> tuple[ModelSpec, Facts]:
    """Write the converted model to `file`; return its spec and what was seen."""
    from trtjob.converters.artefact import serialised

    started = time.perf_counter()
    progress("converting", 0, 0)
    converted = convert(request)
    spec = converted.spec
    parameters = sum(_size(constant.dims) for constant in converted.model.graph.initializer)
    write_atomically(file, serialised(converted.model, spec))
    return spec, Facts(layers=converted.layers, parameters=parameters, seconds=round(time.perf_counter() - started, 2))


def _size(dims: "list[int]") -> int:
    size = 1
    for dim in dims:
        size *= dim
    return size


def _key(request: ConversionRequest, files: tuple[Path, ...]) -> str:
    """Return what a conversion's result depends on, as one hash: the files, by content, the wishes, and our version."""
    wishes = request.model_dump_json(exclude={"model", "cfg", "labels", "out", "name", "calibrate"})
    identity = [__version__, wishes, *((file.name, file_sha256(file)) for file in files)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _once(action: Callable[[], None]) -> Progress:
    """Return a progress that runs an action at its first step alone."""
    actions = [action]

    def progress(_stage: str, _done: int, _total: int) -> None:
        if actions:
            actions.pop()()

    return progress


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


def _expanded(argument: str) -> Path:
    path = Path(argument)
    try:
        return path.expanduser()
    except RuntimeError:  # `~name` where nobody is called so: a file's name
        return path


def _exists(path: Path) -> bool:
    """Tell whether a path is a file, or a folder that holds a model."""
    try:
        return path.is_file() or (path / SAVED_MODEL).is_file()
    except OSError as err:  # a name that is too long, a folder that may not be entered
        raise ModelError(f"'{path}' cannot be read: {err.strerror}") from err
