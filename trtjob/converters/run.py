"""Convert a model: read it, lower its precision, measure what that cost, and put it into the registry."""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trtjob import __version__
from trtjob.converters.impostors import expect_no_impostor
from trtjob.converters.labels import resolved_labels_file
from trtjob.converters.output import write_atomically
from trtjob.converters.registry import Facts, ModelRegistry, RegisteredModel, file_sha256, name_of, valid_name
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import SAVED_MODEL, convert, files_of, hint_for, is_model
from trtjob.engines.spec import ModelSpec
from trtjob.errors import ConversionError, ForeignModelError, ModelError
from trtjob.logs import log_context
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from trtjob.converters.artefact import Converted, Reference
    from trtjob.converters.calibration_images import Samples
    from trtjob.converters.parity import Measured
    from trtjob.engines.onnxruntime.cpu import CpuEngine

log = logging.getLogger(__name__)

# What a lowering does with the images, to show a person.
_LOWERING_STAGES = {"fp16": "looking for overflows", "bf16": "converting", "int8": "calibrating"}

# Called with what is done now, how many of its steps are done, and how many it has (0: not known).
Progress = Callable[[str, int, int], None]


def convert_model(
    request: ConversionRequest, *, registry: ModelRegistry, on_progress: Progress | None = None
) -> RegisteredModel:
    """Convert a model unless the same was done before, give it its name, and copy it to `request.out`.

    Raises ModelError where the file is none that can be converted, or the name is another model's, ConfigError for an
    option that does not go with it, ConversionError where it cannot be converted.
    """
    if not _exists(request.model):
        if request.model.is_dir():
            raise ModelError(f"'{request.model}' is a folder, and holds no {SAVED_MODEL}. Name the model's file")
        raise ModelError(f"no model file '{request.model}'")
    if request.out is not None and not request.out.parent.is_dir():
        raise ConversionError(f"cannot write '{request.out}': there is no folder '{request.out.parent}'")
    name = valid_name(request.name) if request.name else name_of(request.model)
    sha256 = _kept(request, registry) or _converted(request, registry, on_progress, "" if request.replace else name)
    registered = registry.give_name(name, sha256, replace=request.replace)
    if request.out is not None:
        write_atomically(request.out, registered.path.read_bytes())
    return registered


def _kept(request: ConversionRequest, registry: ModelRegistry) -> str | None:
    """Keep a model that is one of ours and to stay as it is. Returns its sha256, None where there is work to do."""
    naming = {"model", "out", "name", "replace"}
    if request.model.suffix.lower() != ".onnx" or request.model_dump(exclude=naming, exclude_defaults=True):
        return None
    expect_no_impostor(request.model)
    with suppress(ForeignModelError):
        return registry.keep(request.model)
    return None


def _converted(
    request: ConversionRequest, registry: ModelRegistry, on_progress: Progress | None, name: str = ""
) -> str:
    """Convert a model unless the same was done before. Returns its sha256.

    name: what it will be called; where that is another model's, ModelError is raised before the work is done.
    """
    if request.labels is not None:
        request = request.model_copy(update={"labels": resolved_labels_file(request.labels)})
    images = _calibration_images(request) if request.calibrate or request.precision == "int8" else ()
    key = _key(request, files_of(request), images)
    if known := registry.converted(key):
        return known
    if name:
        registry.expect_free(name)
    progress = on_progress or _silent
    with log_context(model=request.model.name):
        return registry.adopt(lambda file: _convert(request, file, progress), key)


def resolve_model(
    argument: str,
    *,
    registry: ModelRegistry,
    cfg: Path | None = None,
    labels: Path | None = None,
    scores: Literal["softmax", "sigmoid", "none"] | None = None,
    on_convert: Callable[[Path], None] | None = None,
) -> RegisteredModel:
    """Return the model that a user means: a model's file, converted where that was not done before, or a name.

    A file means its content and gets no name: the next training run may write another model under the same one.
    on_convert: called with the file before a conversion. Raises ModelError, ConversionError.
    """
    if not argument:  # whose path would be the current folder, which may hold a model
        return registry.get(argument)
    path = expand_tilde(argument)
    if _exists(path) and is_model(path):
        request = ConversionRequest(model=path, cfg=cfg, labels=labels, scores=scores)
        announce = None if on_convert is None else _once(lambda: on_convert(path))
        sha256 = _kept(request, registry) or _converted(request, registry, announce)
        return registry.by_sha256(sha256, name_of(path))
    if (cfg, labels, scores) != (None, None, None):
        raise ModelError(f"--cfg, --labels and --scores belong to a model's file, but the model is '{argument}'")
    if _exists(path):
        raise ModelError(f"'{argument}' is no model that can be used: {hint_for(path)}")
    if "/" in argument or is_model(path):
        raise ModelError(f"no model file '{argument}'")
    return registry.get(argument)


def _convert(request: ConversionRequest, file: Path, progress: Progress) -> tuple[ModelSpec, Facts]:
    """Write the converted model to `file`; return its spec and what was seen."""
    from trtjob.converters.artefact import pieces

    started = time.perf_counter()
    progress("converting", 0, 0)
    converted = convert(request)
    parameters = sum(prod(constant.dims) for constant in converted.model.graph.initializer)
    result = _Result(converted.model, converted.spec)
    if request.precision != "fp32":
        result = _lowered(converted, request, progress)
    elif converted.reference is not None:
        result = _compared(converted, converted.reference, request, progress)
    write_atomically(file, pieces(result.model, result.spec))
    for note in result.notes:
        log.warning("%s: %s", request.model, note)
    return result.spec, Facts(
        layers=converted.layers,
        parameters=parameters,
        outputs={value.name: _shape(value) for value in result.model.graph.output},
        seconds=round(time.perf_counter() - started, 2),
        cpu_ms=result.measured and result.measured.cpu_ms,
        reference_cpu_ms=result.measured and result.measured.reference_cpu_ms,
        reference_size_bytes=result.reference_size_bytes,
        notes=(*converted.notes, *result.notes),
        warnings=converted.warnings,
    )


def _shape(value: "ValueInfoProto") -> tuple[int | str, ...]:
    return tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim)


@dataclass(frozen=True, slots=True)
class _Result:
    """What is written, with its spec, what was measured of it, and what the user should know, a sentence each."""

    model: "ModelProto"
    spec: ModelSpec
    measured: "Measured | None" = None
    reference_size_bytes: int | None = None
    notes: tuple[str, ...] = ()


def _lowered(converted: "Converted", request: ConversionRequest, progress: Progress) -> _Result:
    """Lower a model's precision, and compare it with the float32 graph."""
    from trtjob.converters.artefact import Reference, pieces
    from trtjob.converters.parity import check_parity
    from trtjob.converters.precision.lower import lowered
    from trtjob.converters.spill import gather

    samples = _samples(request, converted.spec)
    if converted.reference is not None and converted.reference.close is not None:
        converted.reference.close()
    gather(converted.model)
    stage = _LOWERING_STAGES[request.precision]
    progress(stage, 0, len(samples))
    low = lowered(converted.model, request, samples, lambda done: progress(stage, done, len(samples)))
    spec = converted.spec.model_copy(update={"precision": request.precision, "calibration": low.calibration})
    name = _reference_name(converted, is_emulated=low.emulation is not None)
    with _opened(converted.model, converted.spec) as engine:
        reference = Reference(name, engine.infer)
        measured = _measured(low.emulation or low.model, spec, samples, reference, progress)
    notes = (*low.notes, *samples.notes, *check_parity(spec, measured.parity, strict=request.strict))
    spec = spec.model_copy(update={"parity": measured.parity})
    size_bytes = sum(map(len, pieces(converted.model, converted.spec)))
    return _Result(low.model, spec, measured, size_bytes, notes)


def _compared(
    converted: "Converted", reference: "Reference", request: ConversionRequest, progress: Progress
) -> _Result:
    """Compare a float32 model with the original that it was converted from."""
    from trtjob.converters.parity import check_parity

    samples = _samples(request, converted.spec)
    measured = _measured(converted.model, converted.spec, samples, reference, progress)
    notes = (*samples.notes, *check_parity(converted.spec, measured.parity, strict=request.strict))
    spec = converted.spec.model_copy(update={"parity": measured.parity})
    size_bytes = sum(source.size_bytes for source in spec.sources) or None
    return _Result(converted.model, spec, measured, size_bytes, notes)


def _measured(
    model: "ModelProto",
    spec: ModelSpec,
    samples: "Samples",
    reference: "Reference",
    progress: Progress,
) -> "Measured":
    """Compare a model with its reference."""
    from trtjob.converters.parity import measure

    progress("measuring", 0, len(samples))
    with ExitStack() as stack:
        # Opened when it is first run: the reference has given its memory back by then.
        engine = cache(lambda: stack.enter_context(_opened(model, spec)))
        return measure(
            spec,
            samples,
            lambda images: engine().infer(images),
            reference,
            lambda done: progress("measuring", done, len(samples)),
        )


@contextmanager
def _opened(model: "ModelProto", spec: ModelSpec) -> "Iterator[CpuEngine]":
    from trtjob.converters.artefact import pieces, without_constants
    from trtjob.converters.spill import folder_of
    from trtjob.engines.onnxruntime.cpu import open_engine

    beside = folder_of(model)
    with tempfile.TemporaryDirectory(prefix="trtjob-") as folder:
        file = (beside or Path(folder)) / "model.onnx"
        # ONNX Runtime maps constants that lie in a file of their own; others it would hold twice for a while.
        write_atomically(file, pieces(model, spec) if beside is None else without_constants(model, spec))
        with open_engine(file, threads=1) as engine:
            yield engine


def _samples(request: ConversionRequest, spec: ModelSpec) -> "Samples":
    from trtjob.converters.calibration_images import Samples

    return Samples(_calibration_images(request), spec)


def _calibration_images(request: ConversionRequest) -> tuple[Path, ...]:
    """Return the images that are asked for; none where they are to be made up. Raises ConversionError."""
    from trtjob.converters.calibration_images import chosen_images

    if request.calibrate is not None:
        return chosen_images(request.calibrate, request.calibrate_images)
    if request.precision == "int8":
        raise ConversionError(
            "int8 needs images like those that the model will see, to find the ranges of its values: name a folder of "
            "them with --calibrate FOLDER"
        )
    return ()


def _reference_name(converted: "Converted", *, is_emulated: bool) -> str:
    name = "the float32 graph in ONNX Runtime"
    if converted.reference is not None:
        name += f" (not the original, {converted.reference.name})"
    if is_emulated:
        name += " (the CPU cannot run bf16: measured on float32 with weights and activations rounded to bf16)"
    return name


def _key(request: ConversionRequest, files: tuple[Path, ...], images: tuple[Path, ...]) -> str:
    """Return what a conversion's result depends on, as one hash: the files, by content, the wishes, and our version."""
    wishes = request.model_dump_json(exclude={"model", "cfg", "labels", "out", "name", "replace", "calibrate"})
    schema = ModelSpec.model_fields["schema_version"].default
    # Labels that are named have to fit, those that are found need not: the same file may give two results.
    identity = [
        __version__,
        schema,
        wishes,
        request.labels is not None,
        *((file.name, file_sha256(file)) for file in files),
    ]
    if images:
        from trtjob.converters.calibration_images import content_hash

        identity.append(content_hash(images))
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


def _exists(path: Path) -> bool:
    """Tell whether a path is a file, or a folder that holds a model."""
    try:
        return path.is_file() or (path / SAVED_MODEL).is_file()
    except OSError as err:  # a name that is too long, a folder that may not be entered
        raise ModelError(f"'{path}' cannot be read: {err.strerror}") from err
