"""Where bytes live: a folder on a disk or a bucket, behind one protocol; web servers for images alone."""

from pathlib import Path

from trtjob.storage.local import LocalStorage, place_error
from trtjob.storage.protocol import ImageStorage, OnTrouble, Storage
from trtjob.storage.trouble import PATIENCE_S, give_up_after, note_trouble, troubles
from trtjob.storage.uri import is_address, is_bucket, is_cloud, is_s3, is_web


def open_storage(uri: str | Path, *, on_trouble: OnTrouble | None = None, anonymous: bool = False) -> Storage:
    """Open a folder or `s3://bucket/prefix`; nothing is asked of it yet.

    on_trouble: by default a place that fails for a minute is given up with a StorageError; anonymous: whether a bucket
    is read without credentials.
    Raises StorageError for a place that no credentials, region or endpoint are found for.

    >>> storage = open_storage(Path("results").absolute())
    >>> storage.make_root()
    >>> storage.create("notes/a.txt", b"first"), storage.create("notes/a.txt", b"second")
    (True, False)
    >>> storage.read("notes/a.txt")
    b'first'
    """
    if not is_s3(str(uri)):
        return LocalStorage(Path(uri))
    from trtjob.storage.s3.storage import S3Storage

    return S3Storage(str(uri), on_trouble=on_trouble or give_up_after(PATIENCE_S), anonymous=anonymous)


def open_images(
    uri: str, *, on_trouble: OnTrouble | None = None, anonymous: bool = False, allow_local: bool = False
) -> ImageStorage:
    """Open what images are read from: as `open_storage` does, or a web address, `gs://` or `az://`.

    allow_local: whether addresses may be of this machine and its network.
    """
    if is_cloud(uri):
        from trtjob.storage.cloud import CloudImages

        return CloudImages(uri, on_trouble=on_trouble or give_up_after(PATIENCE_S), anonymous=anonymous)
    if not is_web(uri):
        return open_storage(uri, on_trouble=on_trouble, anonymous=anonymous)
    from trtjob.storage.http import HttpStorage

    return HttpStorage(uri, on_trouble=on_trouble or give_up_after(PATIENCE_S), allow_local=allow_local)


__all__ = [
    "ImageStorage",
    "LocalStorage",
    "OnTrouble",
    "Storage",
    "give_up_after",
    "is_address",
    "is_bucket",
    "is_s3",
    "note_trouble",
    "open_images",
    "open_storage",
    "place_error",
    "troubles",
]
