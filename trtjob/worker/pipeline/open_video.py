"""The video that an image process has open: neighbouring frames are decoded one after another, and not each anew."""

from collections.abc import Callable

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.video import DECODING_BYTES, Picture, VideoReader
from trtjob.imaging.video_times import frame_times
from trtjob.jobs.pages import file_of
from trtjob.storage.listing import Entry
from trtjob.storage.protocol import ImageStorage


class OpenVideo:
    """One video of a source at a time, opened when a frame of it is wanted, until one of another is."""

    def __init__(self, source: ImageStorage, *, max_pixels: int, on_gpu: bool, on_step: Callable[[], None]) -> None:
        """max_pixels, on_gpu, on_step: as of `VideoReader`."""
        self._source = source
        self._on_gpu = on_gpu
        self._max_pixels = max_pixels
        self._on_step = on_step
        self._open: tuple[Entry, int] | None = None
        self._reader: VideoReader | None = None

    def decoding_bytes(self, entry: Entry) -> int:
        """Return what it takes to decode a frame. Raises ImageError, also for a video of which no frame was planned."""
        if entry.frame is None:
            self._refuse(entry)
        return self._reader_of(entry).pixels * DECODING_BYTES

    def picture(self, entry: Entry) -> tuple[Picture, str | None]:
        """Return a frame, and what is wrong with it. Raises ImageError."""
        reader, frame = self._reader_of(entry), entry.frame
        assert frame is not None
        return reader.picture(frame.pts, start_pts=frame.start, seek=frame.seek)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._open = self._reader = None

    def _reader_of(self, entry: Entry) -> VideoReader:
        video, frame = file_of(entry), entry.frame
        assert frame is not None
        if self._reader is None or (video, frame.begin) != self._open:
            self.close()
            self._reader = VideoReader(
                self._source.open(video),
                max_pixels=self._max_pixels,
                begin=frame.begin,
                stop=frame.stop,
                on_gpu=self._on_gpu,
                on_step=self._on_step,
            )
            self._open = video, frame.begin
        return self._reader

    def _refuse(self, entry: Entry) -> None:
        with self._source.open(entry) as file:
            frame_times(file, self._on_step)
        why = "its frames were not seen when the job was planned: the same command plans them"
        raise ImageError(FailureKind.READ, why)
