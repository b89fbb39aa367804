import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from epochs import add_epoch, failed, found, job_spec
from samples import made

from trtjob.imaging.detections import Classification, Detection
from trtjob.imaging.masks import Mask
from trtjob.jobs.finish import finish
from trtjob.jobs.folder import REPORT, JobFolder, annotated_key
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Annotate

BOX = (10.0, 20.0, 110.0, 70.0)


class Page(HTMLParser):
    """A parsed report: its texts, its links, and its tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def report(output: Path, records: list[Record], *, annotate: Annotate = Annotate.ALL, draw: bool = True) -> Page:
    """Finish a job of these records, with an annotated copy of each image that has a result."""
    spec = job_spec(output, annotate=annotate)
    folder = made(JobFolder.of(spec))
    for record in records:
        if record.error is None and draw:
            folder.storage.put(annotated_key(record.image), b"JPEG")
    add_epoch(folder, records, shard_size=100)
    finish(folder, spec)
    return Page(folder.storage.read(REPORT).decode())


def test_the_report_shows_the_numbers(tmp_path: Path) -> None:
    page = report(tmp_path, [found("a.jpg", (0, 0.9, BOX), (0, 0.8, BOX)), found("b.jpg"), failed("c.jpg")])
    for shown in ("3images", "1failed", "1with detections", "2detections of score 0.25 or more", "cat2", "infer0.5"):
        assert shown in page.text


def test_the_report_needs_no_script_and_no_network(tmp_path: Path) -> None:
    page = report(tmp_path, [found("a.jpg", (0, 0.9, BOX)), failed("c.jpg")])
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not [link for link in page.values("src") + page.values("href") if re.match(r"[a-z]+:|/", link)]


@pytest.mark.parametrize(
    "name",
    ["\"quote's.jpg", "50%.jpg", "a#1?.jpg", "line\nbreak.jpg", "<b>&amp;.jpg", "no utf-8 \udcff.jpg", "sub/猫 😀.jpg"],
)
def test_any_name_is_linked_and_shown(tmp_path: Path, name: str) -> None:
    page = report(tmp_path, [found(name, (0, 0.9, BOX))])
    (source,) = page.values("src")
    assert unquote_to_bytes(source) == f"annotated/{name}".encode("utf-8", "surrogateescape")
    assert page.values("href") == [source]
    assert name.replace("\udcff", "?") in page.text


def test_a_failures_message_is_text_not_markup(tmp_path: Path) -> None:
    page = report(tmp_path, [failed("a.jpg", message="<script>alert(1)</script>")])
    assert "<script>alert(1)</script>" in page.text
    assert "script" not in [tag for tag, _ in page.tags]


def test_pictures_are_the_first_images_with_detections(tmp_path: Path) -> None:
    hits = [found(f"{number:03d}.jpg", *([(1, 0.9, BOX)] if number % 2 else [])) for number in range(120)]
    page = report(tmp_path, hits)
    assert page.values("src") == [f"annotated/{number:03d}.jpg" for number in range(1, 96, 2)]
    assert page.values("loading") == ["lazy"] * 48


def test_failures_beyond_the_table_are_counted(tmp_path: Path) -> None:
    page = report(tmp_path, [failed(f"{number:03d}.jpg") for number in range(205)])
    assert "199.jpg" in page.text
    assert "200.jpg" not in page.text
    assert "and 5 more in errors.jsonl" in page.text


@pytest.mark.parametrize("annotate", [Annotate.NONE, Annotate.HITS])
def test_without_annotated_images_there_are_no_pictures(tmp_path: Path, annotate: Annotate) -> None:
    page = report(tmp_path, [found("a.jpg", (0, 0.9, BOX))], annotate=annotate, draw=False)
    assert "img" not in [tag for tag, _ in page.tags]


def test_a_job_without_images_has_a_report(tmp_path: Path) -> None:
    assert "0images" in report(tmp_path, []).text


def test_a_classifiers_report_counts_best_classes(tmp_path: Path) -> None:
    spec = job_spec(tmp_path, task="classify")
    folder = made(JobFolder.of(spec))
    classes = (Classification("dog", 1, 0.2), Classification("cat", 0, 0.1))
    add_epoch(folder, [Record("a.jpg", "cd" * 32, 200, 100, classes=classes)])
    finish(folder, spec)
    text = Page(folder.storage.read(REPORT).decode()).text
    assert "Images by classdog1" in text
    assert "detections" not in text


def test_the_report_of_a_classifier_with_several_labels_counts_each(tmp_path: Path) -> None:
    spec = job_spec(tmp_path, task="classify")
    folder = made(JobFolder.of(spec))
    labels = (Classification("dog", 1, 0.9), Classification("cat", 0, 0.5), Classification("traffic light", 2, 0.1))
    records = [Record("a.jpg", "cd" * 32, 200, 100, labels=labels), Record("b.jpg", "cd" * 32, 200, 100, labels=())]
    for record in records:
        folder.storage.put(annotated_key(record.image), b"JPEG")
    add_epoch(folder, records)
    summary = finish(folder, spec)
    page = Page(folder.storage.read(REPORT).decode())
    assert summary.detections == {"cat": 1, "dog": 1}
    assert page.values("src") == ["annotated/a.jpg"]
    assert "a.jpg: dog, cat" in page.text


def test_objects_with_more_than_a_box_are_counted_and_shown(tmp_path: Path) -> None:
    mask = Mask.encode(np.ones((100, 200), bool))
    page = report(tmp_path, [Record("a.jpg", width=200, height=100, detections=(Detection("dog", 1, 0.9, BOX, mask),))])
    assert "1detections of score 0.25 or more" in page.text
    assert page.values("src") == ["annotated/a.jpg"]
