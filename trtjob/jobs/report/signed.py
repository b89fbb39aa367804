"""Addresses of a job's originals in buckets, at which whoever has the page sees them for some time."""

from collections.abc import Callable
from datetime import timedelta

from trtjob.errors import ConfigError
from trtjob.jobs.frames import video_key
from trtjob.jobs.pages import file_and_page
from trtjob.jobs.spec import JobSpec
from trtjob.storage.signing import signer
from trtjob.storage.uri import is_bucket


def signed_originals(spec: JobSpec, lifetime: timedelta) -> Callable[[str], str | None]:
    """Return what gives an image's address, by its name; None where that is in no bucket, or has a key like no other.

    Raises ConfigError where no image is in a bucket, StorageError where there are no credentials for one.
    """
    parts = spec.source.all_parts
    signers = {
        part.name: signer(part.root, lifetime, anonymous=spec.source.anonymous)
        for part in parts
        if is_bucket(part.root)
    }
    if not signers:
        raise ConfigError(f"--sign: the images of job '{spec.job_id}' are in no bucket. Leave it out")

    def address(image: str) -> str | None:
        file = _file_of(spec, image)
        name = next((part.name for part in parts if file.startswith(f"{part.name}/")), "")
        key = file.removeprefix(f"{name}/") if name else file
        return signers[name](key) if name in signers else None

    return address


def _file_of(spec: JobSpec, image: str) -> str:
    if spec.options.frames is not None and "#t=" in image:
        return video_key(image)
    return file_and_page(image)[0] if spec.options.pages == "all" else image
