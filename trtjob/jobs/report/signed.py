"""Addresses of a job's originals in buckets, at which whoever has the page sees them for some time."""

from collections.abc import Callable
from datetime import timedelta

from trtjob.errors import ConfigError
from trtjob.jobs.pages import file_key
from trtjob.jobs.spec import JobSpec
from trtjob.storage.signing import signer
from trtjob.storage.uri import is_bucket


def signed_originals(spec: JobSpec, lifetime: timedelta) -> Callable[[str], str | None]:
    """Return what gives an image's address, by its name; None where that is in no bucket, or has a key like no other.

    Raises ConfigError where no image is in a bucket, StorageError where there are no credentials for one.
    """
    signers = {
        part.name: signer(part.root, lifetime, anonymous=spec.source.anonymous)
        for part in spec.source.all_parts
        if is_bucket(part.root)
    }
    if not signers:
        raise ConfigError(f"--sign: the images of job '{spec.job_id}' are in no bucket. Leave it out")

    def address(image: str) -> str | None:
        found = spec.source.part_of(file_key(image, spec.options))
        if found is None or found[0].name not in signers:
            return None
        part, key = found
        return signers[part.name](key)

    return address
