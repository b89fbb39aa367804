"""Where bytes lie, in one text: an absolute path, or `s3://bucket/prefix`."""

from typing import Annotated

from pydantic import AfterValidator

from trtjob.errors import ConfigError

S3_SCHEME = "s3://"
S3_EXAMPLE = "s3://bucket/photos"
MOST_URI_CHARACTERS = 4096


def _check_uri(value: str) -> str:
    is_bucket = value.startswith("s3://")
    parts = value.removeprefix("s3:/").split("/")
    if not value.startswith(("/", "s3://")) or (is_bucket and not parts[1]):
        raise ValueError("expected an absolute path or s3://bucket/prefix")
    if {".", ".."} & set(parts) or "\0" in value or len(value) > MOST_URI_CHARACTERS:
        raise ValueError("expected a place without `.`, `..` and zero bytes, of at most 4,096 characters")
    return value


# An absolute path or `s3://bucket/prefix`, with no way up in it.
StorageUri = Annotated[str, AfterValidator(_check_uri)]


def is_s3(uri: str) -> bool:
    """Return whether a source or an output is in a bucket and not in a folder."""
    return uri.lower().startswith(S3_SCHEME)


def s3_uri(uri: str, what: str) -> str:
    """Return `s3://bucket/prefix` without a slash at its end. Raises ConfigError for what is no such address.

    >>> s3_uri("s3://photos/2026/", "SOURCE")
    's3://photos/2026'
    >>> s3_uri("s3://", "SOURCE")
    Traceback (most recent call last):
    trtjob.errors.ConfigError: SOURCE 's3://' names no bucket. Example: s3://bucket/photos
    """
    bucket, *parts = uri[len("s3://") :].rstrip("/").split("/")
    if not bucket:
        raise ConfigError(f"{what} '{uri}' names no bucket. Example: {S3_EXAMPLE}")
    if any(part in ("", ".", "..") for part in parts) or "\0" in uri:
        raise ConfigError(f"{what} '{uri}' has an empty part, `.` or `..` in it. Example: {S3_EXAMPLE}")
    return "/".join(["s3:/", bucket, *parts])
