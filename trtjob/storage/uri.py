"""Where bytes lie, in one text: an absolute path, `s3://bucket/prefix`, or a web address."""

import re
from typing import Annotated

from pydantic import AfterValidator

from trtjob.errors import ConfigError
from trtjob.web_address import parsed_address, quoted

S3_SCHEME = "s3://"
S3_EXAMPLE = "s3://bucket/photos"
WEB_SCHEMES = ("http://", "https://")
WEB_EXAMPLE = "https://host/photos/a.jpg"
MOST_URI_CHARACTERS = 4096


def _check_uri(value: str) -> str:
    is_bucket = value.startswith("s3://")
    parts = value.removeprefix("s3:/").split("/")
    if not value.startswith(("/", "s3://")) or (is_bucket and not parts[1]):
        raise ValueError("expected an absolute path or s3://bucket/prefix")
    if {".", ".."} & set(parts) or "\0" in value or len(value) > MOST_URI_CHARACTERS:
        raise ValueError("expected a place without `.`, `..` and zero bytes, of at most 4,096 characters")
    return value


def _check_source_uri(value: str) -> str:
    if not value.startswith(WEB_SCHEMES):
        return _check_uri(value)
    parsed_address(quoted(value))
    if {"", ".", ".."} & set(value.split("/")[2:]) or re.search(r"[?#]", value) or len(value) > MOST_URI_CHARACTERS:
        raise ValueError("expected a web address without empty parts, `.`, `..`, `?` and `#`")
    return value


# An absolute path or `s3://bucket/prefix`, with no way up in it.
StorageUri = Annotated[str, AfterValidator(_check_uri)]
# The same, or the beginning of web addresses.
SourceUri = Annotated[str, AfterValidator(_check_source_uri)]


def is_s3(uri: str) -> bool:
    """Return whether a source or an output is in a bucket and not in a folder."""
    return uri.lower().startswith(S3_SCHEME)


def is_web(uri: str) -> bool:
    """Return whether a source is at a web address."""
    return uri.lower().startswith(WEB_SCHEMES)


def is_address(uri: str) -> bool:
    """Return whether a source is elsewhere, and not a folder."""
    return is_s3(uri) or is_web(uri)


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
