import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtjob.errors import FailureKind, StorageError
from trtjob.imaging.detections import Classification, Detection, RotatedBox
from trtjob.imaging.masks import Mask
from trtjob.imaging.metadata import Metadata
from trtjob.jobs.records import (
    ImageFailure,
    Record,
    from_line,
    json_line,
    read_records,
    to_line,
)
from trtjob.storage import LocalStorage

SCORES = st.integers(0, 10_000).map(lambda n: n / 10_000)
PIXELS = st.integers(0, 1_000_000).map(lambda n: n / 10)
# What a file's name can hold: any text, and bytes that are no UTF-8, which Python keeps as lone surrogates.
NAMES = st.text(min_size=1) | st.binary(min_size=1).map(lambda name: name.decode("utf-8", "surrogateescape"))
POINTS = st.tuples(PIXELS, PIXELS)
DETECTIONS = st.builds(
    Detection,
    st.text(),
    st.integers(0),
    SCORES,
    st.tuples(PIXELS, PIXELS, PIXELS, PIXELS),
    st.none() | st.builds(Mask, st.tuples(st.integers(1), st.integers(1)), st.text(alphabet="0123NOo")),
    st.none() | st.lists(st.tuples(PIXELS, PIXELS, SCORES)).map(tuple),
    st.none() | st.builds(RotatedBox, st.tuples(POINTS, POINTS, POINTS, POINTS), PIXELS),
    st.none() | st.lists(st.lists(st.integers(0)).map(tuple)).map(tuple),
)
CLASSES = st.builds(Classification, st.text(), st.integers(0), SCORES)
FAILURES = st.builds(ImageFailure, st.sampled_from(FailureKind), NAMES, st.integers(1))
METADATA = st.builds(
    Metadata, captured_at=st.none() | st.text(), latitude=st.none() | SCORES, make=st.none() | st.text()
)
RECORDS = (
    st.builds(
        Record,
        NAMES,
        detections=st.lists(DETECTIONS).map(tuple),
        width=st.integers(1),
        height=st.integers(1),
        is_truncated=st.booleans(),
        pages=st.none() | st.integers(2),
        damage=st.none() | st.text(),
        is_cut_off=st.booleans(),
        metadata=st.none() | METADATA,
    )
    | st.builds(Record, NAMES, classes=st.lists(CLASSES).map(tuple), sha256=st.text(alphabet="0123456789abcdef"))
    | st.builds(Record, NAMES, labels=st.lists(CLASSES).map(tuple))
    | st.builds(Record, NAMES, error=FAILURES)
)


@pytest.mark.slow
@given(RECORDS)
def test_a_record_survives_its_line(record: Record) -> None:
    assert from_line(to_line(record)) == record


def test_a_record_says_that_its_file_was_cut_off_and_of_no_other() -> None:
    cut_off = Record("a.jpg", width=9, height=9, damage="the file ends before the image does", is_cut_off=True)
    assert json.loads(to_line(cut_off))["truncated_file"] is True
    assert "truncated_file" not in json.loads(to_line(Record("a.jpg", width=9, height=9, damage="torn")))


@pytest.mark.slow
@given(RECORDS)
def test_a_record_is_one_line_of_utf_8(record: Record) -> None:
    line = to_line(record)
    assert line.decode("utf-8")
    assert line.endswith(b"\n")
    assert line.splitlines() == [line.rstrip(b"\n")]


def test_a_detectors_record_has_exactly_these_bytes() -> None:
    detection = Detection("dog", 16, 0.1235, (10.0, 20.1, 110.0, 70.0))
    line = to_line(Record("ä/b.jpg", "cd", 200, 100, detections=(detection,)))
    assert line.decode() == (
        '{"image": "ä/b.jpg", "sha256": "cd", "width": 200, "height": 100, "detections": '
        '[{"label": "dog", "class_id": 16, "score": 0.1235, "box": [10.0, 20.1, 110.0, 70.0]}]}\n'
    )


def test_only_a_record_that_may_lack_detections_says_so() -> None:
    line = to_line(Record("a.jpg", "cd", 200, 100, detections=(), is_truncated=True))
    assert line == (
        b'{"image": "a.jpg", "sha256": "cd", "width": 200, "height": 100, "detections": [], "truncated": true}\n'
    )
    assert not from_line(line.replace(b', "truncated": true', b"")).is_truncated


def test_only_a_record_of_a_file_with_more_pages_says_so() -> None:
    line = to_line(Record("a.tif", "cd", 200, 100, detections=(), pages=3))
    assert line == (b'{"image": "a.tif", "sha256": "cd", "width": 200, "height": 100, "pages": 3, "detections": []}\n')
    assert from_line(line.replace(b', "pages": 3', b"")).pages is None


def test_a_classifiers_record_has_exactly_these_bytes() -> None:
    line = to_line(Record("a.jpg", "cd", 200, 100, classes=(Classification("dog", 16, 0.5),)))
    assert line == (
        b'{"image": "a.jpg", "sha256": "cd", "width": 200, "height": 100, "classes": '
        b'[{"label": "dog", "class_id": 16, "score": 0.5}]}\n'
    )


def test_an_error_record_has_exactly_these_bytes() -> None:
    line = to_line(Record("a.jpg", error=ImageFailure(FailureKind.DECODE, "not an image", 2)))
    assert line == b'{"image": "a.jpg", "error": {"kind": "decode", "message": "not an image", "attempts": 2}}\n'


def test_nothing_found_is_an_empty_list_not_an_absence() -> None:
    assert json.loads(to_line(Record("a.jpg", detections=())))["detections"] == []


def test_a_name_that_is_no_utf_8_is_written_escaped() -> None:
    assert json_line({"image": "\udcff.jpg"}) == b'{"image": "\\udcff.jpg"}\n'


def test_more_than_a_box_has_exactly_these_bytes() -> None:
    detection = Detection(
        "dog",
        16,
        0.5,
        (10.0, 20.0, 30.0, 40.0),
        Mask((100, 200), "PX13"),
        ((12.25, 20.0, 0.75), (30.0, 33.5, 0.0)),
        RotatedBox(((20.0, 20.0), (30.0, 30.0), (20.0, 40.0), (10.0, 30.0)), 45.0),
        ((10, 20, 29, 20, 29, 39),),
    )
    line = to_line(Record("b.jpg", width=200, height=100, detections=(detection,)))
    assert line.decode() == (
        '{"image": "b.jpg", "width": 200, "height": 100, "detections": '
        '[{"label": "dog", "class_id": 16, "score": 0.5, "box": [10.0, 20.0, 30.0, 40.0], '
        '"mask": {"size": [100, 200], "counts": "PX13"}, '
        '"polygons": [[10, 20, 29, 20, 29, 39]], '
        '"keypoints": [[12.25, 20.0, 0.75], [30.0, 33.5, 0.0]], '
        '"box_rotated": {"corners": [[20.0, 20.0], [30.0, 30.0], [20.0, 40.0], [10.0, 30.0]], "angle": 45.0}}]}\n'
    )


def test_the_labels_of_an_image_have_exactly_these_bytes() -> None:
    line = to_line(Record("b.jpg", labels=(Classification("cat", 0, 0.9), Classification("sofa", 4, 0.75))))
    assert line.decode() == (
        '{"image": "b.jpg", "labels": [{"label": "cat", "class_id": 0, "score": 0.9}, '
        '{"label": "sofa", "class_id": 4, "score": 0.75}]}\n'
    )


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"image": "a.jpg", "detec', id="cut off"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no image"),
        pytest.param(b'{"image": "a.jpg", "error": {"kind": "bad luck", "message": "", "attempts": 1}}', id="its kind"),
        pytest.param(b'{"image": "a.jpg", "error": {"kind": "read"}}', id="half an error"),
        pytest.param(
            b'{"image": "a.jpg", "detections": [{"label": "dog", "class_id": 1, "score": 1, "box": [1, 2, 3]}]}',
            id="half a box",
        ),
        pytest.param(
            b'{"image": "a.jpg", "detections": [{"label": "dog", "class_id": 1, "score": 1, "box": [1, 2, 3, 4], '
            b'"mask": {"size": [3]}}]}',
            id="half a mask",
        ),
        pytest.param(
            b'{"image": "a.jpg", "detections": [{"label": "dog", "class_id": 1, "score": 1, "box": [1, 2, 3, 4], '
            b'"box_rotated": {"corners": [[1, 2]], "angle": 0}}]}',
            id="one corner",
        ),
        pytest.param(b'{"image": "a.jpg", "classes": [{"name": "dog"}]}', id="an unknown field"),
        pytest.param(b'{"image": "\xff.jpg"}', id="no utf-8"),
    ],
)
def test_what_is_no_record_is_refused_and_shown(line: bytes) -> None:
    with pytest.raises(StorageError, match="not a result record: b'"):
        from_line(line)


def test_records_survive_a_file(tmp_path: Path) -> None:
    records = [Record("a.jpg", detections=()), Record("b.jpg", error=ImageFailure(FailureKind.READ, "no permission"))]
    storage = LocalStorage(tmp_path)
    storage.write("records.jsonl", b"".join(map(to_line, records)))
    assert list(read_records(storage, "records.jsonl")) == records


def test_a_record_has_what_its_file_says_of_the_picture_where_that_is_wanted() -> None:
    line = to_line(Record("a.jpg", "cd", 2, 1, detections=(), metadata=Metadata("2026-07-04T20:30:15", make="Maker")))
    assert b'"metadata": {"captured_at": "2026-07-04T20:30:15", "make": "Maker"}, "detections": []}' in line
    assert b'"metadata": {}, ' in to_line(Record("a.jpg", "cd", 2, 1, detections=(), metadata=Metadata()))
