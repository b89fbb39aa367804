"""From what a user asks for to a job's specification, with the model that it names."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trtjob.api.given import as_choice, as_number, as_path, as_several, expect_named
from trtjob.api.job_locations import JobLocations
from trtjob.api.job_request import JobRequest, frames_of, wrong_option
from trtjob.api.label_names import file_of_labels
from trtjob.errors import ConfigError

if TYPE_CHECKING:
    from trtjob.converters.registry import RegisteredModel
    from trtjob.jobs.spec import JobSpec, Options

log = logging.getLogger(__name__)


def job_from(
    request: JobRequest,
    locations: JobLocations,
    models_dir: Path,
    on_convert: Callable[[Path], None],
    *,
    upload_model: bool = False,
) -> "JobSpec":
    """Return the job's specification; converts the model where that was not done before.

    upload_model: put it beside the outputs, in their bucket. Raises ConfigError, ModelError and ConversionError.
    """
    from trtjob.jobs.plan import source_list
    from trtjob.jobs.spec import JobSpec, ModelRef, job_id_of

    model = resolved_model(request, models_dir, on_convert)
    for warning in model.facts.warnings if model.facts else ():  # each time: the results depend on a guess
        log.warning("model %s: %s", model.name, warning)
    options = options_of(request, model)
    reference = ModelRef(
        name=model.name,
        sha256=model.sha256,
        path=str(model.path),
        task=model.spec.task.value,
        labels=model.spec.labels,
        keypoints=model.spec.keypoints,
        skeleton=model.spec.skeleton,
    )
    if upload_model:
        from trtjob.jobs.upload import uploaded_model

        reference = uploaded_model(reference, locations.output)
    listed = source_list(locations.keys) if locations.keys else b""
    return JobSpec(
        job_id=job_id_of(locations.source, listed, reference, options, locations.output),
        source=locations.source,
        model=reference,
        options=options,
        output=locations.output,
        created_at=time.time(),
        versions=versions("trtjob", "onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python-headless"),
    )


def resolved_model(request: JobRequest, models_dir: Path, on_convert: Callable[[Path], None]) -> "RegisteredModel":
    """Return the model that is asked for, converted where that was not done before.

    on_convert: called with its file before that. Raises ConfigError, ModelError, ConversionError.
    """
    from pydantic import ValidationError

    from trtjob.converters.registry import ModelRegistry
    from trtjob.converters.run import resolve_model

    expect_named("--cfg", request.cfg, "a file")
    try:
        return resolve_model(
            str(request.model),
            registry=ModelRegistry(models_dir),
            cfg=None if request.cfg is None else as_path("--cfg", request.cfg),
            labels=file_of_labels(request.labels, models_dir),
            scores=request.scores,
            on_convert=on_convert,
        )
    except ValidationError as err:
        raise wrong_option(err) from err


def options_of(request: JobRequest, model: "RegisteredModel") -> "Options":
    """Return what is asked for, and where nothing is what the model says. Raises ConfigError."""
    from pydantic import ValidationError

    from trtjob.jobs.spec import Annotate, Options, class_ids_from

    spec = model.spec
    _expect_use_of_options(request, model)
    conf = spec.conf if request.conf is None else as_number("--conf", request.conf)
    try:
        return Options(
            conf=conf,
            # What is drawn must be stored, so a lower --conf alone lowers what is stored too.
            min_score=min(spec.min_score, conf) if request.min_score is None else request.min_score,
            iou=spec.iou if request.iou is None else request.iou,
            class_ids=None if request.classes is None else class_ids_from(_joined(request.classes), spec.labels),
            annotate=as_choice("--annotate", Annotate, request.annotate),
            annotate_video=request.annotate_video,
            thumbnails=None if request.thumbnails is None else as_choice("--thumbnails", Annotate, request.thumbnails),
            thumbnail_px=request.thumbnail_size,
            resize=request.resize or spec.resize.value,
            truncated=request.truncated,
            pages=request.pages,
            frames=frames_of(request),
            depth=request.depth,
            metadata=request.metadata,
            polygons=request.polygons,
            agnostic_nms=request.agnostic_nms,
            max_det=request.max_det,
            hide_labels=request.hide_labels,
            hide_scores=request.hide_scores,
            line_width=request.line_width,
            font_size=request.font_size,
            decode=request.decode,
            shard_size=request.shard_size,
            max_failures=None if request.max_failures is None else str(request.max_failures),
        )
    except ValidationError as err:
        raise wrong_option(err) from err


def _joined(names: str | Sequence[str]) -> str:
    return ",".join(map(str, as_several("--classes", names, "names of classes")))  # numbers are classes, too


def _expect_use_of_options(request: JobRequest, model: "RegisteredModel") -> None:
    """Raise ConfigError for an option that would change nothing."""
    from trtjob.engines.spec import Task

    spec = model.spec
    if request.polygons and spec.prototypes is None:
        raise ConfigError(f"--polygons: {model.name} gives no masks, which could have an outline. Leave it out")
    if spec.task is Task.CLASSIFY and (given := _first_given(request, "agnostic_nms", "max_det")):
        raise ConfigError(f"{given}: {model.name} names whole images, and has no boxes to choose from. Leave it out")
    if request.annotate == "none" and (given := _first_given(request, *_OF_PICTURES)):
        raise ConfigError(f"{given} is for annotated copies, and --annotate none writes none. Leave one of them out")
    if request.hide_labels and (given := _first_given(request, "hide_scores", "font_size")):
        raise ConfigError(f"{given} is for what --hide-labels leaves out. Leave one of them out")


_OF_PICTURES = ("hide_labels", "hide_scores", "line_width", "font_size")


def _first_given(request: JobRequest, *names: str) -> str:
    """Return the first of the options that was given, as it was typed; empty where none was."""
    given = (name for name in names if getattr(request, name))
    return next((f"--{name.replace('_', '-')}" for name in given), "")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # another build of the same library, such as opencv-python, serves as well
            continue
    return found
