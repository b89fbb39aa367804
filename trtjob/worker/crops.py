"""What a job has found, each object as an image of its own, beside a table of all."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trtjob.documents import Document
from trtjob.engines.protocol import UInt8Array
from trtjob.errors import ConfigError, FailureKind, ImageError
from trtjob.imaging.crop import crop, crop_pixels, rotated_size
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import Detection
from trtjob.imaging.encode import encode_image
from trtjob.jobs.exports.csv_table import Lines, as_text
from trtjob.jobs.exports.results import Shape, shapes_of
from trtjob.jobs.folder import RESULTS, JobFolder, suffixed_key
from trtjob.jobs.pages import planned_page
from trtjob.jobs.plan import planned_entries
from trtjob.jobs.records import Record, read_records
from trtjob.jobs.sorting.plan import folder_name
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import JobSpec
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry
from trtjob.storage.prefetch import prefetch_map
from trtjob.storage.protocol import ImageStorage
from trtjob.worker.pipeline.open_video import OpenVideo

TABLE, HEADING = "crops.csv", "crops.json"
_COLUMNS = (
    *("crop", "width", "height", "image", "label", "class_id", "score"),
    *("x1", "y1", "x2", "y2", "angle"),
)


class CropHeading(Document):
    """Which crops a folder has (`crops.json`), so that no others come between them."""

    schema_version: int = 1
    job_id: str
    conf: float
    margin: float


@dataclass(slots=True)
class Crops:
    """What was made. images: with crops; left: images of which none could be made, and why; ignored: what detections
    have beside their boxes."""

    crops: int = 0
    images: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    ignored: set[Shape] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Crop:
    key: str
    found: Detection


def make_crops(
    folder: JobFolder,
    spec: JobSpec,
    out: Path,
    *,
    conf: float,
    margin: float,
    max_pixels: int,
    jpeg_quality: int,
    allow_local: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> Crops:
    """Write a JPEG for each object of a score of at least `conf`, `dog/photos/a.jpg-1.jpg`, and a table of them.

    margin: around each box, as a share of its own sides; max_pixels, jpeg_quality, allow_local: as in the settings;
    on_image: called for every image with such an object. What is there from an earlier call is not made again.
    Raises ConfigError where the folder holds something else, StorageError where a place cannot be read or written.
    """
    target = LocalStorage(out.resolve())
    _check(spec, target, CropHeading(job_id=spec.job_id, conf=conf, margin=margin))
    source = open_source(spec.source, allow_local=allow_local)
    return _Maker(folder, spec, source, target, conf, margin, max_pixels, jpeg_quality, on_image).run()


def _check(spec: JobSpec, target: LocalStorage, heading: CropHeading) -> None:
    if spec.model.task != "detect":
        raise ConfigError("crops are of boxes, which a classifier's results do not have")
    if (around := spec.source.folder_around(target.root)) is not None:
        raise ConfigError(f"'{target.root}' lies in the source '{around}', where the next job would find all crops")
    target.make_root()
    if target.exists(HEADING):
        if (found := CropHeading.model_validate_json(target.read(HEADING))) != heading:
            what = f"those of job '{found.job_id}' with --conf {found.conf:g} --margin {found.margin:g}"
            raise ConfigError(f"'{target.root}' has other crops, {what}: name another folder")
        return
    if any(target.root.iterdir()):
        raise ConfigError(f"'{target.root}' is not empty: crops get a folder of their own")
    target.write(HEADING, heading.model_dump_json().encode() + b"\n")


class _Maker:
    """Makes the crops of one job."""

    def __init__(
        self,
        folder: JobFolder,
        spec: JobSpec,
        source: ImageStorage,
        target: LocalStorage,
        conf: float,
        margin: float,
        max_pixels: int,
        jpeg_quality: int,
        on_image: Callable[[], None],
    ) -> None:
        self.folder, self.spec, self.source, self.target = folder, spec, source, target
        self.conf, self.margin = conf, margin
        self.max_pixels, self.jpeg_quality = max_pixels, jpeg_quality
        self.on_image = on_image
        self.result = Crops()

    def run(self) -> Crops:
        wanted = (record for record in self._records() if record.frame is None)
        for record, why in prefetch_map(self._cut_image, wanted):
            self._count(record, why)
        if self.spec.options.frames is not None:
            self._cut_frames()
        self._write_table({image for image, _ in self.result.left})
        return self.result

    def _records(self) -> Iterator[Record]:
        for record in read_records(self.folder.storage, RESULTS):
            if record.error is None and next(self._crops(record), None):
                yield record

    def _crops(self, record: Record) -> Iterator[_Crop]:
        for number, found in enumerate(record.detections or (), start=1):
            if found.score >= self.conf:
                yield _Crop(f"{folder_name(found.label)}/{suffixed_key(record.image, f'-{number}.jpg')}", found)

    def _count(self, record: Record, why: str) -> None:
        self.on_image()
        if why:
            self.result.left.append((record.image, why))
            return
        crops = list(self._crops(record))
        self.result.images += 1
        self.result.crops += len(crops)
        shapes = {shape for each in crops for shape in shapes_of(each.found)}
        self.result.ignored |= shapes - {Shape.ROTATED}

    def _missing(self, record: Record) -> list[_Crop]:
        return [each for each in self._crops(record) if not self.target.exists(each.key)]

    def _cut_image(self, record: Record) -> tuple[Record, str]:
        """Make the crops of an image. Returns it with why it has none, empty where it has."""
        if not (missing := self._missing(record)):
            return record, ""
        try:
            self._write(record, self._decoded(record), missing)
        except (ImageError, OSError) as err:
            return record, str(err)
        return record, ""

    def _decoded(self, record: Record) -> UInt8Array:
        options = self.spec.options
        file, page = planned_page(record.image, options)
        data = self.source.fetch(Entry(file, 0, ""))
        if record.sha256 is not None and hashlib.sha256(data).hexdigest() != record.sha256:
            raise ImageError(FailureKind.READ, "the file has changed since the job: run the job again")
        on_damage = (lambda _: None) if options.truncated == "ok" else None
        return decode_image(data, max_pixels=self.max_pixels, on_damage=on_damage, depth=options.depth, page=page)

    def _cut_frames(self) -> None:
        """Make the crops of the frames of videos, each of which is decoded on from the one before it."""
        video = OpenVideo(self.source, max_pixels=self.max_pixels, on_gpu=False, on_step=lambda: None)
        planned = {entry.key: entry for entry in planned_entries(self.folder, self.folder.epochs()) if entry.frame}
        try:
            for record in self._records():
                if record.frame is not None:
                    self._count(record, self._cut_frame(record, video, planned))
        finally:
            video.close()

    def _cut_frame(self, record: Record, video: OpenVideo, planned: Mapping[str, Entry]) -> str:
        """Make the crops of a frame. Returns why it has none, empty where it has."""
        if not (missing := self._missing(record)):
            return ""
        if (entry := planned.get(record.image)) is None:
            return "the job's plan does not have the frame"
        try:
            self._write(record, video.picture(entry)[0].bgr(), missing)
        except (ImageError, OSError) as err:
            return str(err)
        return ""

    def _write(self, record: Record, image: UInt8Array, crops: list[_Crop]) -> None:
        if image.shape[:2] != (record.height, record.width):
            raise ImageError(FailureKind.READ, "the image has another size than in the job: run the job again")
        for each in crops:
            pixels = crop(image, each.found, self.margin)
            self.target.put(each.key, encode_image(pixels, ".jpg", jpeg_quality=self.jpeg_quality))

    def _write_table(self, left: set[str]) -> None:
        with self.target.writing(TABLE) as file:
            text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="", write_through=True)
            writer = csv.writer(Lines(text))
            writer.writerow(_COLUMNS)
            for record in self._records():
                if record.image not in left:
                    writer.writerows(self._row(record, each) for each in self._crops(record))
            text.detach()

    def _row(self, record: Record, each: _Crop) -> tuple[object, ...]:
        found, rotated = each.found, each.found.rotated
        assert record.width is not None
        assert record.height is not None
        if rotated is None:
            x1, y1, x2, y2 = crop_pixels(found, self.margin, (record.height, record.width))
            size = (x2 - x1, y2 - y1)
        else:
            size = rotated_size(rotated, self.margin)
        what = (as_text(each.key), *size, as_text(record.image), as_text(found.label), found.class_id, found.score)
        return (*what, *found.box, "" if rotated is None else rotated.angle)
