"""Into which folder each file goes."""

from pathlib import Path
from typing import Any

import pytest
from epochs import failed, found, job_spec

from trtjob.imaging.detections import Classification
from trtjob.jobs.records import Record
from trtjob.jobs.sorting.plan import By, folder_name, targets

BOX = (1.0, 2.0, 30.0, 40.0)
CAT, DOG, LIGHT = range(3)


def planned(*records: Record, by: By = By.CLASS, conf: float = 0.25, **options: Any) -> dict[str, str]:
    settings = job_spec(Path("/out")).options.model_copy(update=options)
    return {target.file: target.key for target in targets(records, settings, conf=conf, by=by)}


SEEN = (
    found("cam1/a.jpg", (DOG, 0.9, BOX)),
    found("cam1/b.jpg", (DOG, 0.9, BOX), (CAT, 0.5, BOX), (DOG, 0.3, BOX)),
    found("cam2/c.jpg", (DOG, 0.2, BOX)),
    failed("cam2/d.jpg"),
    found("e.jpg"),
)


def test_images_keep_their_folders_below_that_of_their_class() -> None:
    assert planned(*SEEN) == {
        "cam1/a.jpg": "dog/cam1/a.jpg",
        "cam1/b.jpg": "cat+dog/cam1/b.jpg",
        "cam2/c.jpg": "empty/cam2/c.jpg",
        "cam2/d.jpg": "failed/cam2/d.jpg",
        "e.jpg": "empty/e.jpg",
    }


def test_empty_images_are_parted_from_others() -> None:
    assert set(planned(*SEEN, by=By.EMPTY).values()) == {
        "found/cam1/a.jpg",
        "found/cam1/b.jpg",
        "empty/cam2/c.jpg",
        "failed/cam2/d.jpg",
        "empty/e.jpg",
    }


def test_classes_stand_in_each_folder_of_the_source() -> None:
    assert set(planned(*SEEN, by=By.FOLDER).values()) == {
        "cam1/dog/a.jpg",
        "cam1/cat+dog/b.jpg",
        "cam2/empty/c.jpg",
        "cam2/failed/d.jpg",
        "empty/e.jpg",
    }


def test_what_counts_is_a_matter_of_the_score() -> None:
    assert planned(*SEEN, conf=0.6)["cam1/b.jpg"] == "dog/cam1/b.jpg"
    assert planned(*SEEN, conf=0.1)["cam2/c.jpg"] == "dog/cam2/c.jpg"


def test_of_a_classifier_the_best_class_counts() -> None:
    classes = (Classification("dog", 1, 0.2), Classification("cat", 0, 0.1))
    assert planned(Record("a.jpg", width=9, height=9, classes=classes)) == {"a.jpg": "dog/a.jpg"}
    labels = (Classification("dog", 1, 0.8), Classification("cat", 0, 0.1))
    assert planned(Record("a.jpg", width=9, height=9, labels=labels)) == {"a.jpg": "dog/a.jpg"}


def test_an_image_of_many_classes_has_a_folder_with_a_short_name() -> None:
    labels = tuple(Classification(name, number, 0.9) for number, name in enumerate("abcd"))
    assert planned(Record("a.jpg", width=9, height=9, labels=labels[:3])) == {"a.jpg": "a+b+c/a.jpg"}
    assert planned(Record("a.jpg", width=9, height=9, labels=labels)) == {"a.jpg": "several/a.jpg"}


def test_a_video_goes_once_by_what_is_on_any_of_its_frames() -> None:
    frames = [
        found("v.mp4#t=0.000"),
        found("v.mp4#t=1.000", (DOG, 0.9, BOX)),
        failed("v.mp4#t=2.000"),
        failed("w.mp4#t=0.000"),
        failed("x.mp4"),
    ]
    assert planned(*frames, frames="fps=1") == {
        "v.mp4": "dog/v.mp4",
        "w.mp4": "failed/w.mp4",
        "x.mp4": "failed/x.mp4",
    }


def test_a_file_goes_once_by_what_is_on_any_of_its_pages() -> None:
    pages = [found("a#1.jpg"), found("s.tif#1"), found("s.tif#2", (CAT, 0.9, BOX))]
    assert planned(*pages, pages="all") == {"a#1.jpg": "empty/a#1.jpg", "s.tif": "cat/s.tif"}


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("dog", "dog"),
        ("bird/small", "bird_small"),
        ("..", "_"),
        (".hidden", "hidden"),
        ("", "_"),
        ("a\0b\nc", "a_b_c"),
        ('<"ti:ger?">', "__ti_ger___"),
        ("แมว", "แมว"),
        ("\ud800", "_"),
    ],
)
def test_a_folder_has_a_name_that_any_system_takes(label: str, name: str) -> None:
    assert folder_name(label) == name


def test_long_labels_have_short_names_that_differ() -> None:
    names = {folder_name("ก" * 300 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name.encode()) <= 80 for name in names)
