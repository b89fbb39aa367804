"""Where a job reads and writes, from what a user named: a folder, an image, a list, or any of these in a bucket."""

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from trtjob.errors import ConfigError
from trtjob.jobs.listing import IMAGE_SUFFIXES
from trtjob.jobs.models import Source
from trtjob.jobs.storage import Storage, is_s3, open_storage

S3_EXAMPLE = "s3://bucket/photos"


def source_from(named: Path | str | Iterable[str]) -> tuple[Source, list[str]]:
    """Return the source for a folder, an image, an `s3://` address or the lines of a list, and the keys, sorted.

    The keys are those of an image or a list; a folder has none. Two lines that name the same image in two ways are one.
    Raises ConfigError where a source does not exist or holds no image, and where its path is no text; StorageError for
    a bucket that cannot be listed.
    """
    if isinstance(named, str):
        return _s3_source(s3_uri(named, "SOURCE"))
    if isinstance(named, Path):
        if named.is_dir():
            return _folder_source(named), []
        if not named.exists():
            raise ConfigError(f"no such folder or file: '{named}'")
        named = [str(named)]
    return _list_source(list(filter(str.strip, named)))


def check_output(output: str, source: Source) -> str:
    """Return the output's absolute folder or `s3://` address.

    Raises ConfigError where it lies in the source or cannot be a folder.
    """
    if is_s3(output):
        address = s3_uri(output, "--output")
    else:
        folder = _at_home(output).resolve()
        _check_text(folder, "Choose another with --output")
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"the output '{output}' is a file, not a folder. Choose another with --output")
        address = str(folder)
    if source.kind == "folder" and f"{address}/".startswith(f"{source.root.rstrip('/')}/"):
        raise ConfigError(
            f"the output '{output}' lies in the source '{source.root}', so outputs would become inputs. "
            "Choose a place outside it with --output"
        )
    return address


def s3_uri(uri: str, what: str) -> str:
    """Return `s3://bucket/prefix` without a slash at its end. Raises ConfigError for what is no such address."""
    bucket, *parts = uri[len("s3://") :].rstrip("/").split("/")
    if not bucket:
        raise ConfigError(f"{what} '{uri}' names no bucket. Example: {S3_EXAMPLE}")
    if any(part in ("", ".", "..") for part in parts) or "\0" in uri:
        raise ConfigError(f"{what} '{uri}' has an empty part, `.` or `..` in it. Example: {S3_EXAMPLE}")
    return "/".join(["s3:/", bucket, *parts])


# -- buckets -----------------------------------------------------------------------------------------------------------


def _s3_source(uri: str) -> tuple[Source, list[str]]:
    folder, _, name = uri.rpartition("/")
    if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and folder != "s3:/":
        storage = open_storage(folder)
        if storage.entry(name).etag:
            return Source(kind="list", root=folder), [name]
    _check_images(open_storage(uri), uri)
    return Source(kind="folder", root=uri), []


def _s3_list(lines: list[str]) -> tuple[Source, list[str]]:
    wrong = next((line for line in lines if not is_s3(line)), None)
    if wrong is not None:
        raise ConfigError(f"the list has both s3:// addresses and files such as '{wrong}': make a job of each")
    uris = [s3_uri(line.strip(), "the list's line") for line in lines]
    if len(buckets := {uri.split("/")[2] for uri in uris}) > 1:
        raise ConfigError(f"the list names images in several buckets: {', '.join(sorted(buckets))}. Make a job of each")
    return _under_one_root([uri.split("/") for uri in uris], "/".join)


def _check_images(storage: Storage, shown: Path | str) -> None:
    if next(iter(storage.images()), None) is None:
        suffixes = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
        raise ConfigError(f"no image in '{shown}' or below it. Files with these endings are images: {suffixes}")


# -- folders and lists -------------------------------------------------------------------------------------------------


def _list_source(lines: list[str]) -> tuple[Source, list[str]]:
    if not lines:
        raise ConfigError("the list names no image: it has one path on each line")
    if any(map(is_s3, lines)):
        return _s3_list(lines)
    source, keys = _under_one_root([list(_file(line).parts) for line in lines], lambda parts: str(Path(*parts)))
    _check_text(Path(source.root), "Rename the folder")
    return source, keys


def _under_one_root(files: list[list[str]], join: Callable[[list[str]], str]) -> tuple[Source, list[str]]:
    """Return the deepest folder that all files are in, given by their parts, and what they are called below it."""
    parents = [file[:-1] for file in files]
    depth = next((i for i, level in enumerate(zip(*parents, strict=False)) if len(set(level)) > 1), None)
    root = parents[0][: min(map(len, parents)) if depth is None else depth]
    return Source(kind="list", root=join(root)), sorted({"/".join(file[len(root) :]) for file in files})


def _file(line: str) -> Path:
    """Return the absolute path that a line of a list names, without `..`."""
    if "\0" in line:
        raise ConfigError(f"the list has a zero byte in {line[:80]!r}: it has one path on each line (find -print)")
    # absolute(), not resolve(): a link to an image keeps the name under which the user knows it.
    path = _at_home(line).absolute()
    return path.parent.resolve() / path.name if ".." in path.parts else path


def _at_home(path: str) -> Path:
    """Read `~/` as a shell does; `~name.jpg` is a file, not a user."""
    return Path.home() / path[2:] if path.startswith("~/") else Path(path)


def _check_text(folder: Path, hint: str) -> None:
    """Refuse a folder that JSON cannot name; below it, every name goes."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"the name of the folder {str(folder)!r} is not valid UTF-8. {hint}") from err


def _folder_source(folder: Path) -> Source:
    root = folder.resolve()
    _check_text(root, "Rename the folder")
    try:
        next(root.iterdir(), None)
    except OSError as err:
        raise ConfigError(f"cannot list the folder '{folder}': {err.strerror}") from err
    _check_images(open_storage(root), folder)
    return Source(kind="folder", root=str(root))
