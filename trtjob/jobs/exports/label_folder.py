"""A folder with a file of labels for each image, in the sub-folders of their images."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path, PurePosixPath

from trtjob import atomic
from trtjob.errors import ConfigError
from trtjob.jobs.exports.results import Image, Results
from trtjob.jobs.folder import suffixed_key
from trtjob.jobs.frames import names_frame
from trtjob.storage import LocalStorage, place_error


def write_label_folder(
    results: Results,
    out: Path,
    suffix: str,
    labels_of: Callable[[Image], bytes],
    begin: Callable[[LocalStorage], None] = lambda _folder: None,
    begin_folder: Callable[[LocalStorage, PurePosixPath], None] = lambda _folder, _sub: None,
) -> None:
    """Write a folder: for each image the file with its labels. A new one appears when it is complete,
    one that is there is filled then.

    begin: writes what belongs to the whole; begin_folder: what belongs into each sub-folder, before its first labels.
    Raises ConfigError where the folder holds something already.
    """
    try:
        is_there = out.exists()
        if is_there and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(
                f"'{out}' is there and is not an empty folder: labels of two jobs could mix. Remove it, or name another"
            )
        with atomic.unfinished(out if is_there else out.parent) as folder:
            folder.mkdir()
            storage = LocalStorage(folder)
            begin(storage)
            begun = ""
            for image in results.images():
                sub = PurePosixPath(image.name).parent
                if begun != str(sub):
                    begun = str(sub)
                    begin_folder(storage, sub)
                storage.put(_labels_key(image.name, suffix, storage), labels_of(image))
            if is_there:  # with an owner and rights of its own, or a file system
                _move_all(folder, out)
            else:
                folder.replace(out)
    except OSError as err:
        raise place_error(err, out) from err


def _move_all(folder: Path, out: Path) -> None:
    """Move what a folder holds, of which there may be a million, and remove it."""
    while names := _some_names(folder):
        for name in names:
            (folder / name).rename(out / name)
    folder.rmdir()


def _some_names(folder: Path) -> list[str]:
    with os.scandir(folder) as items:
        return [item.name for item in islice(items, 1000)]


def _labels_key(name: str, suffix: str, storage: LocalStorage) -> str:
    """Return `a.txt` for `a.jpg`, but `a.png.txt` for an `a.png` that follows it, and for a frame its whole name."""
    if names_frame(name):
        return suffixed_key(name, suffix)
    key = suffixed_key(str(PurePosixPath(name).with_suffix("")), suffix)
    if not storage.exists(key):
        return key
    # Free: only an image whose name begins with this whole name could have taken it, and those sort behind it.
    key = suffixed_key(name, suffix)
    # But for an image `classes`, whose whole name is what lies in each folder.
    return suffixed_key(name + suffix, suffix) if storage.exists(key) else key
