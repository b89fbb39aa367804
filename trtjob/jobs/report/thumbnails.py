"""Which images of a job have a thumbnail by now."""

from trtjob.documents import Document
from trtjob.jobs.folder import THUMBNAILS, JobFolder
from trtjob.jobs.spec import Annotate, JobSpec, ThumbnailPx

CHOICE = f"{THUMBNAILS}/choice.json"  # no thumbnail's name: those end in .jpg


class ThumbnailChoice(Document):
    """Which images have a thumbnail, where that is no longer what the job was given."""

    which: Annotate
    px: ThumbnailPx = 320


def has_thumbnails(folder: JobFolder, spec: JobSpec) -> bool:
    """Whether a page may ask for thumbnails. Raises StorageError."""
    try:
        choice = folder.document(ThumbnailChoice, CHOICE, remedy="Remove it")
    except FileNotFoundError:
        return spec.options.with_thumbnails is not Annotate.NONE
    return choice.which is not Annotate.NONE
