"""Into which folder each file of a job goes."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from trtjob.jobs.pages import file_key
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Options

EMPTY, FOUND, FAILED, SEVERAL = "empty", "found", "failed", "several"
_MOST_LABELS = 3  # in a folder's name; with more it is `several`
_MOST_NAME_BYTES = 80
_UNUSABLE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')  # in names of folders, on some system or other


class By(StrEnum):
    """What the folders are: classes, whether anything was found, or those of the source, with the classes in each."""

    CLASS = "class"
    EMPTY = "empty"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Target:
    """A file of the source and where it goes, both by keys. folder: of what was found, `dog`, or `cam1/dog`."""

    file: str
    key: str
    folder: str


@dataclass(slots=True)
class _Found:
    """What is known of a file, of all its pages and frames."""

    labels: set[str] = field(default_factory=set)
    is_read: bool = False

    def add(self, record: Record, conf: float) -> None:
        self.is_read |= record.error is None
        self.labels.update(each.label for each in record.counting(conf))


def targets(records: Iterable[Record], options: Options, *, conf: float, by: By) -> Iterator[Target]:
    """Yield where each file goes, once, however many pages or frames of it are images: by what is on any of them.

    conf: what was found with a lower score does not count. What is known of videos and of files with pages is held
    until all records were seen.
    """
    of_parts: dict[str, _Found] = {}
    for record in records:
        file = file_key(record.image, options)
        if file != record.image or file in of_parts:
            of_parts.setdefault(file, _Found()).add(record, conf)
            continue
        found = _Found()
        found.add(record, conf)
        yield _target(file, found, by)
    for file, found in of_parts.items():
        yield _target(file, found, by)


def _target(file: str, found: _Found, by: By) -> Target:
    folder, name = _folder(found, by), file
    if by is By.FOLDER:
        above, slash, name = file.rpartition("/")
        folder = f"{above}{slash}{folder}"
    return Target(file, f"{folder}/{name}", folder)


def _folder(found: _Found, by: By) -> str:
    if not found.is_read:
        return FAILED
    if not found.labels:
        return EMPTY
    if by is By.EMPTY:
        return FOUND
    if len(found.labels) > _MOST_LABELS:
        return SEVERAL
    return "+".join(sorted(map(folder_name, found.labels)))


def folder_name(label: str) -> str:
    """Return the name of a label's folder, which any system takes.

    >>> folder_name("bird / small"), folder_name("..")
    ('bird _ small', '_')
    """
    name = _UNUSABLE.sub("_", label).strip(" ").strip(".") or "_"
    if len(name.encode()) > _MOST_NAME_BYTES:
        digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = name.encode()[: _MOST_NAME_BYTES - 9].decode(errors="ignore") + f"-{digest}"
    return name
