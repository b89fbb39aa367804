"""What a user asks for: the options of a job, by their names."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from trtjob.api.given import as_number
from trtjob.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError

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


def frames_of(request: JobRequest) -> str | None:
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
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_EVERY:
        return value
    raise ConfigError(f"--every {value!r}: expected a whole number from 1 to {MOST_EVERY:,}")


def _fps(value: object) -> float:
    if LEAST_FPS <= (fps := as_number("--fps", value)) <= MOST_FPS:
        return fps
    raise ConfigError(f"--fps {value!r}: expected {LEAST_FPS:g} to {MOST_FPS}")


_NAMED_OTHERWISE = {"thumbnail_px": "thumbnail_size"}  # fields, by their options


def wrong_option(err: "ValidationError") -> ConfigError:
    """Return what is wrong with the first field that a model of a caller's options refuses, by the option's name."""
    from trtjob.documents import in_words

    problem = err.errors()[0]
    name = str(problem["loc"][0])
    option = "--" + _NAMED_OTHERWISE.get(name, name).replace("_", "-")
    return ConfigError(f"{option} {problem['input']!r}: {in_words(problem)}")
