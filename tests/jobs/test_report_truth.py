"""A job held against labels: the figures of pycocotools, and which objects are right, wrong and missed."""

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from epochs import LABELS, failed, found, job_spec, write_records
from report_truth import coco

from trtjob.errors import ConfigError
from trtjob.jobs.exports import ExportFormat, export
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.json_items import json_items
from trtjob.jobs.records import Record
from trtjob.jobs.report.evaluation import Evaluation
from trtjob.jobs.report.overlap import xywh
from trtjob.jobs.report.reference import NONE, NOT_JUDGED, SURE
from trtjob.jobs.report.truth import TrueObject, open_labels

BOX = (10.0, 20.0, 110.0, 70.0)


def evaluated(path: Path, records: Sequence[Record], least: int = 2500) -> Evaluation:
    evaluation = Evaluation(open_labels(path, LABELS), str(path), least)
    for record in records:
        evaluation.compared(record)
    return evaluation


def one_image(tmp_path: Path, true: Sequence[TrueObject]) -> Evaluation:
    return Evaluation(open_labels(coco(tmp_path / "coco.json", {"a.jpg": true}), LABELS), "coco.json", 2500)


# -- the figures -------------------------------------------------------------------------------------------------------


def scenes(seed: int, count: int) -> tuple[list[Record], dict[str, list[TrueObject]]]:
    """Return images with objects, and what a poor detector finds of them: moved, mistaken, missed, made up, doubled."""
    numbers = random.Random(seed)
    records, images = [], {}
    for number in range(count):
        true, objects = [], []
        for _ in range(numbers.randrange(7)):
            x, y, w, h = numbers.uniform(0, 120), numbers.uniform(0, 60), numbers.uniform(5, 70), numbers.uniform(5, 40)
            class_id = numbers.randrange(3)
            true.append(TrueObject(class_id, (x, y, w, h), is_crowd=numbers.random() < 0.1))
            for _ in range(numbers.choice((0, 1, 1, 1, 2))):
                left, top = x + numbers.gauss(0, w / 9), y + numbers.gauss(0, h / 9)
                box = round(left, 1), round(top, 1), round(left + w, 1), round(top + h, 1)
                label = class_id if numbers.random() < 0.85 else numbers.randrange(3)
                objects.append((label, round(numbers.uniform(0.05, 1), 1 + numbers.randrange(3)), box))
        if numbers.random() < 0.3:
            objects.append((numbers.randrange(3), 0.5, (1.0, 1.0, 30.0, 9.0)))
        objects.sort(key=lambda each: -each[1])
        name = f"{number:03d}.jpg"
        records.append(found(name, *objects))
        images[name] = true
    return records, images


def figures_of_pycocotools(truth: Path, records: Sequence[Record], exported: Path | None = None) -> tuple[float, float]:
    """Return AP and AP50 of records, or of results that were exported."""
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed: make setup brings it")
    from pycocotools.cocoeval import COCOeval

    truth_set = coco_module.COCO(str(truth))
    ids = {image["file_name"]: image["id"] for image in truth_set.imgs.values()}
    results = [
        {"image_id": ids[record.image], "category_id": 10 * (1 + found.class_id), "bbox": list(xywh(found.box)),
         "score": found.score}
        for record in records for found in record.detections or ()
    ]  # fmt: skip
    evaluation = COCOeval(truth_set, truth_set.loadRes(str(exported) if exported else results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[1]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(tmp_path: Path, seed: int) -> None:
    records, images = scenes(seed, 60)
    truth = coco(tmp_path / "coco.json", images)
    ap, ap50 = figures_of_pycocotools(truth, records)
    index = evaluated(truth, records).index()
    assert 0.1 < ap < ap50 < 0.9
    assert (index["ap"], index["ap50"]) == (pytest.approx(ap, abs=1e-12), pytest.approx(ap50, abs=1e-12))


def test_exported_results_have_the_average_precision_that_the_report_says(tmp_path: Path) -> None:
    records, images = scenes(9, 60)
    truth = coco(tmp_path / "coco.json", images)
    write_records(tmp_path / RESULTS, records)
    out = tmp_path / "found.json"
    export(JobFolder.at(tmp_path), job_spec(tmp_path), ExportFormat.COCO_RESULTS, out, conf=0.0, truth=truth)
    ap, ap50 = figures_of_pycocotools(truth, records, out)
    index = evaluated(truth, records).index()
    assert (index["ap"], index["ap50"]) == (pytest.approx(ap, abs=1e-9), pytest.approx(ap50, abs=1e-9))


def test_average_precision_of_what_can_be_counted_by_hand(tmp_path: Path) -> None:
    true = [TrueObject(0, (0.0, 0.0, 10.0, 10.0)), TrueObject(0, (50.0, 0.0, 10.0, 10.0))]
    truth = coco(tmp_path / "coco.json", {"a.jpg": true})
    record = found("a.jpg", (0, 0.9, (0.0, 0.0, 10.0, 10.0)), (0, 0.8, (90.0, 0.0, 99.0, 9.0)))
    index = evaluated(truth, [record]).index()
    # One of two is found before anything is wrong: precision 1 up to recall 0.5, which are 51 of 101 points.
    assert index["ap50"] == pytest.approx(51 / 101)
    assert index["curve"] == [1.0] * 51 + [0.0] * 50
    assert index["classes"] == [[0, 2, pytest.approx(51 / 101), pytest.approx(51 / 101)]]


def test_classes_that_the_model_does_not_have_are_named_and_count_nothing(tmp_path: Path) -> None:
    images = {"a.jpg": [TrueObject(0, xywh(BOX)), TrueObject(1, xywh(BOX))]}
    truth = coco(tmp_path / "coco.json", images, ("cat", "zebra"))
    index = evaluated(truth, [found("a.jpg", (0, 0.9, BOX))]).index()
    assert (index["unknown"], index["ap"]) == (["zebra"], pytest.approx(1))


def test_a_failed_image_has_found_nothing_and_an_image_without_labels_does_not_count(tmp_path: Path) -> None:
    truth = coco(tmp_path / "coco.json", {"a.jpg": [TrueObject(0, xywh(BOX))], "b.jpg": [TrueObject(0, xywh(BOX))]})
    records = [failed("a.jpg"), found("b.jpg", (0, 0.9, BOX)), found("c.jpg", (0, 0.95, BOX))]
    index = evaluated(truth, records).index()
    assert (index["images"], index["only_here"]) == (2, 1)
    assert index["ap50"] == pytest.approx(51 / 101)


def test_the_confusion_says_what_stands_where_what_was_found(tmp_path: Path) -> None:
    true = [TrueObject(0, (0.0, 0.0, 50.0, 50.0)), TrueObject(1, (100.0, 0.0, 50.0, 50.0))]
    truth = coco(tmp_path / "coco.json", {"a.jpg": true})
    objects = (2, 0.9, (0.0, 0.0, 50.0, 50.0)), (1, 0.8, (60.0, 60.0, 90.0, 90.0)), (1, 0.1, (100.0, 0.0, 150.0, 50.0))
    confusion = evaluated(truth, [found("a.jpg", *objects)]).index()["confusion"]
    assert sorted(confusion) == [(-1, 1, 1), (0, 2, 1), (1, -1, 1)]


# -- which objects are right -------------------------------------------------------------------------------------------


def test_each_object_is_right_wrong_or_not_judged_and_each_true_one_found_or_missed(tmp_path: Path) -> None:
    true = [
        TrueObject(0, (0.0, 0.0, 10.0, 10.0)),
        TrueObject(0, (20.0, 0.0, 10.0, 10.0)),
        TrueObject(0, (100.0, 0.0, 90.0, 90.0), is_crowd=True),
    ]
    record = found(
        "a.jpg",
        (0, 0.9, (0.0, 0.0, 10.0, 10.0)),
        (0, 0.8, (0.0, 0.0, 10.0, 9.0)),
        (0, 0.7, (110.0, 10.0, 120.0, 20.0)),
        (1, 0.6, (20.0, 0.0, 30.0, 10.0)),
    )
    compared = one_image(tmp_path, true).compared(record)
    assert compared.partners == [SURE, NONE, NOT_JUDGED, NONE]
    assert [(other.box, other.partner) for other in compared.others] == [
        ((0.0, 0.0, 10.0, 10.0), 9000),
        ((20.0, 0.0, 30.0, 10.0), NONE),
    ]


# -- labels ------------------------------------------------------------------------------------------------------------


def test_images_are_known_by_the_last_part_of_their_names_where_that_is_one_images(tmp_path: Path) -> None:
    images = {"val/a.jpg": [TrueObject(0, xywh(BOX))], "x/b.jpg": [], "y/b.jpg": []}
    labels = open_labels(coco(tmp_path / "coco.json", images), LABELS)
    (_, objects) = labels.objects_of(found("photos/a.jpg")) or (0, [])
    assert objects == [TrueObject(0, xywh(BOX))]
    assert labels.objects_of(found("photos/b.jpg")) is None
    assert labels.objects_of(found("y/b.jpg")) is not None


def yolo(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt").replace("_yaml", ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_yolo_files_lie_as_the_images_do_or_in_one_folder(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "labels", day__a_txt="1 0.5 0.5 0.2 0.4\n", b_txt="0 0.1 0.1 0.3 0.1 0.3 0.5\n\n")
    labels = open_labels(folder, LABELS)
    read = [(labels.objects_of(found(name)) or (0, []))[1] for name in ("day/a.jpg", "night/b.jpg", "c.jpg")]
    assert [[each.class_id for each in objects] for objects in read] == [[1], [0], []]
    assert read[0][0].box == pytest.approx((80, 30, 40, 40))
    assert read[1][0].box == pytest.approx((20, 10, 40, 40))  # around the outline


def test_the_classes_of_yolo_files_have_names_of_their_own(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "labels", a_txt="0 .5 .5 1 1\n1 .5 .5 1 1\n", data_yaml="names: [dog, zebra]\n")
    labels = open_labels(folder, LABELS)
    (_, objects) = labels.objects_of(found("a.jpg")) or (0, [])
    assert [each.class_id for each in objects] == [1]
    assert labels.unknown == ["zebra"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("cat 0.5 0.5 1 1", "expected the number of a class first, found 'cat'", id="a name"),
        pytest.param("7 0.5 0.5 1 1", "expected the number of a class first, found '7'", id="an unknown number"),
        pytest.param("1 0.5 0.5 1", "expected 4 numbers, or 3 points and more, and found 3 numbers", id="too few"),
        pytest.param("1 0.5 0.5 1e400 1", "a box has a number that is not from -1e+09 to 1e+09", id="no share"),
        pytest.param("1 0.5 nan 1 1", "a box has a number that is not from -1e+09 to 1e+09", id="not a number"),
        pytest.param("1 a b c d", "could not convert string to float: 'a'", id="no numbers"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    labels = open_labels(yolo(tmp_path / "labels", a_txt=f"0 0.5 0.5 1 1\n{line}\n"), LABELS)
    with pytest.raises(ConfigError, match=r"a\.txt:2: ") as caught:
        labels.objects_of(found("a.jpg"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        '{"a.jpg": [{"label": "dog", "box": [1, 2, 3, 4]}]}',
        '{"images": [{"id": 1}]}',
        '{"annotations": [1',
        '{"annotations": [{"bbox": 5}]}',
        '{"annotations": [{"bbox": [1, 2], "image_id": 1, "category_id": 1}]}',
        f'{{"annotations": [{{"bbox": [1{"0" * 400}, 2, 3, 4], "image_id": 1, "category_id": 1}}]}}',
        '{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "b.jpg"}]}',
        '{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": null, "file_name": "b.jpg"}]}',
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": [1], "name": "dog"}]}',
        pytest.param('{"images": ' + "[" * 100_000, id="deep"),
        *(
            pytest.param(
                '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "dog"}], "annotations":'
                f' [{{"bbox": [1, 2, {number}, 4], "image_id": 1, "category_id": {category}}}]}}',
                id=f"{number} of {category}",
            )
            for number, category in [("1e400", 1), ("-1e400", 1), ("NaN", 1), ("1e308", 1), ("3", 2), ("3", '"1"')]
        ),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "coco.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"is not COCO's JSON, or damaged: [^()]*$"):
        open_labels(path, LABELS)


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    evaluation = evaluated(coco(tmp_path / "coco.json", {"a.jpg": []}), [found("b.jpg")])
    with pytest.raises(ConfigError, match="it has no image of this job"):
        evaluation.index()


def test_a_folder_without_a_label_file_of_any_image_is_refused(tmp_path: Path) -> None:
    evaluation = evaluated(yolo(tmp_path / "labels", other_txt="0 .5 .5 1 1\n"), [found("a.jpg")])
    with pytest.raises(ConfigError, match="it has no image of this job"):
        evaluation.index()


class Drips(io.StringIO):
    """A text that comes in pieces of a few characters."""

    def read(self, size: int | None = -1) -> str:
        return super().read(3)


@pytest.mark.parametrize(
    "document",
    [
        {"a": [1, 22222, {"b": [1, 2]}], "c": 12345678, "d": [], "e": 'x]}\\"', "images": [[], None, True, -1.5e300]},
        {},
        {"a": 1},
    ],
)
def test_json_is_read_item_by_item_however_it_comes(document: dict[str, Any]) -> None:
    items = [
        (name, item) for name, value in document.items() for item in (value if isinstance(value, list) else [value])
    ]
    for indent in (None, 1):
        assert list(json_items(Drips(json.dumps(document, indent=indent)))) == items


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"', '{"a": ', '{"a": [1, ', '{"a": [1 2]}', '{"a": 1 "b": 2}', "nonsense"]
)
def test_json_that_is_damaged_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        list(json_items(io.StringIO(text)))
