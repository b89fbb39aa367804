"""What a job is: the frozen specification that submit writes to `job.json` and every part reads."""

import hashlib
import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from trtjob.documents import Document
from trtjob.errors import ConfigError
from trtjob.storage.selection import PatternText, Selection
from trtjob.storage.uri import SourceUri, StorageUri, is_address, is_web


class Annotate(StrEnum):
    """Which images get an annotated copy, or a thumbnail: every one, those with a detection to show, or none."""

    ALL = "all"
    HITS = "hits"
    NONE = "none"

    def takes(self, *, is_hit: bool) -> bool:
        """Whether an image gets one. is_hit: whether it has a detection to show."""
        return self is Annotate.ALL or (self is Annotate.HITS and is_hit)


MOST_PARTS, ROOTS_SHOWN = 1000, 3
SourceKind = Literal["folder", "list", "both"]
Patterns = Annotated[tuple[PatternText, ...], Field(max_length=MOST_PARTS)]


class Part(Document):
    """One of several places of images.

    name: what the keys of its images begin with, before a `/`; is_listed: whether what lies below the root is taken,
    and not only what was named; patterns: as of `Source`.
    """

    name: str = Field(min_length=1)
    root: SourceUri
    is_listed: bool
    patterns: Patterns = ()


class Source(Document):
    """Where the images are.

    root: an absolute folder; an image's key is its path below it, with `/`; empty where there are several.
    kind: `folder` lists everything below the root; `list` takes the keys of the job's `plan/source.jsonl`; `both` does.
    patterns: of what is listed, only what matches one of these; none: all. selection: which of all these images.
    parts: the places, where there are several: each image's key begins with the name of its place.
    anonymous: whether buckets are read without credentials.
    """

    kind: SourceKind
    root: SourceUri | Literal[""]
    patterns: Patterns = ()
    selection: Selection = Selection()
    parts: tuple[Part, ...] = Field(default=(), max_length=MOST_PARTS)
    anonymous: bool = False

    @model_validator(mode="after")
    def _check_parts(self) -> "Source":
        if bool(self.parts) == bool(self.root):
            raise ValueError("expected either a root or several parts")
        return self

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """The places, also where it is one, which has no name."""
        if self.parts:
            return self.parts
        is_listed = self.kind != "list"
        return (Part.model_construct(name="", root=self.root, is_listed=is_listed, patterns=self.patterns),)

    @property
    def roots(self) -> tuple[str, ...]:
        return tuple(part.root for part in self.all_parts)

    def folder_around(self, path: Path) -> str | None:
        """Return the folder of this machine in which the next job would find images below a path, None for none."""
        folders = (part.root for part in self.all_parts if part.is_listed and not is_address(part.root))
        return next((folder for folder in folders if path.is_relative_to(folder)), None)

    def part_of(self, key: str) -> tuple[Part, str] | None:
        """Return the place that an image is from, and its key there; None for a key of no place."""
        if not self.parts:
            return self.all_parts[0], key
        found = next((part for part in self.parts if key.startswith(f"{part.name}/")), None)
        return None if found is None else (found, key.removeprefix(f"{found.name}/"))

    def is_on_web(self, key: str) -> bool:
        """Whether an image comes from a web server."""
        found = self.part_of(key)
        return found is not None and is_web(found[0].root)

    @property
    def shown(self) -> str:
        """The places, for people."""
        more = len(self.roots) - ROOTS_SHOWN
        return ", ".join(self.roots[:ROOTS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


class ModelRef(Document):
    """The model, known by the sha256 of its ONNX file.

    path: where a worker on the same machine, or with the same disk, finds it; uri: where another fetches it, empty
    where there is no such place; keypoints: names of those that each detection has; skeleton: pairs of them, by number
    from 0, that a line joins.
    """

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    path: StorageUri
    task: Literal["detect", "classify"]
    labels: tuple[str, ...]
    uri: StorageUri | Literal[""] = ""
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


Decode = Literal["cpu", "gpu"]
ThumbnailPx = Annotated[int, Field(ge=64, le=1024)]

MOST_DETECTIONS = 100_000  # of an image, that can be asked for
WIDEST_LINE, SMALLEST_FONT, LARGEST_FONT = 100, 6, 160  # pixels


def _check_max_failures(value: str) -> str:
    if not re.fullmatch(r"\d+|\d+(\.\d+)?%", value) or (value.endswith("%") and float(value[:-1]) > 100):
        raise ValueError("expected a number of images such as 10, or a share such as 2.5%")
    return value


class Options(Document):
    """How to run the model over the images.

    min_score: detections below it are not stored; conf: those below it are not drawn and not counted;
    iou: boxes of one class that overlap more are one object; class_ids: store only these, None for all;
    agnostic_nms: boxes of any class are; max_det: store so many of an image at the most, the best, None for all;
    truncated: whether an image that is cut off or damaged is read as far as it goes, or refused;
    pages: whether of a file with several pages or frames the first is looked at, or each as an image of its own;
    frames: which frames of videos are images (`trtjob.imaging.sampling`), None where videos are not taken;
    depth: what of numbers of more than 8 bits is white (`trtjob.imaging.depth`);
    metadata: whether records have what the camera knows of a picture; polygons: and the outlines of masks;
    hide_labels, hide_scores: what is not written into annotated copies; line_width, font_size: of what is drawn there,
    in pixels, None for what suits the image's size;
    annotate_video: whether a video gets a copy in which each frame is drawn on;
    decode: what decodes JPEG files: their pixels, and so the detections, differ a little;
    thumbnails: which images get one, None for those that get an annotated copy; thumbnail_px: their longer side;
    shard_size: images in one unit of work; max_failures: give the job up when more images, or a larger share, failed.
    """

    conf: float = Field(ge=0, le=1)
    min_score: float = Field(ge=0, le=1)
    iou: float = Field(ge=0, le=1)
    class_ids: tuple[int, ...] | None = None
    annotate: Annotate = Annotate.ALL
    resize: Literal["stretch", "letterbox", "corner", "crop"]
    truncated: Literal["refuse", "ok"] = "refuse"
    pages: Literal["first", "all"] = "first"
    frames: Annotated[str, Field(pattern=r"^(fps=\d+(\.\d+)?|every=[1-9]\d{0,8}|keyframes)$")] | None = None
    depth: Literal["auto", "high", "full"] = "auto"
    metadata: bool = False
    polygons: bool = False
    agnostic_nms: bool = False
    max_det: int | None = Field(default=None, ge=1, le=MOST_DETECTIONS)
    hide_labels: bool = False
    hide_scores: bool = False
    line_width: int | None = Field(default=None, ge=1, le=WIDEST_LINE)
    font_size: int | None = Field(default=None, ge=SMALLEST_FONT, le=LARGEST_FONT)
    annotate_video: bool = False
    decode: Decode = "cpu"
    thumbnails: Annotate | None = None
    thumbnail_px: ThumbnailPx = 320
    shard_size: int = Field(default=256, ge=1, le=100_000)
    max_failures: Annotated[str, AfterValidator(_check_max_failures)] | None = None

    @property
    def with_thumbnails(self) -> Annotate:
        """Which images get a thumbnail."""
        return self.annotate if self.thumbnails is None else self.thumbnails

    def failures_allowed(self, images: int) -> int | None:
        """Return how many of `images` may fail, None for any number.

        >>> Options(conf=0.25, min_score=0.05, iou=0.45, resize="stretch", max_failures="2.5%").failures_allowed(1000)
        25
        """
        if self.max_failures is None:
            return None
        if self.max_failures.endswith("%"):
            return int(images * float(self.max_failures[:-1]) / 100)
        return int(self.max_failures)


class JobSpec(Document):
    """A job. `output` is the absolute folder in which the job's own folder `job_id` lies."""

    schema_version: Literal[1] = 1
    job_id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,79}$")
    source: Source
    model: ModelRef
    options: Options
    output: StorageUri
    created_at: float  # seconds since the epoch
    versions: dict[str, str]

    @property
    def warm_key(self) -> str:
        """What a worker has warm while it does this job."""
        return warm_key(self.model, self.options.decode)

    @property
    def uri(self) -> str:
        """The job's own folder, on a disk or in a bucket."""
        return f"{self.output}/{self.job_id}"


def warm_key(model: ModelRef, decode: Decode) -> str:
    """Return what tells one set-up of a worker from another: the model, and what decodes images for it."""
    return model.sha256 if decode == "cpu" else f"{model.sha256}+{decode}"


_LATER_OPTIONS = (
    *("truncated", "pages", "frames", "depth", "metadata", "polygons", "decode"),
    *("agnostic_nms", "max_det", "hide_labels", "hide_scores", "line_width", "font_size"),
    *("thumbnails", "thumbnail_px", "annotate_video"),
)


def job_id_of(source: Source, listed: bytes, model: ModelRef, options: Options, output: str) -> str:
    """Return the id of this work: the same command always gives the same job, so that running it again continues it.

    It begins with the source's name, which of a single image is its own.

    listed: the keys of a `list` source, empty for a folder. What does not change the outputs (the shard's size, the
    failures allowed) does not count, nor does an option that came later and is not used: older jobs keep their ids.
    """
    unused = {name for name in _LATER_OPTIONS if getattr(options, name) == Options.model_fields[name].default}
    identity = [
        source.model_dump(mode="json", exclude_defaults=True),
        hashlib.sha256(listed).hexdigest(),
        model.sha256,
        options.model_dump(mode="json", exclude={"shard_size", "max_failures"} | unused),
        output,
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    lines = listed.splitlines()
    name = str(json.loads(lines[0])["key"]) if source.kind == "list" and len(lines) == 1 else source.roots[0]
    return f"{slug_of(name) or 'job'}-{digest[:8]}"


def slug_of(root: str) -> str:
    """Return a source's last name in small letters, digits and single hyphens; empty where nothing of it is left."""
    return re.sub(r"[^a-z0-9]+", "-", root.rsplit("/", 1)[-1].lower()).strip("-")[:40].strip("-")


def _without_blanks(name: str) -> str:
    """Return a name without the blanks around it and around its commas."""
    return ",".join(part.strip() for part in name.split(","))


def class_ids_from(names: str, labels: tuple[str, ...], *, option: str = "--classes") -> tuple[int, ...]:
    """Parse `--classes`: names or numbers, separated by commas, which a name may hold as well.

    Raises ConfigError for one that the model does not know.

    >>> class_ids_from("dog, 0", labels=("cat", "dog", "owl"))
    (0, 1)
    >>> class_ids_from("tench, Tinca tinca, owl", labels=("tench, Tinca tinca", "owl"))
    (0, 1)
    """
    known = {_without_blanks(label): number for number, label in reversed(list(enumerate(labels)))}
    most = 1 + max((label.count(",") for label in labels), default=0)
    ids, parts = set(), names.split(",")
    while parts:
        # The longest name that begins here.
        lengths = range(min(most, len(parts)), 0, -1)
        length = next((n for n in lengths if _without_blanks(",".join(parts[:n])) in known), 1)
        name = ",".join(parts[:length]).strip()
        del parts[:length]
        if (number := known.get(_without_blanks(name))) is not None:
            ids.add(number)
        elif name.isdecimal() and int(name) < len(labels):
            ids.add(int(name))
        elif name:
            shown = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
            raise ConfigError(f"{option}: this model has no class {name!r}. It has: {shown}")
    if not ids:
        raise ConfigError(f"{option}: no class named. Example: {option} dog,cat")
    return tuple(sorted(ids))
