"""A place of images, from what a user named: a folder, an image, a list, a pattern, or any of these in a bucket."""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trtjob.errors import ConfigError
from trtjob.jobs.image_list import ImageList
from trtjob.storage import Storage, is_s3, open_storage
from trtjob.storage.listing import IMAGE_SUFFIXES
from trtjob.storage.patterns import MAGIC, pattern
from trtjob.storage.selection import HIDDEN, Rules, Selection
from trtjob.storage.uri import s3_uri

KINDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Place:
    """Images below a root: those that are found there, and those that were named.

    is_listed: whether what lies below it is taken; patterns: of this, only what matches one of them, all where there is
    none; keys: of images that were named.
    """

    root: str
    is_listed: bool = False
    patterns: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()


def place_of(named: Path | str | ImageList, root: str, selection: Selection) -> Place:
    """Return the place that a source is. root: the folder or address that the images of a list are below.

    Raises ConfigError where it does not exist or holds no image, and where its path is no text; StorageError for a
    bucket that cannot be listed.
    """
    if isinstance(named, ImageList):
        return _list_place(named, root)
    if is_s3(str(named)):
        return _s3_place(str(named), selection)
    path = at_home(str(named))
    if path.is_dir():
        return _folder_place(path, selection)
    if path.exists():
        image = _file(str(path.absolute()))
        return _rooted(str(image.parent), [image.name])
    if (parts := _parted(str(path))) is not None:
        return _folder_place(Path(parts[0]), selection, parts[1])
    raise ConfigError(f"no such folder or file: '{named}'")


def _parted(named: str) -> tuple[str, str] | None:
    """Return the folder above a pattern, which has no `*` or the like, and the rest; None for what is no pattern."""
    parts = named.split("/")
    first = next((number for number, part in enumerate(parts) if MAGIC.search(part)), None)
    if first is None:
        return None
    # With a slash before it, it is no name that may be anywhere.
    text = "/" + "/".join(parts[first:])
    pattern(text)
    folder = "/".join(parts[:first])
    return folder or ("/" if named.startswith("/") else "."), text


# -- buckets -----------------------------------------------------------------------------------------------------------


def _s3_place(named: str, selection: Selection) -> Place:
    if (parts := _parted(named)) is not None and not _is_there(named):
        uri = s3_uri(parts[0], "SOURCE")
        _check_images(open_storage(uri), named, selection, parts[1])
        return Place(uri, is_listed=True, patterns=frozenset({parts[1]}))
    uri = s3_uri(named, "SOURCE")
    folder, _, name = uri.rpartition("/")
    if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and folder != "s3:/":
        storage = open_storage(folder)
        if storage.entry(name).etag:
            return Place(folder, keys=frozenset({name}))
    _check_images(open_storage(uri), uri, selection)
    return Place(uri, is_listed=True)


def _is_there(named: str) -> bool:
    """Whether what looks like a pattern is an address of images by itself."""
    folder, _, name = s3_uri(named, "SOURCE").rpartition("/")
    everything = Rules(Selection(hidden=True))
    return bool(open_storage(folder).entry(name).etag) or any(True for _ in open_storage(named).images(everything))


def _s3_list(paths: tuple[str, ...], root: str) -> Place:
    wrong = next((path for path in paths if not is_s3(path)), None)
    if wrong is not None:
        raise ConfigError(f"the list has both s3:// addresses and files such as '{wrong}': make a list of each")
    uris = [s3_uri(path, "the list's line") for path in paths]
    if len(buckets := {uri.split("/")[2] for uri in uris}) > 1:
        raise ConfigError(
            f"the list names images in several buckets: {', '.join(sorted(buckets))}. Make a list of each"
        )
    root = s3_uri(root, "--root") if root else f"s3://{buckets.pop()}"
    outside = next((uri for uri in uris if not uri.startswith(f"{root}/")), None)
    if outside is not None:
        raise ConfigError(
            f"the list's image '{outside}' is not below '{root}'. Name a place with all of them as --root"
        )
    return Place(root, keys=frozenset(uri[len(root) + 1 :] for uri in uris))


def _check_images(storage: Storage, shown: Path | str, selection: Selection, *patterns: str) -> None:
    images = storage.images(Rules(selection, patterns))
    if next(iter(images), None) is not None:
        return
    seen = ", ".join(f"{count:,} {kind}" for kind, count in images.ignored.most_common(KINDS_SHOWN))
    hint = " --hidden takes hidden ones." if HIDDEN in images.ignored else ""
    suffixes = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
    where = f"matches '{shown}'" if patterns else f"in '{shown}' or below it"
    raise ConfigError(
        f"no image {where}{f', but {seen}' if seen else ''}.{hint} Files with these endings are images: {suffixes}"
    )


# -- folders and lists -------------------------------------------------------------------------------------------------


def _list_place(listed: ImageList, root: str) -> Place:
    if not listed.paths:
        raise ConfigError("the list names no image: it has one path on each line")
    if any(map(is_s3, listed.paths)):
        return _s3_list(listed.paths, root)
    folder = at_home(root).absolute() if root else listed.folder
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
    return _rooted(str(folder), filter(None, keys))


def _rooted(root: str, keys: Iterable[str]) -> Place:
    check_text(Path(root), "Rename the folder")
    return Place(root, keys=frozenset(keys))


def _listed_file(path: str, folder: Path) -> Path:
    """Return what a line means: from the root on, or, as Darknet has it, from the folder that the command runs in."""
    file = at_home(path)
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


def at_home(path: str) -> Path:
    """Return a path with `~/` read as a shell does; `~name.jpg` is a file, not a user."""
    return Path.home() / path[2:] if path.startswith("~/") else Path(path)


def check_text(folder: Path, hint: str) -> None:
    """Refuse a folder that JSON cannot name; below it, every name goes. Raises ConfigError."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"the name of the folder {str(folder)!r} is not valid UTF-8. {hint}") from err


def _folder_place(folder: Path, selection: Selection, *patterns: str) -> Place:
    root = folder.resolve()
    check_text(root, "Rename the folder")
    try:
        next(root.iterdir(), None)
    except OSError as err:
        raise ConfigError(f"cannot list the folder '{folder}': {err.strerror}") from err
    shown = folder if not patterns else f"{root}{patterns[0]}"
    _check_images(open_storage(root), shown, selection, *patterns)
    return Place(str(root), is_listed=True, patterns=frozenset(patterns))
