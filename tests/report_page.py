"""A job's report as tests read it: what the page holds, and what its data says of each image."""

import json
from array import array
from base64 import b64decode
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from epochs import add_epoch
from samples import made

from trtjob.jobs.finish import finish
from trtjob.jobs.folder import REPORT, JobFolder
from trtjob.jobs.records import Record
from trtjob.jobs.spec import JobSpec


class Page(HTMLParser):
    """A parsed report: its texts, its tags with their attributes, and what its scripts hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside][-1] += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]

    @property
    def index(self) -> dict[str, Any]:
        index: dict[str, Any] = json.loads(self.texts["script"][0])
        return index


def report(spec: JobSpec, records: Sequence[Record]) -> JobFolder:
    """Finish a job of these records."""
    folder = made(JobFolder.of(spec))
    add_epoch(folder, records, shard_size=1000)
    finish(folder, spec)
    return folder


def page_of(folder: JobFolder) -> Page:
    return Page(folder.storage.read(REPORT).decode())


def data_of(folder: JobFolder) -> list[dict[str, Any]]:
    """Return what the scripts beside the page hand to it, in the page's order, with numbers as lists."""
    chunks = page_of(folder).index["chunks"]
    return [_unpacked(folder, number, *names) for number, (names, *_) in enumerate(chunks)]


def _unpacked(folder: JobFolder, number: int, data_name: str, details_name: str) -> dict[str, Any]:
    data = _argument(folder, number, "data", data_name) | _argument(folder, number, "details", details_name)
    packed = {name: data[name] for name in ("sizes", "counts", "class_ids", "scores", "boxes")}
    data["names"] = data["names"].split("\0")
    return data | {name: array(typecode, b64decode(numbers)).tolist() for name, (typecode, numbers) in packed.items()}


def _argument(folder: JobFolder, number: int, part: str, name: str) -> dict[str, Any]:
    """Return what a script calls its function with."""
    assert name.startswith(f"{part}-{number:04d}-")
    script = Path(folder.uri, "report", name).read_text("ascii")
    call = f"trtjob.{part}({number},"
    assert script.startswith(call)
    assert script.endswith(")\n")
    argument: dict[str, Any] = json.loads(script[len(call) : -2])
    return argument
