"""What happens to one image before and after the engine, in an image process."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import ModelSpec, ResizeMode, Task
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.decode import ENDS_EARLY, decode_image
from trtjob.imaging.detections import Detection
from trtjob.imaging.embedded import embedded, exif_of
from trtjob.imaging.gpu_jpeg import gpu_jpeg_hw
from trtjob.imaging.metadata import Metadata, metadata_from_exif
from trtjob.imaging.pages import page_count
from trtjob.imaging.planes import prepare_planes, takes_planes
from trtjob.imaging.postprocess import classes_from, detections_from, labels_from
from trtjob.imaging.resampling import resampling
from trtjob.imaging.resize import Placement, prepare
from trtjob.jobs.frames import is_video, time_s
from trtjob.jobs.pages import MOST_PAGES, file_of, planned_page
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Options
from trtjob.logs import log_context
from trtjob.storage import Storage
from trtjob.storage.listing import Entry
from trtjob.storage.protocol import ImageStorage
from trtjob.worker.pipeline.copies import Copies, Prepared
from trtjob.worker.pipeline.open_video import OpenVideo
from trtjob.worker.pipeline.ring import room_for_pixels
from trtjob.worker.pipeline.stopwatch import Stopwatch, Watch

log = logging.getLogger(__name__)


class Stages:
    """The stages of one job."""

    def __init__(
        self,
        options: Options,
        model: ModelSpec,
        source: ImageStorage,
        output: Storage,
        *,
        max_pixels: int,
        jpeg_quality: int,
        watch: Watch | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """on_step: called for each frame of a video that is decoded."""
        self.model = model
        self.options = options
        self.watch = watch or Stopwatch()
        self.source = source
        self.output = output
        self._video = OpenVideo(
            self.source, max_pixels=max_pixels, on_gpu=self.options.decode == "gpu", on_step=on_step
        )
        self._max_pixels = max_pixels
        self._copies = Copies(
            options, model.skeleton, output, self.watch, max_pixels=max_pixels, jpeg_quality=jpeg_quality
        )
        self._resize = ResizeMode(options.resize)
        self._takes_planes = takes_planes(model, self._resize)
        self._class_ids = None if options.class_ids is None else frozenset(options.class_ids)

    def read(self, entry: Entry) -> bytes:
        """Read an image from a folder. Raises ImageError, StorageError."""
        with self.watch.stage("read"):
            return self.source.fetch(self._file_of(entry))

    async def afetch(self, entry: Entry) -> bytes:
        """Fetch an image from a bucket. Raises as `read` does."""
        return await self.source.afetch(self._file_of(entry))

    def page_of(self, entry: Entry) -> int | None:
        """Return which page of its file an image is, None where it is the file."""
        return planned_page(entry.key, self.options)[1]

    def is_of_video(self, entry: Entry) -> bool:
        """Whether an image is a frame of a video, or a video of which no frame was planned: `read` is not for it."""
        return entry.frame is not None or (self.options.frames is not None and is_video(entry.key))

    def frame_decoding_bytes(self, entry: Entry) -> int:
        """Return what it takes to decode a frame. Raises ImageError, StorageError."""
        with self.watch.stage("decode"), log_context(image=entry.key):
            return self._video.decoding_bytes(entry)

    def prepare_frame(self, entry: Entry, tensor: UInt8Array) -> Prepared:
        """Decode a frame of a video and resize it into `tensor`, as `prepare` does. Raises ImageError, StorageError."""
        with self.watch.stage("decode"), log_context(image=entry.key):
            picture, damage = self._video.picture(entry)
            if damage is not None and self.options.truncated == "refuse":
                raise ImageError(FailureKind.DECODE, damage)
            planes = picture.planes() if self._takes_planes else None
            image = picture.bgr() if planes is None or self._copies.need_pixels else None
        with self._resizing(None):
            if planes is not None:
                placement = prepare_planes(planes, self.model, self._resize, tensor)
            else:
                assert image is not None
                _, placement = prepare(image, self.model, self._resize, tensor)
        item = self._prepared(entry, None, picture.hw, image, placement)
        item.damage = damage
        if self.options.metadata:
            item.metadata = Metadata()
        return item

    def close(self) -> None:
        """Close the video that is open."""
        self._video.close()

    def _file_of(self, entry: Entry) -> Entry:
        return entry if self.page_of(entry) is None else file_of(entry)

    def prepare(self, entry: Entry, data: bytes, tensor: UInt8Array, file: UInt8Array | None = None) -> Prepared:
        """Decode an image and resize it into `tensor`, uint8 [H, W, channels]; or leave that to the GPU.

        file: room for the image's file, if it is one that the GPU decodes; None: it is none. Raises ImageError.
        """
        with self.watch.stage("read"):
            digest = hashlib.sha256(data).hexdigest()
            if file is not None and (item := self._for_gpu(entry, data, digest, file)) is not None:
                return item
        try:
            with self.watch.stage("decode"), log_context(image=entry.key):
                page = self.page_of(entry)
                damages: list[str] = []
                on_damage = damages.append if self.options.truncated == "ok" else None
                pages = self._check_pages(page_count(data), page)
                image = decode_image(
                    data, max_pixels=self._max_pixels, on_damage=on_damage, depth=self.options.depth, page=page
                )
        except ImageError as err:
            err.sha256 = digest
            raise
        item = self.resized(entry, image, tensor, digest)
        item.pages, item.damage, item.is_cut_off = pages, next(iter(damages), None), ENDS_EARLY in damages
        self._keep_facts(item, data)
        return item

    def resized(self, entry: Entry, image: UInt8Array, tensor: UInt8Array, digest: str | None = None) -> Prepared:
        """Resize a decoded image, uint8 [H, W, 3], BGR, into `tensor`. digest: its file's. Raises ImageError."""
        with self._resizing(digest):
            _, placement = prepare(image, self.model, self._resize, tensor)
        return self._prepared(entry, digest, image.shape[:2], image, placement)

    @contextmanager
    def _resizing(self, digest: str | None) -> Iterator[None]:
        with self.watch.stage("resize"):
            try:
                yield
            except (cv2.error, MemoryError) as err:
                raise ImageError(FailureKind.DECODE, f"the image cannot be resized: {err}", digest) from err

    def _prepared(
        self, entry: Entry, digest: str | None, hw: tuple[int, int], image: UInt8Array | None, placement: Placement
    ) -> Prepared:
        """image: None where nothing is made of it but the network's input."""
        if image is None:
            return Prepared(entry, digest, hw, None, placement)
        kept = image if self._copies.need_images else None
        return Prepared(entry, digest, hw, kept, placement, thumbnail=self._copies.thumbnail(image))

    def _check_pages(self, count: int, page: int | None) -> int | None:
        """Return how many pages there are where only the first is looked at, None where there is no other.

        Raises ImageError where all were to be looked at, and the plan has one image for them.
        """
        if self.options.pages == "first":
            return count if count > 1 else None
        if page is None and count > MOST_PAGES:
            what = f"the file has {count:,} pages, where --pages all takes {MOST_PAGES:,}"
            raise ImageError(FailureKind.DECODE, what)
        if page is None and count > 1:
            what = f"the file has {count:,} pages, which were not seen when the job was planned"
            why = "it has changed since, in which case the same command plans them, or has not the name of a TIFF, GIF"
            raise ImageError(FailureKind.READ, f"{what}: {why}, WebP, PNG, AVIF or HEIC")
        return None

    def _keep_facts(self, item: Prepared, data: bytes) -> None:
        """Keep what a file says of its picture, as far as it is wanted."""
        if self.options.metadata:
            item.metadata = metadata_from_exif(exif_of(data))
        if self._copies.need_images:
            item.original = embedded(data)

    def _for_gpu(self, entry: Entry, data: bytes, digest: str, file: UInt8Array) -> Prepared | None:
        """Put a file where the GPU decodes it; None where that is for the CPU to do."""
        hw = gpu_jpeg_hw(data) if self.options.decode == "gpu" and len(data) <= len(file) else None
        if hw is None or hw[0] * hw[1] > self._max_pixels:
            return None
        if (found := resampling(hw, self.model, self._resize)) is None:
            return None
        pixels = room_for_pixels(file, len(data), hw) if self._copies.need_images else None
        file = file[: len(data)]
        file[:] = np.frombuffer(data, np.uint8)
        item = Prepared(entry, digest, hw, None, found[1], file=file, resampling=found[0], pixels=pixels)
        self._keep_facts(item, data)
        return item

    def finish(self, item: Prepared, answer: FloatArray) -> Record:
        """Turn the engine's answer into a record, and write its copies. Raises ImageError, StorageError."""
        with self.watch.stage("nms"):
            record = self._record(item, answer)
        self._copies.write(item, record)
        return record

    def _record(self, item: Prepared, answer: FloatArray) -> Record:
        height, width = item.hw
        record = Record(
            item.entry.key,
            item.sha256,
            width,
            height,
            pages=item.pages,
            damage=item.damage,
            is_cut_off=item.is_cut_off,
            metadata=item.metadata,
        )
        if (frame := item.entry.frame) is not None:
            record = replace(record, frame=frame.number, time_s=time_s(item.entry.key))
        if self.model.task is Task.CLASSIFY:
            if self.model.multi_label:
                return replace(record, labels=labels_from(answer, self.model, self.options.min_score, self._class_ids))
            return replace(record, classes=classes_from(answer, self.model))
        detections, is_truncated = detections_from(
            answer,
            item.placement,
            self.model,
            hw=item.hw,
            min_score=self.options.min_score,
            iou=self.options.iou,
            class_ids=self._class_ids,
            is_agnostic=self.options.agnostic_nms,
            max_count=self.options.max_det,
        )
        if self.options.polygons:
            detections = tuple(map(_outlined, detections))
        return replace(record, detections=detections, is_truncated=is_truncated)


def _outlined(found: Detection) -> Detection:
    if found.mask is None:
        return found
    return replace(found, polygons=tuple(tuple(outline.ravel().tolist()) for outline in found.mask.polygons()))
