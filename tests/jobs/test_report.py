import hashlib
import re
import tracemalloc
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from epochs import add_epoch, failed, found, job_spec
from report_page import data_of, page_of, report
from samples import made

from trtjob.errors import FailureKind, StorageError
from trtjob.imaging.detections import Classification, Detection, RotatedBox
from trtjob.imaging.metadata import Metadata
from trtjob.jobs.finish import Summary, finish, finish_partly, report_again
from trtjob.jobs.folder import RECEIPT, REPORT, RESULTS, SUMMARY, JobFolder, annotated_key, thumbnail_key
from trtjob.jobs.records import Record
from trtjob.jobs.report import Report, chunk
from trtjob.jobs.report.chunk import MAX_IMAGES
from trtjob.jobs.report.folders import MAX_FOLDERS, Folders
from trtjob.jobs.spec import JobSpec, Part, Source

BOX = (10.0, 20.0, 110.0, 70.5)
HOSTILE = [
    "\"quote's.jpg",
    "50%.jpg",
    "a#1?.jpg",
    "line\nbreak.jpg",
    "</script><script>alert(1)</script>.jpg",
    "no utf-8 \udcff.jpg",
    "sub/猫 😀\u2028.jpg",
    "=1+1.jpg",
]


def summary_of(spec: JobSpec, images: int) -> dict[str, Any]:
    """Return the summary of a job in which nothing failed."""
    return Summary(
        job_id=spec.job_id,
        model=spec.model.name,
        conf=spec.options.conf,
        images=images,
        ok=images,
        failed=0,
        ignored={},
        failures={},
        images_with_detections=0,
        detections={},
        devices={},
        busy_s={},
        elapsed_s=1.0,
    ).model_dump()


def written(output: Path, records: Iterator[Record]) -> JobFolder:
    """Write the report of these records alone."""
    spec = job_spec(output)
    folder = made(JobFolder.of(spec))
    page = Report(folder, spec)
    images = 0
    for images, record in enumerate(records, start=1):  # noqa: B007 - how many there were
        page.add(record)
    page.write(summary_of(spec, images))
    return folder


def script_names(folder: JobFolder) -> list[str]:
    return folder.storage.list("report")


# -- the index ---------------------------------------------------------------------------------------------------------


def test_the_index_counts_what_the_page_shows_first(tmp_path: Path) -> None:
    records = [
        found("a/1.jpg", (0, 0.9, BOX), (0, 0.25, BOX), (1, 0.2, BOX)),
        found("a/2.jpg", (1, 0.2499, BOX)),
        found("b/3.jpg", (1, 0.1499, BOX)),
        found("b/4.jpg"),
        failed("b/5.jpg"),
        failed("b/6.jpg", FailureKind.MISSING),
    ]
    index = page_of(report(job_spec(tmp_path), records)).index
    ((_, images, hits, nearly, failures),) = index["chunks"]
    assert (images, hits, nearly, failures) == (6, 1, 1, 2)
    assert index["threshold"] == 2500
    assert index["labels"] == [[0, "cat", 2], [1, "dog", 0]]
    assert index["folders"] == [["a", 2, 1, 0], ["b", 4, 0, 2]]
    assert {bar: count for bar, count in enumerate(index["histogram"]) if count} == {14: 1, 20: 1, 24: 1, 25: 1, 90: 1}
    assert index["summary"]["failures"] == {"decode": 1, "missing": 1}


def test_the_index_says_what_was_asked_for(tmp_path: Path) -> None:
    index = page_of(report(job_spec(tmp_path), [found("a.jpg")])).index
    assert index["model"] == {"name": "pets", "sha256": "ab" * 32}
    assert (index["conf"], index["iou"], index["min_score"]) == (0.25, 0.45, 0.05)
    assert index["summary"]["devices"] == {"CPU": 1}
    assert index["submitted"] == "2027-01-15 08:00 UTC"


def test_of_a_classifier_the_best_class_counts_whatever_its_score(tmp_path: Path) -> None:
    classes = (Classification("dog", 1, 0.2), Classification("cat", 0, 0.1))
    index = page_of(report(job_spec(tmp_path, task="classify"), [Record("a.jpg", None, 9, 9, classes=classes)])).index
    assert index["threshold"] == 0
    assert index["labels"] == [[1, "dog", 1]]


def test_of_a_classifier_with_several_labels_each_counts_from_the_threshold_on(tmp_path: Path) -> None:
    labels = (Classification("dog", 1, 0.9), Classification("cat", 0, 0.5), Classification("traffic light", 2, 0.1))
    index = page_of(report(job_spec(tmp_path, task="classify"), [Record("a.jpg", None, 9, 9, labels=labels)])).index
    assert index["threshold"] == 2500
    assert index["labels"] == [[0, "cat", 1], [1, "dog", 1], [2, "traffic light", 0]]


def test_a_job_without_images_has_a_report(tmp_path: Path) -> None:
    index = page_of(report(job_spec(tmp_path), [])).index
    assert (index["chunks"], index["folders"], index["labels"]) == ([], [], [])


# -- the data ----------------------------------------------------------------------------------------------------------


def test_the_data_has_every_score_to_its_last_decimal(tmp_path: Path) -> None:
    scores = [number / 10_000 for number in range(10_000, -1, -1)]
    (data,) = data_of(report(job_spec(tmp_path), [found("a.jpg", *((1, score, BOX) for score in scores))]))
    assert data["scores"] == list(range(10_000, -1, -1))


def test_the_data_says_which_objects_an_image_has(tmp_path: Path) -> None:
    records = [
        found("a.jpg", (0, 0.9, BOX), (2, 0.1, BOX)),
        failed("b.jpg", message="torn"),
        found("c.jpg", (1, 0.5, BOX)),
    ]
    (data,) = data_of(report(job_spec(tmp_path), records))
    assert data["names"] == ["a.jpg", "b.jpg", "c.jpg"]
    assert data["sizes"] == [200, 100, 0, 0, 200, 100]
    assert data["counts"] == [2, 0, 1]
    assert data["class_ids"] == [0, 2, 1]
    assert data["boxes"] == [*BOX, *BOX, *BOX]
    assert (data["failures"], data["messages"]) == ({"1": "decode"}, {"1": "torn"})


def test_the_data_has_what_few_images_and_objects_have(tmp_path: Path) -> None:
    corners = ((1.0, 2.0), (3.0, 2.0), (3.0, 4.0), (1.0, 4.0))
    shaped = Detection("dog", 1, 0.9, BOX, None, ((5.0, 6.0, 0.9),), RotatedBox(corners, 12.0), ((1, 2, 3, 2, 3, 4),))
    plain = Detection("dog", 1, 0.8, BOX)
    long_name = f"{'n' * 251}.jpx"
    records = [
        Record("a.jpg", None, 9, 9, (plain, shaped), pages=3, damage="torn", metadata=Metadata(make="Acme")),
        Record("b.jpg", None, 9, 9, (plain,), is_truncated=True),
        Record(long_name, None, 9, 9, ()),
        Record("o", None, 9, 9, ()),
    ]
    (data,) = data_of(written(tmp_path, iter(records)))
    shapes = {
        "keypoints": [[5.0, 6.0, 0.9]],
        "corners": [[1.0, 2.0], [3.0, 2.0], [3.0, 4.0], [1.0, 4.0]],
        "polygons": [[1, 2, 3, 2, 3, 4]],
    }
    assert data["shapes"] == {"1": shapes}
    assert data["notes"] == {
        "0": {"pages": 3, "damage": "torn", "metadata": {"make": "Acme"}},
        "1": {"truncated": True},
        "2": {"copy": annotated_key(long_name), "thumbnail": thumbnail_key(long_name)},
        "3": {"copy": "annotated/o.copy.jpg"},
    }


@pytest.mark.parametrize("name", ["o", "a.gif.jpg"])
def test_an_unusual_name_is_seen_among_usual_ones(tmp_path: Path, name: str) -> None:
    records = [Record(each, None, 9, 9, ()) for each in ("a.jpg", name, "d/e.jpg")]
    (data,) = data_of(written(tmp_path, iter(records)))
    assert data["notes"] == {"1": {"copy": f"annotated/{name}.copy.jpg"}}


def test_the_data_lies_in_scripts_of_some_thousand_images(tmp_path: Path) -> None:
    folder = written(tmp_path, (found(f"{number:05d}.jpg", (1, 0.8, BOX)) for number in range(MAX_IMAGES + 1)))
    assert [images for _, images, *_ in page_of(folder).index["chunks"]] == [MAX_IMAGES, 1]
    assert [data["names"][0] for data in data_of(folder)] == ["00000.jpg", f"{MAX_IMAGES:05d}.jpg"]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_reaches_the_page_as_it_is(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path, iter([failed(name, message=name)]))
    (data,) = data_of(folder)
    assert data["names"] == [name]
    assert data["messages"] == {"0": name}


# -- the page ----------------------------------------------------------------------------------------------------------


def test_hostile_labels_and_folders_open_no_element(tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    hostile = "</script><img src=x onerror=alert(1)>"
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"labels": (hostile,)})})
    page = page_of(report(spec, [found(f"{hostile}/a.jpg", (0, 0.9, BOX))]))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in page.tags]
    assert page.index["labels"] == [[0, hostile, 1]]


def test_the_page_asks_nothing_of_a_network(tmp_path: Path) -> None:
    folder = report(job_spec(tmp_path), [found("a.jpg", (0, 0.9, BOX))])
    html = folder.storage.read(REPORT).decode()
    assert not {"link", "iframe", "img"} & {tag for tag, _ in page_of(folder).tags}
    assert page_of(folder).values("src") == []
    assert set(re.findall(r"https?://[^\s\"'`]+", html)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_the_policy_allows_the_page_its_own_script_and_style_alone(tmp_path: Path) -> None:
    page = page_of(report(job_spec(tmp_path), []))
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    for text in (page.texts["script"][1], page.texts["style"][0]):
        assert f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_the_page_of_a_million_images_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = job_spec(tmp_path)
    folder = made(JobFolder.of(spec))
    page = Report(folder, spec)
    monkeypatch.setattr(chunk, "MAX_IMAGES", 1)  # in each chunk, of which a million images have two hundred
    for number in range(MAX_FOLDERS):
        page.add(found(f"camera-{number:03d}/day/a.jpg", (0, 0.9, BOX)))
    page.write(summary_of(spec, 1_000_000))
    assert len(folder.storage.read(REPORT)) < 150_000


def test_too_many_folders_are_counted_as_those_that_they_lie_in() -> None:
    folders = Folders()
    names = [f"{camera}/{day:03d}" for camera in "ab" for day in range(MAX_FOLDERS)]
    folders.add(names, names[:5], names[-1:])
    folders.add(["a/later/deep", ""], [], [])
    assert folders.rows() == [("", 1, 0, 0), ("a", MAX_FOLDERS + 1, 5, 0), ("b", MAX_FOLDERS, 0, 1)]


def test_a_page_may_begin_at_another_threshold(tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    folder = report(spec, [found("a.jpg", (0, 0.9, BOX)), found("b.jpg", (0, 0.3, BOX))])
    documents = [folder.storage.read(name) for name in (RESULTS, SUMMARY, RECEIPT)]
    report_again(folder, spec, conf=0.4)
    index = page_of(folder).index
    assert (index["threshold"], index["conf"]) == (4000, 0.25)
    assert index["labels"] == [[0, "cat", 1]]
    assert [chunk[1:3] for chunk in index["chunks"]] == [[2, 1]]
    assert [folder.storage.read(name) for name in (RESULTS, SUMMARY, RECEIPT)] == documents


# -- the way to the images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "output", "way"),
    [
        pytest.param("/data/my photos", "/data/out", "../../my%20photos", id="beside each other"),
        pytest.param("/photos", "/photos/out", "../..", id="outputs among the images"),
        pytest.param("s3://shop/photos", "s3://shop/out", "../../photos", id="in one bucket"),
        pytest.param("s3://shop/photos", "s3://else/out", None, id="in two buckets"),
        pytest.param("s3://shop/photos", "/out", None, id="from a disk to a bucket"),
        pytest.param("/photos", "s3://shop/out", None, id="from a bucket to a disk"),
        pytest.param("https://example.org/photos", "/out", None, id="from a disk to the web"),
    ],
)
def test_originals_are_linked_where_a_relative_way_leads_to_them(
    tmp_path: Path, root: str, output: str, way: str | None
) -> None:
    spec = job_spec(tmp_path).model_copy(update={"source": Source(kind="folder", root=root), "output": output})
    folder = made(JobFolder.at(tmp_path / "here"))
    Report(folder, spec).write(summary_of(spec, 0))
    assert page_of(folder).index["originals"] == {"": way}


def test_each_of_several_places_has_its_way(tmp_path: Path) -> None:
    parts = (
        Part(name="a", root=f"{tmp_path}/one", is_listed=True),
        Part(name="b", root="s3://shop/two", is_listed=True),
    )
    spec = job_spec(tmp_path).model_copy(update={"source": Source(kind="folder", root="", parts=parts)})
    assert page_of(report(spec, [])).index["originals"] == {"a": "../one", "b": None}


# -- written again -----------------------------------------------------------------------------------------------------


def test_the_data_of_an_earlier_page_goes_when_the_new_page_is_there(tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    folder = report(spec, [found("a.jpg", (0, 0.9, BOX))])
    before = script_names(folder)
    folder.storage.write("report/mine.js", b"a user's")
    add_epoch(folder, [found("b.jpg")], reason="update")
    finish(folder, spec)
    ((names, *_),) = page_of(folder).index["chunks"]
    assert script_names(folder) == sorted([*names, "mine.js"])
    assert not set(names) & set(before)


def test_the_same_results_have_the_same_data(tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    folder = report(spec, [found("a.jpg", (0, 0.9, BOX)), failed("b.jpg")])
    before = script_names(folder)
    finish(folder, spec)
    assert script_names(folder) == before


def test_a_page_stays_whole_while_its_successor_is_not_written(tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    folder = report(spec, [found("a.jpg", (0, 0.9, BOX))])
    successor = Report(folder, spec)
    for number in range(MAX_IMAGES):
        successor.add(found(f"{number}.jpg"))
    (data,) = data_of(folder)
    assert data["names"] == ["a.jpg"]


def test_a_cancelled_job_has_a_page_of_what_is_done(tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    folder = made(JobFolder.of(spec))
    add_epoch(folder, [found("a.jpg", (0, 0.9, BOX))])
    finish_partly(folder, spec, why="cancelled", listed=2000)
    assert page_of(folder).index["summary"]["incomplete"] == "cancelled: 1 of 2,000"
    assert [data["names"] for data in data_of(folder)] == [["a.jpg"]]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    def peak(images: int) -> int:
        tracemalloc.start()
        written(tmp_path / str(images), (found(f"{number:06d}.jpg", (1, 0.8, BOX)) for number in range(images)))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(MAX_IMAGES)
    assert peak(6 * MAX_IMAGES) < 1.1 * peak(2 * MAX_IMAGES)


def test_data_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder = written(tmp_path, iter([found("a.jpg")]))
    (script,) = (name for name in script_names(folder) if name.startswith("data-"))
    path = Path(folder.uri, "report", script)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*report/data-0000"):
        written(tmp_path, iter([found("a.jpg")]))
