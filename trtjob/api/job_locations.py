"""Where a job reads and writes, found from what a user asks for."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trtjob.api.given import as_path, as_several
from trtjob.api.job_request import JobRequest, frames_of, wrong_option
from trtjob.errors import ConfigError

if TYPE_CHECKING:
    from trtjob.errors import MissingDependencyError
    from trtjob.jobs.image_list import ImageList
    from trtjob.jobs.spec import Source
    from trtjob.storage.selection import Selection

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobLocations:
    """Where a job reads and writes, checked. keys: the images of a list, empty for a folder."""

    source: "Source"
    keys: list[str]
    output: str


def find_locations(request: JobRequest) -> JobLocations:
    """Look at the source and the output; reads standard input where the source is `-`.

    Raises ConfigError, StorageError for a bucket that cannot be used.
    """
    from pydantic import ValidationError

    from trtjob.jobs.image_list import ImageList
    from trtjob.jobs.sources import check_output, source_from
    from trtjob.storage import is_s3

    for option, place in (("--model", request.model), ("--output", request.output)):
        as_path(option, place)  # None would be a folder of that name
    sources = () if request.source is None else as_several("source", request.source, "a path, or several")
    if not sources:
        raise ConfigError("no source. Name a folder, an image, a list or an s3:// prefix")
    named = [_named(str(each), str(request.column)) for each in sources]
    if request.column and not any(isinstance(each, ImageList) for each in named):
        raise ConfigError("--column is for tables that name images, and none is among the sources. Leave --column out")
    selection = _selection(request)
    try:
        source, keys = source_from(*named, root=str(request.root), selection=selection, anonymous=request.anonymous)
    except ValidationError as err:
        raise wrong_option(err) from err
    output = check_output(str(request.output), source)
    if is_s3(output):
        from trtjob.storage.s3.storage import check_access

        check_access(output, write=True)
    return JobLocations(source, keys, output)


def _named(source: str, column: str) -> "str | ImageList":
    from trtjob.jobs.image_list import ImageList, parsed_list
    from trtjob.jobs.list_files import is_list, listed_paths
    from trtjob.tilde import expand_tilde

    if not source:  # as an unset variable of a shell is; a path would be the current folder
        raise ConfigError("SOURCE is empty. Name a folder, an image, a list or a prefix of a bucket")
    if source == "-":
        return ImageList(parsed_list(sys.stdin.buffer.read()), Path.cwd())
    path = expand_tilde(source)
    return ImageList(listed_paths(path, column), path.absolute().parent) if is_list(path) else source


def _selection(request: JobRequest) -> "Selection":
    from pydantic import ValidationError

    from trtjob.storage.selection import Selection

    if request.limit is not None and request.sample is not None:
        raise ConfigError("--limit and --sample both say how many images: give one of them")
    if request.seed is not None and request.sample is None:
        raise ConfigError("--seed is for --sample: give both")
    try:
        return Selection(
            hidden=request.hidden,
            videos=frames_of(request) is not None,
            recursive=not request.no_recursive,
            include=_patterns("--include", request.include),
            exclude=_patterns("--exclude", request.exclude),
            since_s=None if request.since is None else seconds_of(request.since),
            limit=request.limit,
            sample=request.sample,
            seed=request.seed or 0,
        )
    except ValidationError as err:
        raise wrong_option(err) from err


def _patterns(option: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else as_several(option, given, "a pattern, or several")  # type: ignore[return-value]  # to be checked


def seconds_of(since: str | datetime) -> float:
    """Return `--since` in seconds since the epoch. Raises ConfigError for what is no date.

    >>> seconds_of("2026-11-01T18:30+01:00")
    1793554200.0
    """
    try:
        return (since if isinstance(since, datetime) else datetime.fromisoformat(since)).timestamp()
    except (TypeError, ValueError, OverflowError, OSError) as err:
        raise ConfigError(
            f"--since '{since}' is no date. Examples: 2026-11-01, 2026-11-01T18:30, 2026-11-01T18:30+01:00"
        ) from err


def expect_decoders(locations: JobLocations) -> None:
    """Warn of listed images of kinds that a package reads which is not installed.

    Raises MissingDependencyError where all of a job's images are such. Of a folder nobody knows yet.
    """
    keys = locations.keys
    if not keys or (missing := _missing_package(keys)) is None:
        return
    if locations.source.kind == "list" and all(_missing_package([key]) for key in keys):
        raise missing
    log.warning("some of the list's images will fail: %s", missing)


def _missing_package(keys: Sequence[str]) -> "MissingDependencyError | None":
    from trtjob.imaging.pillow_kinds import missing_package
    from trtjob.imaging.video_package import missing_video_package
    from trtjob.jobs.frames import is_video

    return missing_package(keys) or (missing_video_package() if any(map(is_video, keys)) else None)
