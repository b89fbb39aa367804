"""From what a user asks for to a job's specification."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from trtjob.api.given import as_choice, as_number, as_path, as_several
from trtjob.api.label_names import file_of_labels
from trtjob.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from trtjob.converters.registry import RegisteredModel
    from trtjob.errors import MissingDependencyError
    from trtjob.jobs.image_list import ImageList
    from trtjob.jobs.spec import JobSpec, Options, Source
    from trtjob.storage.selection import Selection

log = logging.getLogger(__name__)

StrPath: TypeAlias = str | Path

DEFAULT_OUTPUT = "trtjob-out"
DEFAULT_FRAMES = "fps=1"
LEAST_FPS, MOST_FPS, MOST_EVERY = 0.001, 1000, 100_000_000


@dataclass(frozen=True)
class JobRequest:
    """What a job is to be: the options of `trtjob run --help` by their names; None: what the model says.

    source: a folder, an image, a list of images, an s3:// prefix or an address, or several of these.
    """

    source: StrPath | Sequence[StrPath]
    model: StrPath
    output: StrPath = DEFAULT_OUTPUT
    _: KW_ONLY
    root: StrPath = ""
    column: str | int = ""
    anonymous: bool = False
    include: str | Sequence[str] | None = None
    exclude: str | Sequence[str] | None = None
    hidden: bool = False
    no_recursive: bool = False
    since: str | datetime | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int | None = None
    cfg: StrPath | None = None
    labels: StrPath | Sequence[str] | None = None
    scores: Literal["softmax", "sigmoid", "none"] | None = None
    conf: float | None = None
    min_score: float | None = None
    iou: float | None = None
    agnostic_nms: bool = False
    max_det: int | None = None
    classes: str | Sequence[str] | None = None
    annotate: Literal["all", "hits", "none"] = "all"
    annotate_video: bool = False
    thumbnails: Literal["all", "hits", "none"] | None = None
    thumbnail_size: int = 320
    metadata: bool = False
    polygons: bool = False
    hide_labels: bool = False
    hide_scores: bool = False
    line_width: int | None = None
    font_size: int | None = None
    resize: Literal["stretch", "letterbox"] | None = None
    truncated: Literal["refuse", "ok"] = "refuse"
    pages: Literal["first", "all"] = "first"
    fps: float | None = None
    every: int | None = None
    keyframes: bool = False
    depth: Literal["auto", "high", "full"] = "auto"
    decode: Literal["cpu", "gpu"] = "cpu"
    shard_size: int = 256
    max_failures: int | str | None = None
    priority: Literal["high", "normal", "low"] | None = None
    notify: str = ""


@dataclass(frozen=True, slots=True)
class JobLocations:
    """Where a job reads and writes, checked. keys: the images of a list, empty for a folder."""

    source: "Source"
    keys: list[str]
    output: str


def find_locations(request: JobRequest) -> JobLocations:
    """Look at the source and the output; reads standard input where the source is `-`.

    Raises ConfigError, StorageError for a bucket that cannot be used.
    """
    from pydantic import ValidationError

    from trtjob.jobs.image_list import ImageList
    from trtjob.jobs.sources import check_output, source_from
    from trtjob.storage import is_s3

    for option, place in (("--model", request.model), ("--output", request.output)):
        if not isinstance(place, str | Path):  # None would be a folder of that name
            raise ConfigError(f"{option} {place!r}: expected a path")
    sources = () if request.source is None else as_several("source", request.source, "a path, or several")
    if not sources:
        raise ConfigError("no source. Name a folder, an image, a list or an s3:// prefix")
    named = [_named(str(each), str(request.column)) for each in sources]
    if request.column and not any(isinstance(each, ImageList) for each in named):
        raise ConfigError("--column is for tables that name images, and none is among the sources. Leave --column out")
    selection = _selection(request)
    try:
        source, keys = source_from(*named, root=str(request.root), selection=selection, anonymous=request.anonymous)
    except ValidationError as err:
        raise wrong_option(err) from err
    output = check_output(str(request.output), source)
    if is_s3(output):
        from trtjob.storage.s3.storage import check_access

        check_access(output, write=True)
    return JobLocations(source, keys, output)


def expect_decoders(locations: JobLocations) -> None:
    """Warn of listed images of kinds that a package reads which is not installed.

    Raises MissingDependencyError where all of a job's images are such. Of a folder nobody knows yet.
    """
    keys = locations.keys
    if not keys or (missing := _missing_package(keys)) is None:
        return
    if locations.source.kind == "list" and all(_missing_package([key]) for key in keys):
        raise missing
    log.warning("some of the list's images will fail: %s", missing)


def _named(source: str, column: str) -> "str | ImageList":
    from trtjob.jobs.image_list import ImageList, parsed_list
    from trtjob.jobs.list_files import is_list, listed_paths
    from trtjob.tilde import expand_tilde

    if not source:  # as an unset variable of a shell is; a path would be the current folder
        raise ConfigError("SOURCE is empty. Name a folder, an image, a list or a prefix of a bucket")
    if source == "-":
        return ImageList(parsed_list(sys.stdin.buffer.read()), Path.cwd())
    path = expand_tilde(source)
    return ImageList(listed_paths(path, column), path.absolute().parent) if is_list(path) else source


def _frames(request: JobRequest) -> str | None:
    """Return which frames of videos are images; None where videos are not taken, since what reads them is not here."""
    from trtjob.imaging.video_package import missing_video_package

    every = "" if request.every is None else f"every={_every(request.every)}"
    fps = "" if request.fps is None else f"fps={_fps(request.fps):.6f}".rstrip("0").rstrip(".")
    asked = list(filter(None, (fps, every, "keyframes" if request.keyframes else "")))
    if len(asked) > 1:
        raise ConfigError("--fps, --every and --keyframes all say which frames of videos are images: give one")
    if (missing := missing_video_package()) is not None:
        if asked or request.annotate_video:
            raise missing
        return None
    return asked[0] if asked else DEFAULT_FRAMES


def _every(value: object) -> int:
    if isinstance(value, int) and 1 <= value <= MOST_EVERY:
        return value
    raise ConfigError(f"--every {value!r}: expected a whole number from 1 to {MOST_EVERY:,}")


def _fps(value: object) -> float:
    if LEAST_FPS <= (fps := as_number("--fps", value)) <= MOST_FPS:
        return fps
    raise ConfigError(f"--fps {value!r}: expected {LEAST_FPS:g} to {MOST_FPS}")


def _missing_package(keys: Sequence[str]) -> "MissingDependencyError | None":
    from trtjob.imaging.pillow_kinds import missing_package
    from trtjob.imaging.video_package import missing_video_package
    from trtjob.jobs.frames import is_video

    return missing_package(keys) or (missing_video_package() if any(map(is_video, keys)) else None)


def _selection(request: JobRequest) -> "Selection":
    from pydantic import ValidationError

    from trtjob.storage.selection import Selection

    if request.limit is not None and request.sample is not None:
        raise ConfigError("--limit and --sample both say how many images: give one of them")
    if request.seed is not None and request.sample is None:
        raise ConfigError("--seed is for --sample: give both")
    try:
        return Selection(
            hidden=request.hidden,
            videos=_frames(request) is not None,
            recursive=not request.no_recursive,
            include=_patterns("--include", request.include),
            exclude=_patterns("--exclude", request.exclude),
            since_s=None if request.since is None else seconds_of(request.since),
            limit=request.limit,
            sample=request.sample,
            seed=request.seed or 0,
        )
    except ValidationError as err:
        raise wrong_option(err) from err


def _patterns(option: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else as_several(option, given, "a pattern, or several")  # type: ignore[return-value]  # to be checked


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
            frames=_frames(request),
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


def seconds_of(since: str | datetime) -> float:
    """Return `--since` in seconds since the epoch. Raises ConfigError for what is no date.

    >>> seconds_of("2026-11-01T18:30+01:00")
    1793554200.0
    """
    try:
        return (since if isinstance(since, datetime) else datetime.fromisoformat(since)).timestamp()
    except (TypeError, ValueError, OverflowError, OSError) as err:
        raise ConfigError(
            f"--since '{since}' is no date. Examples: 2026-11-01, 2026-11-01T18:30, 2026-11-01T18:30+01:00"
        ) from err


_NAMED_OTHERWISE = {"thumbnail_px": "thumbnail_size"}  # fields, by their options


def wrong_option(err: "ValidationError") -> ConfigError:
    """Return what is wrong with the first field that a model of a caller's options refuses, by the option's name."""
    from trtjob.documents import in_words

    problem = err.errors()[0]
    name = str(problem["loc"][0])
    option = "--" + _NAMED_OTHERWISE.get(name, name).replace("_", "-")
    return ConfigError(f"{option} {problem['input']!r}: {in_words(problem)}")


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
