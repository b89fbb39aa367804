"""Where bytes lie, in one text: an absolute path, a bucket's `s3://bucket/prefix` or the like, or a web address."""

import re
from typing import Annotated

from pydantic import AfterValidator

from trtjob.errors import ConfigError
from trtjob.web_address import parsed_address, quoted

S3_SCHEME = "s3://"
# Read, and never written: Google's store, and Azure's containers.
CLOUD_SCHEMES = ("gs://", "az://")
S3_EXAMPLE = "s3://bucket/photos"
WEB_SCHEMES = ("http://", "https://")
WEB_EXAMPLE = "https://host/photos/a.jpg"
MOST_URI_CHARACTERS = 4096


def _check_uri(value: str) -> str:
    return _checked(value, (S3_SCHEME,))


def _checked(value: str, schemes: tuple[str, ...]) -> str:
    is_bucket = value.startswith(schemes)
    parts = value[4:].split("/") if is_bucket else value.split("/")
    if not (is_bucket or value.startswith("/")) or (is_bucket and not parts[1]):
        raise ValueError(f"expected an absolute path or {S3_SCHEME}bucket/prefix")
    if {".", ".."} & set(parts) or "\0" in value or len(value) > MOST_URI_CHARACTERS:
        raise ValueError("expected a place without `.`, `..` and zero bytes, of at most 4,096 characters")
    return value


def _check_source_uri(value: str) -> str:
    if not value.startswith(WEB_SCHEMES):
        return _checked(value, (S3_SCHEME, *CLOUD_SCHEMES))
    parsed_address(quoted(value))
    if {"", ".", ".."} & set(value.split("/")[2:]) or re.search(r"[?#]", value) or len(value) > MOST_URI_CHARACTERS:
        raise ValueError("expected a web address without empty parts, `.`, `..`, `?` and `#`")
    return value


# An absolute path or `s3://bucket/prefix`, with no way up in it.
StorageUri = Annotated[str, AfterValidator(_check_uri)]
# The same, a bucket of a store that is only read, or the beginning of web addresses.
SourceUri = Annotated[str, AfterValidator(_check_source_uri)]


def is_s3(uri: str) -> bool:
    """Return whether a source or an output is in a bucket of an S3-compatible store."""
    return uri.lower().startswith(S3_SCHEME)


def is_cloud(uri: str) -> bool:
    """Return whether a source is in a bucket that is only read, of Google's or Azure's store."""
    return uri.lower().startswith(CLOUD_SCHEMES)


def is_bucket(uri: str) -> bool:
    """Return whether a source is in a bucket, of whatever store."""
    return is_s3(uri) or is_cloud(uri)


def is_web(uri: str) -> bool:
    """Return whether a source is at a web address."""
    return uri.lower().startswith(WEB_SCHEMES)


def is_address(uri: str) -> bool:
    """Return whether a source is elsewhere, and not a folder."""
    return is_bucket(uri) or is_web(uri)


def web_parts(url: str, what: str) -> tuple[str, str]:
    """Return an address's server and the rest, path and query. Raises ConfigError for what is no address of a file.

    >>> web_parts("HTTPS://Host:8080/a/b.jpg?x=1#top", "SOURCE")
    ('https://host:8080', 'a/b.jpg?x=1')
    """
    scheme, _, rest = url.partition("#")[0].partition("://")
    server, _, path = rest.partition("/")
    server = f"{scheme}://{server}".lower()
    why = "it has an empty part, `.` or `..` in it; in a query, write / as %2F" if path else "it names no file"
    try:
        parsed_address(quoted(f"{server}/{path}"))
        if not {"", ".", ".."} & set(path.split("/")):
            return server, path
    except ValueError as err:
        why = str(err)
    raise ConfigError(f"{what} '{url}': {why}. Example: {WEB_EXAMPLE}")


def bucket_uri(uri: str, what: str) -> str:
    """Return `s3://bucket/prefix` without a slash at its end. Raises ConfigError for what is no such address.

    >>> bucket_uri("s3://photos/2026/", "SOURCE")
    's3://photos/2026'
    >>> bucket_uri("s3://", "SOURCE")
    Traceback (most recent call last):
    trtjob.errors.ConfigError: SOURCE 's3://' names no bucket. Example: s3://bucket/photos
    """
    scheme, _, path = uri.partition("://")
    bucket, *parts = path.rstrip("/").split("/")
    if not bucket:
        raise ConfigError(f"{what} '{uri}' names no bucket. Example: {S3_EXAMPLE}")
    if any(part in ("", ".", "..") for part in parts) or "\0" in uri:
        raise ConfigError(f"{what} '{uri}' has an empty part, `.` or `..` in it. Example: {S3_EXAMPLE}")
    return "/".join([f"{scheme.lower()}:/", bucket, *parts])
