"""Places of images, from what a user named: a folder, an image, a list, a pattern, a bucket, a web address."""

import errno
import os
import re
import shlex
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

from trtjob.errors import ConfigError
from trtjob.jobs.image_list import ImageList
from trtjob.jobs.list_files import LIST_SUFFIXES
from trtjob.storage import ImageStorage, is_address, is_bucket, open_images
from trtjob.storage.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from trtjob.storage.patterns import MAGIC, pattern
from trtjob.storage.selection import HIDDEN, Rules, Selection
from trtjob.storage.uri import bucket_uri, is_web, web_parts
from trtjob.tilde import expand_tilde

KINDS_SHOWN = 10
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})

_READ = (
    "Sources are folders, files, lists, s3://, gs:// and az:// prefixes, and http:// and https:// addresses of images"
)
_VIDEOS = "What reads videos is brought by: pip install 'trtjob[video]'"
_AS_AZ = ": write az://CONTAINER/PATH, and set AZURE_STORAGE_ACCOUNT_NAME"
_BY_S3 = ": its own S3 interface is, with AWS_ENDPOINT_URL"
_HINTS = {
    "oss": _BY_S3,
    "cos": _BY_S3,
    "abfs": _AS_AZ,
    "abfss": _AS_AZ,
    "wasbs": _AS_AZ,
    "ftp": ": copy the images to a folder first (wget -r)",
    "sftp": ": copy the images to a folder first (rsync)",
    "rtsp": ": save frames to a folder first (ffmpeg)",
    "hf": ": copy the images to a folder first (hf download)",
}
_NO_IMAGES = {
    "a video of a kind that is not read. Save its frames first: ffmpeg -i VIDEO frames/%06d.jpg": frozenset(
        {".mpg", ".mpeg", ".wmv", ".flv", ".m2ts", ".3gp"}
    ),
    "an archive. Unpack it first, and name the folder": frozenset(
        {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
    ),
    "a document. Save its pages as images first: pdftoppm -jpeg DOCUMENT page": frozenset({".pdf", ".ps", ".djvu"}),
}
# Files that are told from folders by their names, where there is no other way.
KNOWN_SUFFIXES = frozenset({*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *LIST_SUFFIXES, *chain(*_NO_IMAGES.values())})


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


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read. root: the folder or address that the images of a list are below; selection: which images;
    anonymous: whether buckets are read without credentials."""

    root: str = ""
    selection: Selection = field(default_factory=Selection)
    anonymous: bool = False

    def storage(self, uri: str | Path) -> ImageStorage:
        """Open a folder or a bucket."""
        return open_images(str(uri), anonymous=self.anonymous)


def places_of(named: Path | str | ImageList, reading: Reading) -> list[Place]:
    """Return the places that a source is: one, but for lists with addresses of several buckets or servers.

    Raises ConfigError where it does not exist, is of a kind that is not read, or holds no image, and where its path is
    no text; StorageError for a bucket that cannot be listed.
    """
    if isinstance(named, ImageList):
        return _list_places(named, reading)
    if is_bucket(str(named)):
        return [_bucket_place(str(named), reading)]
    if is_web(str(named)):
        return [_web_place(str(named))]
    path = expand_tilde(_local(str(named)))
    mode = mode_of(path)
    if mode is not None and stat.S_ISDIR(mode):
        return [_folder_place(path, reading)]
    if mode is not None:
        _check_kind(str(named), reading.selection)
        image = _file(str(path.absolute()))
        return [_rooted(str(image.parent), [image.name])]
    if (parts := _parted(str(path))) is not None:
        return [_folder_place(Path(parts[0]), reading, parts[1])]
    raise ConfigError(f"no such folder or file: '{named}'")


def mode_of(path: Path) -> int | None:
    """Return the mode of what is there, None where nothing is. Raises ConfigError where that cannot be seen."""
    try:
        return path.stat().st_mode
    except ValueError:  # a zero byte
        return None
    except OSError as err:
        if err.errno in _NOT_THERE:
            return None
        raise ConfigError(f"cannot read '{path}': {err.strerror}") from err


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


def _local(named: str) -> str:
    """Return the path that `file://` stands before, or what has no scheme. Raises ConfigError for another scheme."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", named)
    if match is None:
        return named
    scheme, rest = match[1].lower(), named[match.end() :]
    if scheme == "file":
        return unquote(rest.removeprefix("localhost"), errors="surrogateescape")
    raise ConfigError(f"'{named}': {scheme}:// is not read{_HINTS.get(scheme, '')}. {_READ}")


def _check_kind(named: str, selection: Selection) -> None:
    """Raise ConfigError for a file of a kind that is known, and known to be no image."""
    suffix = suffix_of(named)
    if kind := next((kind for kind, suffixes in _NO_IMAGES.items() if suffix in suffixes), ""):
        raise ConfigError(f"'{named}' is {kind}")
    if suffix in VIDEO_SUFFIXES and not selection.videos:
        raise ConfigError(f"'{named}' is a video. {_VIDEOS}")


# -- buckets and servers -----------------------------------------------------------------------------------------------


def _bucket_place(named: str, reading: Reading) -> Place:
    if (parts := _parted(named)) is not None and not _is_there(named, reading):
        uri = bucket_uri(parts[0], "SOURCE")
        _check_images(reading.storage(uri), named, reading.selection, parts[1])
        return Place(uri, is_listed=True, patterns=frozenset({parts[1]}))
    uri = bucket_uri(named, "SOURCE")
    folder, _, name = uri.rpartition("/")
    if suffix_of(name) in KNOWN_SUFFIXES and not folder.endswith(":/") and reading.storage(folder).entry(name).etag:
        _check_kind(uri, reading.selection)
        if suffix_of(name) in LIST_SUFFIXES:
            raise ConfigError(f"'{uri}' is a list: copy it to a folder first, and name the file")
        return Place(folder, keys=frozenset({name}))
    try:
        _check_images(reading.storage(uri), uri, reading.selection)
    except ConfigError:
        if not folder.endswith(":/") and reading.storage(folder).entry(name).etag:
            return Place(folder, keys=frozenset({name}))  # of an object whose name does not say what it is
        raise
    return Place(uri, is_listed=True)


def _is_there(named: str, reading: Reading) -> bool:
    """Whether what looks like a pattern is an address of images by itself."""
    folder, _, name = bucket_uri(named, "SOURCE").rpartition("/")
    everything = Rules(Selection(hidden=True))
    if folder.endswith(":/"):
        return False
    is_image = bool(reading.storage(folder).entry(name).etag)
    return is_image or any(True for _ in reading.storage(named.rstrip("/")).images(everything))


def _web_place(url: str) -> Place:
    server, path = web_parts(url, "SOURCE")
    file = path.partition("?")[0]
    if suffix_of(file) in VIDEO_SUFFIXES:
        raise ConfigError(f"'{file}' is a video: fetch it first (curl -O), and name the file")
    _check_kind(file, Selection())
    if suffix_of(file) in LIST_SUFFIXES:
        raise ConfigError(f"'{url}' is a list: fetch it first (curl -O), and name the file")
    folder, _, name = path.rpartition("/")
    if "?" in folder:  # a slash in a query
        folder, name = "", path
    return Place(f"{server}/{folder}".rstrip("/"), keys=frozenset({name}))


def _addresses(uris: Iterable[str], root: str) -> list[Place]:
    """Return the places of a list's addresses: their buckets and servers, or the one below which all are."""
    keys: defaultdict[str, set[str]] = defaultdict(set)
    for uri in uris:
        if is_bucket(uri):
            scheme, _, path = bucket_uri(uri, "the list's line").partition("://")
            bucket, _, key = path.partition("/")
            server = f"{scheme}://{bucket}"
        else:
            server, key = web_parts(uri, "the list's line")
        whole = f"{server}/{key}"
        if root and not whole.startswith(f"{root}/"):
            raise ConfigError(
                f"the list's image '{whole}' is not below '{root}'. Name a place with all of them as --root"
            )
        keys[root or server].add(whole[len(root or server) + 1 :])
    return [Place(place, keys=frozenset(found)) for place, found in keys.items()]


def _check_images(storage: ImageStorage, shown: Path | str, selection: Selection, *patterns: str) -> None:
    images = storage.images(Rules(selection, patterns))
    if next(iter(images), None) is not None:
        return
    seen = ", ".join(f"{count:,} {kind}" for kind, count in images.ignored.most_common(KINDS_SHOWN))
    hint = " --hidden takes hidden ones." if HIDDEN in images.ignored else ""
    if not VIDEO_SUFFIXES.isdisjoint(images.ignored):
        hint += f" {_VIDEOS}."
    suffixes = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
    where = f"in '{shown}' or below it" if selection.recursive else f"right in '{shown}'"
    if patterns:
        where = f"matches '{shown}'"
    raise ConfigError(
        f"no image {where}{f', but {seen}' if seen else ''}.{hint} Files with these endings are images: {suffixes}; "
        "and those of unknown endings that begin as these do"
    )


# -- folders and lists -------------------------------------------------------------------------------------------------


def _list_places(listed: ImageList, reading: Reading) -> list[Place]:
    if not listed.paths:
        raise ConfigError("the list names no image. A list has one path on each line, a table a column of them")
    uris = [path for path in listed.paths if is_address(path)]
    paths = [_local(path) for path in listed.paths if not is_address(path)]
    root = reading.root
    if root and (uris or is_bucket(root)):
        if paths:
            raise ConfigError(f"--root is for addresses or for files, and the list has both, such as '{paths[0]}'")
        root = bucket_uri(root, "--root") if is_bucket(root) else root.rstrip("/")
    return [*_addresses(uris, root), *([_files(paths, listed.folder, root)] if paths else [])]


def _files(paths: list[str], folder: Path, root: str) -> Place:
    folder = expand_tilde(root).absolute() if root else folder
    if not stat.S_ISDIR(mode_of(folder) or 0):
        raise ConfigError(f"--root '{root}': there is no such folder")
    files = [_listed_file(path, folder) for path in paths]
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
    file = expand_tilde(path)
    if not _exists(folder / file):
        if not file.is_absolute() and _exists(file):
            return _file(str(file.absolute()))
        if "\\" in path and _exists(folder / (slashed := path.replace("\\", "/"))):  # as Windows writes it
            return _file(str(folder / slashed))
    return _file(str(folder / file))


def _exists(path: Path) -> bool:
    """Whether a path leads to something; not where that cannot be seen, as behind a name that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for such


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


def check_text(folder: Path, hint: str) -> None:
    """Refuse a folder that JSON cannot name; below it, every name goes. Raises ConfigError."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as err:
        raise ConfigError(f"the name of the folder {str(folder)!r} is not valid UTF-8. {hint}") from err


def _folder_place(folder: Path, reading: Reading, *patterns: str) -> Place:
    root = folder.resolve()
    check_text(root, "Rename the folder")
    try:
        next(root.iterdir(), None)
    except OSError as err:
        raise ConfigError(f"cannot list the folder '{folder}': {err.strerror}") from err
    shown = folder if not patterns else f"{root}{patterns[0]}"
    _check_images(reading.storage(root), shown, reading.selection, *patterns)
    return Place(str(root), is_listed=True, patterns=frozenset(patterns))
