"""Thumbnails of a job that has ended, made of its images again, and of nothing else."""

from dataclasses import dataclass

from trtjob.errors import ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.thumbnail import thumbnail
from trtjob.jobs.folder import RESULTS, JobFolder, thumbnail_key
from trtjob.jobs.pages import planned_page
from trtjob.jobs.records import Record, read_records
from trtjob.jobs.report.thumbnails import CHOICE, ThumbnailChoice
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import JobSpec
from trtjob.storage.listing import Entry
from trtjob.storage.prefetch import prefetch_map


@dataclass(slots=True)
class Made:
    """How many were made. made: thumbnails; left: images of which none could be made, and frames of videos, which keep
    what they have."""

    made: int = 0
    left: int = 0


def make_thumbnails(
    folder: JobFolder, spec: JobSpec, choice: ThumbnailChoice, *, max_pixels: int, allow_local: bool = False
) -> Made:
    """Make the thumbnails of a job anew from its source. max_pixels, allow_local: as in the settings.

    Raises FileNotFoundError where the job has no results yet, StorageError where a place cannot be read or written.
    """
    source = open_source(spec.source, allow_local=allow_local)

    def make(record: Record) -> bool:
        file, page = planned_page(record.image, spec.options)
        try:
            data = source.fetch(Entry(file, 0, ""))
            image = decode_image(
                data, max_pixels=max_pixels, on_damage=lambda _: None, depth=spec.options.depth, page=page
            )
            folder.storage.put(thumbnail_key(record.image), thumbnail(image, choice.px))
        except (ImageError, OSError):
            return False
        return True

    wanted = (
        record
        for record in read_records(folder.storage, RESULTS)
        if record.error is None and choice.which.takes(is_hit=bool(record.counting(spec.options.conf)))
    )
    counts = Made()
    for is_made in prefetch_map(lambda record: record.frame is None and make(record), wanted):
        counts.made += is_made
        counts.left += not is_made
    folder.storage.write(CHOICE, choice.model_dump_json().encode() + b"\n")
    return counts
