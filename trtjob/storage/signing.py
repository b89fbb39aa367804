"""Addresses at which anyone gets an object of a bucket for some time, without credentials."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from trtjob.storage.trouble import PATIENCE_S, give_up_after
from trtjob.storage.uri import is_s3


def signer(root: str, lifetime: timedelta, *, anonymous: bool = False) -> Callable[[str], str | None]:
    """Return what gives an object's address, by its key below a bucket's prefix; None for a key that can have none.

    No request is made: whether the object is there shows when it is asked for. Where the bucket is read without
    credentials the address is the public one, which lasts. Raises StorageError where no credentials are found; what it
    returns raises that where those that are there cannot sign.
    """
    on_trouble = give_up_after(PATIENCE_S)
    if is_s3(root):
        from trtjob.storage.s3.storage import S3Storage

        return partial(S3Storage(root, on_trouble=on_trouble, anonymous=anonymous).address, lifetime=lifetime)
    from trtjob.storage.cloud import CloudImages

    return partial(CloudImages(root, on_trouble=on_trouble, anonymous=anonymous).address, lifetime=lifetime)
