"""Where a job reads and writes, from what a user named: a folder, an image, a list, or any of these in a bucket."""

import os
import shlex
from pathlib import Path, PurePosixPath

from trtjob.errors import ConfigError
from trtjob.jobs.image_list import ImageList
from trtjob.jobs.spec import Source
from trtjob.storage import Storage, is_s3, open_storage
from trtjob.storage.listing import IMAGE_SUFFIXES
from trtjob.storage.selection import HIDDEN, Rules, Selection
from trtjob.storage.uri import s3_uri

ALL = Selection()
KINDS_SHOWN = 10


def source_from(named: Path | str | ImageList, root: str = "", selection: Selection = ALL) -> tuple[Source, list[str]]:
    """Return the source for a folder, an image, an `s3://` address or a list, and the keys, sorted.

    The keys are those of an image or a list; a folder has none. Two lines that name the same image in two ways are one.
    root: the folder or address below which a list's images are, and get their names; empty: the list's own folder, or
    the bucket. So what an image is called does not depend on what else is listed. selection: which images.
    Raises ConfigError where a source does not exist or holds no image, and where its path is no text; StorageError for
    a bucket that cannot be listed.

    >>> folder = Path("photos")
    >>> folder.mkdir()
    >>> _ = (folder / "a.jpg").write_bytes(b"...")
    >>> source_from(folder)
    (Source(kind='folder', root='/.../photos', selection=...), [])
    """
    source, keys = _source(named, root, selection)
    return source.model_copy(update={"selection": selection}), keys


def _source(named: Path | str | ImageList, root: str, selection: Selection) -> tuple[Source, list[str]]:
    if isinstance(named, ImageList):
        return _list_source(named, root)
    if root:
        raise ConfigError(f"--root is for lists of images, but the source is '{named}'. Leave --root out")
    if isinstance(named, str):
        return _s3_source(s3_uri(named, "SOURCE"), selection)
    if named.is_dir():
        return _folder_source(named, selection), []
    if not named.exists():
        raise ConfigError(f"no such folder or file: '{named}'")
    image = _file(str(named.absolute()))
    return _rooted(str(image.parent), {image.name})


def check_output(output: str, source: Source) -> str:
    """Return the output's absolute folder or `s3://` address.

    Raises ConfigError where it lies in the source or cannot be a folder.
    """
    if not output:  # as an unset variable of a shell is; a path would be the current folder
        raise ConfigError("--output is empty. Name a folder or an s3:// prefix, or leave it out")
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


# -- buckets -----------------------------------------------------------------------------------------------------------


def _s3_source(uri: str, selection: Selection) -> tuple[Source, list[str]]:
    folder, _, name = uri.rpartition("/")
    if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and folder != "s3:/":
        storage = open_storage(folder)
        if storage.entry(name).etag:
            return Source(kind="list", root=folder), [name]
    _check_images(open_storage(uri), uri, selection)
    return Source(kind="folder", root=uri), []


def _s3_list(paths: tuple[str, ...], root: str) -> tuple[Source, list[str]]:
    wrong = next((path for path in paths if not is_s3(path)), None)
    if wrong is not None:
        raise ConfigError(f"the list has both s3:// addresses and files such as '{wrong}': make a job of each")
    uris = [s3_uri(path, "the list's line") for path in paths]
    if len(buckets := {uri.split("/")[2] for uri in uris}) > 1:
        raise ConfigError(f"the list names images in several buckets: {', '.join(sorted(buckets))}. Make a job of each")
    root = s3_uri(root, "--root") if root else f"s3://{buckets.pop()}"
    outside = next((uri for uri in uris if not uri.startswith(f"{root}/")), None)
    if outside is not None:
        raise ConfigError(
            f"the list's image '{outside}' is not below '{root}'. Name a place with all of them as --root"
        )
    return Source(kind="list", root=root), sorted({uri[len(root) + 1 :] for uri in uris})


def _check_images(storage: Storage, shown: Path | str, selection: Selection) -> None:
    images = storage.images(Rules(selection))
    if next(iter(images), None) is not None:
        return
    seen = ", ".join(f"{count:,} {kind}" for kind, count in images.ignored.most_common(KINDS_SHOWN))
    hint = " --hidden takes hidden ones." if HIDDEN in images.ignored else ""
    suffixes = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
    raise ConfigError(
        f"no image in '{shown}' or below it{f', but {seen}' if seen else ''}.{hint} Files with these endings are "
        f"images: {suffixes}"
    )


# -- folders and lists -------------------------------------------------------------------------------------------------


def _list_source(listed: ImageList, root: str) -> tuple[Source, list[str]]:
    if not listed.paths:
        raise ConfigError("the list names no image: it has one path on each line")
    if any(map(is_s3, listed.paths)):
        return _s3_list(listed.paths, root)
    folder = _at_home(root).absolute() if root else listed.folder
    if not folder.is_dir():
        raise ConfigError(f"--root '{root}': there is no such folder")
    files = [_listed_file(path, folder) for path in listed.paths]
    keys = [_key(file, folder) for file in files]
    if None in keys:
        common = os.path.commonpath([file.parent for file in files])
        raise ConfigError(
            f"the list's image '{files[keys.index(None)]}' is not below '{folder}', as the names of images in results "
            f"are. Name a folder that has all of them: --root {shlex.quote(common)}"
        )
    return _rooted(str(folder), set(filter(None, keys)))


def _rooted(root: str, keys: set[str]) -> tuple[Source, list[str]]:
    _check_text(Path(root), "Rename the folder")
    return Source(kind="list", root=root), sorted(keys)


def _listed_file(path: str, folder: Path) -> Path:
    """Return what a line means: from the root on, or, as Darknet has it, from the folder that the command runs in."""
    file = _at_home(path)
    if not file.is_absolute() and not (folder / file).exists() and file.exists():
        return _file(str(file.absolute()))
    return _file(str(folder / file))


def _key(file: Path, folder: Path) -> str | None:
    """Return what a file is called below a folder, links to either followed; None where it is not below it."""
    for name, root in ((file, folder), (file.parent.resolve() / file.name, folder.resolve())):
        if name != root and name.is_relative_to(root):
            return name.relative_to(root).as_posix()
    return None


def _file(line: str) -> Path:
    """Return an absolute path without `..`."""
    if "\0" in line:
        raise ConfigError(f"the list has a zero byte in {line[:80]!r}: it has one path on each line (find -print)")
    # Not resolve(): a link to an image keeps the name under which the user knows it.
    path = Path(line)
    if path.name == "..":
        return path.resolve()
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


def _folder_source(folder: Path, selection: Selection) -> Source:
    root = folder.resolve()
    _check_text(root, "Rename the folder")
    try:
        next(root.iterdir(), None)
    except OSError as err:
        raise ConfigError(f"cannot list the folder '{folder}': {err.strerror}") from err
    _check_images(open_storage(root), folder, selection)
    return Source(kind="folder", root=str(root))
