"""What is made of an image that was looked at: its annotated copy, and its thumbnail."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError, TrtjobError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.draw import Skeleton
from trtjob.imaging.embedded import NOTHING, Embedded
from trtjob.imaging.encode import encode_image
from trtjob.imaging.metadata import Metadata
from trtjob.imaging.resampling import Resampling
from trtjob.imaging.resize import Placement
from trtjob.imaging.thumbnail import thumbnail, thumbnail_of_jpeg
from trtjob.jobs.folder import annotated_key, thumbnail_key
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Annotate, Options
from trtjob.storage import Storage
from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.failures import write_failure
from trtjob.worker.pipeline.stopwatch import Watch
from trtjob.worker.record_drawing import RecordDrawing


@dataclass(slots=True)
class Prepared:
    """An image on its way through the engine.

    sha256: of the file, None for a frame of a video, which is not read whole;
    image: BGR, None where no annotated copy is wanted; file: what the GPU is to decode, None where the image is
    resized; resampling: how; pixels: RGB, where the GPU leaves them for the annotated copy, None where it does not;
    thumbnail: empty where none is wanted;
    to_store: keys and bytes of what is made of the image, where it is still to be stored in a bucket;
    original: what an annotated copy gets beside its pixels; pages, damage, is_cut_off, metadata: as the record has
    them.
    """

    entry: Entry
    sha256: str | None
    hw: tuple[int, int]
    image: UInt8Array | None
    placement: Placement
    thumbnail: bytes = b""
    to_store: list[tuple[str, bytes]] = field(default_factory=list)
    file: UInt8Array | None = None
    resampling: Resampling | None = None
    pixels: UInt8Array | None = None
    pages: int | None = None
    damage: str | None = None
    is_cut_off: bool = False
    metadata: Metadata | None = None
    original: Embedded = NOTHING


class Copies:
    """The annotated copies and thumbnails of one job."""

    def __init__(
        self,
        options: Options,
        skeleton: Skeleton,
        output: Storage,
        watch: Watch,
        *,
        max_pixels: int,
        jpeg_quality: int,
    ) -> None:
        self._options = options
        self._output = output
        self._watch = watch
        self._max_pixels = max_pixels
        self._jpeg_quality = jpeg_quality
        self._drawing = RecordDrawing(options, skeleton)

    @property
    def need_images(self) -> bool:
        """Whether an image is kept until it is drawn on."""
        return self._options.annotate is not Annotate.NONE

    @property
    def need_pixels(self) -> bool:
        """Whether anything is made of an image."""
        return self.need_images or self._options.with_thumbnails is not Annotate.NONE

    def thumbnail(self, image: UInt8Array) -> bytes:
        """Return an image's thumbnail, empty where there will be none, whatever is found."""
        if self._options.with_thumbnails is Annotate.NONE:
            return b""
        with self._watch.stage("thumbnail"):
            return thumbnail(image, self._options.thumbnail_px)

    def write(self, item: Prepared, record: Record) -> None:
        """Write what is wanted of an image. Raises ImageError, StorageError."""
        image, item.image = item.image, None
        is_hit = bool(record.counting(self._options.conf))
        if self._options.annotate.takes(is_hit=is_hit):
            if image is None:
                image = self._decoded_late(item)
            self._write_annotated(item, image, record)
        if self._options.with_thumbnails.takes(is_hit=is_hit) and (
            data := item.thumbnail or self._late_thumbnail(item)
        ):
            self._write(item, thumbnail_key(item.entry.key), data)

    def _decoded_late(self, item: Prepared) -> UInt8Array:
        """Return an image that the GPU has decoded, BGR: its pixels, or decoded once more where they found no room."""
        with self._watch.stage("decode"):
            if item.pixels is not None:
                image = np.asarray(cv2.cvtColor(item.pixels, cv2.COLOR_RGB2BGR), np.uint8)
            else:
                assert item.file is not None
                image = decode_image(item.file.tobytes(), max_pixels=self._max_pixels)
        item.thumbnail = self.thumbnail(image)
        return image

    def _late_thumbnail(self, item: Prepared) -> bytes:
        assert item.file is not None
        with self._watch.stage("thumbnail"):
            return thumbnail_of_jpeg(item.file, item.hw, self._options.thumbnail_px)

    def _write_annotated(self, item: Prepared, image: UInt8Array, record: Record) -> None:
        with self._watch.stage("draw"):
            drawn = self._drawn(image, record)
        key = annotated_key(item.entry.key)
        with self._watch.stage("encode"):
            data = encode_image(drawn, Path(key).suffix, jpeg_quality=self._jpeg_quality, original=item.original)
        self._write(item, key, data)

    def _drawn(self, image: UInt8Array, record: Record) -> UInt8Array:
        try:
            return self._drawing.draw(image, record)
        except TrtjobError:
            raise
        except Exception as err:  # one picture that cannot be drawn on must not end the shard
            raise ImageError(FailureKind.DRAW, f"cannot draw on the image: {err}") from err

    def _write(self, item: Prepared, key: str, data: bytes) -> None:
        if self._output.is_remote:
            item.to_store.append((key, data))
            return
        with self._watch.stage("write"):
            try:
                self._output.put(key, data)
            except OSError as err:
                raise write_failure(err, key) from err
