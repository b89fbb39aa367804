"""Results for Python programs: read as they are asked for, from a folder or a bucket."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import reader
from epochs import add_epoch, failed, found, job_spec

import trtjob
from trtjob.errors import ConfigError, JobError, MissingDependencyError, UnknownImageError
from trtjob.imaging.detections import Classification, Detection, RotatedBox
from trtjob.imaging.masks import Mask
from trtjob.jobs.finish import finish
from trtjob.jobs.folder import JOB, RESULTS, JobFolder
from trtjob.jobs.records import Record, to_line

BOX = (10.0, 20.0, 110.0, 70.5)
RECORDS = [
    found("a.jpg", (1, 0.9, BOX), (0, 0.4, BOX)),
    found("b/b.jpg"),
    found("b/c.jpg", (1, 0.3, BOX)),
    failed("d.jpg"),
]


def finished(output: Path, records: list[Record]) -> JobFolder:
    """Return the folder of a job that has ended."""
    spec = job_spec(output)
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.write(JOB, spec.model_dump_json().encode())
    add_epoch(folder, records)
    finish(folder, spec)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> trtjob.Results:
    return trtjob.results(finished(tmp_path, RECORDS).uri)


def test_all_images_come_in_order(results: trtjob.Results) -> None:
    assert [(each.image, len(each.detections), each.error is None) for each in results] == [
        ("a.jpg", 2, True),
        ("b/b.jpg", 0, True),
        ("b/c.jpg", 1, True),
        ("d.jpg", 0, False),
    ]
    assert [each.image for each in results.failures()] == ["d.jpg"]
    assert (results.summary.images, results.summary.failed) == (4, 1)


def test_a_filter_keeps_what_has_the_label_and_the_score(results: trtjob.Results) -> None:
    dogs = results.filter(label="dog", min_score=0.2)
    assert [(each.image, [found.label for found in each.detections]) for each in dogs] == [
        ("a.jpg", ["dog"]),
        ("b/c.jpg", ["dog"]),
    ]
    assert list(dogs.filter(min_score=0.5).images()) == ["a.jpg"]
    assert dogs["a.jpg"].detections == (Detection("dog", 1, 0.9, BOX),)


@pytest.mark.parametrize("label", [["cat", "dog"], "cat, dog", [0, "1"], ("cat", 1)])
def test_a_filter_takes_several_labels_by_names_and_numbers(results: trtjob.Results, label: Any) -> None:
    assert list(results.filter(label=label).images()) == ["a.jpg", "b/c.jpg"]


@pytest.mark.parametrize("label", ["dog", 1, ["dog"], [1]])
def test_a_filter_of_one_image_is_that_of_all(results: trtjob.Results, label: Any) -> None:
    dogs = results.filter(label=label)
    assert list(dogs.filter(min_score=0.5).images()) == ["a.jpg"]
    assert dogs["a.jpg"].detections == results["a.jpg"].filter(label=label).detections
    assert [each.label for each in dogs["a.jpg"].detections] == ["dog"]


def test_a_number_is_a_class_of_it_also_where_another_is_called_so(tmp_path: Path) -> None:
    record = replace(found("a.jpg"), detections=(Detection("1", 0, 0.9, BOX), Detection("2", 1, 0.9, BOX)))
    folder = finished(tmp_path, [record])
    spec = folder.spec()
    digits = spec.model_copy(update={"model": spec.model.model_copy(update={"labels": ("1", "2")})})
    folder.storage.write(JOB, digits.model_dump_json().encode())
    results = trtjob.results(folder.uri)
    for place in (results, results["a.jpg"]):
        for label in (1, "2"):
            kept = place.filter(label=label)
            image = kept["a.jpg"] if isinstance(kept, trtjob.Results) else kept
            assert [each.class_id for each in image.detections] == [1]


@pytest.mark.parametrize("label", ["", [], [""], [None], True, 1.5])
def test_what_is_no_label_is_refused(results: trtjob.Results, label: Any) -> None:
    for place in (results, results["a.jpg"]):
        with pytest.raises(ConfigError, match=r"^label .*: expected a class's name or number, or several$"):
            place.filter(label=label)


@pytest.mark.parametrize("label", ["cow", 9, ["dog", "cow"], -1])
def test_a_filter_refuses_classes_that_the_model_does_not_have(results: trtjob.Results, label: Any) -> None:
    with pytest.raises(ConfigError, match=r"^label: this model has no class '(cow|9|-1)'\. It has: "):
        results.filter(label=label)


@pytest.mark.parametrize("score", [-0.1, 1.5, 5, float("nan")])
def test_a_filter_takes_scores_alone(results: trtjob.Results, score: float) -> None:
    wrong: list[Any] = ["high", None, []]
    for place in (results, results["a.jpg"]):
        with pytest.raises(ConfigError, match=r"^min_score .*: expected 0 to 1$"):
            place.filter(min_score=score)
        for value in wrong:
            with pytest.raises(ConfigError, match=r"^min_score .*: expected a number$"):
                place.filter(min_score=value)


def test_an_image_is_found_by_its_name(results: trtjob.Results) -> None:
    assert results["b/c.jpg"].record == results[Path("b/c.jpg")].record == RECORDS[2]
    assert Path("b/b.jpg") in results
    with pytest.raises(UnknownImageError, match="has no image '0'"):
        results[0]  # type: ignore[index]  # they have no order that a program should count on
    assert "b/b.jpg" in results
    assert "b" not in results
    with pytest.raises(UnknownImageError, match=r"^job 'photos-1a2b3c4d' has no image 'z.jpg'$") as caught:
        results["z.jpg"]
    assert isinstance(caught.value, KeyError)


def test_an_image_among_many_is_found_without_reading_them_all(tmp_path: Path) -> None:
    names = [f"{number:05}.jpg" for number in range(0, 6_000, 2)]
    folder = finished(tmp_path, [found("a.jpg")])
    lines = [to_line(found(name, (1, 0.5, (0.0, 0.0, 1.0, float(number % 7))))) for number, name in enumerate(names)]
    folder.storage.write(RESULTS, b"".join(lines))
    results = trtjob.results(tmp_path / "photos-1a2b3c4d")
    for number in [0, 1, 137, 1499, 2998, 2999]:
        assert results[names[number]].to_json().encode() + b"\n" == lines[number]
        assert f"{number * 2 + 1:05}.jpg" not in results


@pytest.mark.slow
def test_results_in_a_bucket_are_read_from_there(bucket: str, tmp_path: Path) -> None:
    folder = finished(tmp_path, RECORDS)
    place = JobFolder.at(f"s3://{bucket}/out/job")
    for key in (JOB, RESULTS, "summary.json"):
        place.storage.write(key, folder.storage.read(key))
    results = trtjob.results(f"s3://{bucket}/out/job/")
    assert list(results.images()) == ["a.jpg", "b/b.jpg", "b/c.jpg", "d.jpg"]
    assert results["b/c.jpg"].record == RECORDS[2]


def test_a_job_that_has_not_ended_has_no_results(tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.write(JOB, spec.model_dump_json().encode())
    with pytest.raises(JobError, match=r"has no results\.jsonl yet"):
        trtjob.results(folder.uri)


def test_a_notebook_shows_tables_in_which_names_are_no_markup(tmp_path: Path) -> None:
    folder = finished(tmp_path, [found("<b>.jpg", (1, 0.9, BOX)), failed("c.jpg")])
    results = trtjob.results(folder.uri)
    assert "<td>&lt;b&gt;.jpg</td><td>1</td><td>dog 0.90</td>" in results._repr_html_()
    assert "<td>c.jpg</td><td>failed</td>" in results._repr_html_()
    assert "<td>dog</td><td>0.9</td>" in results["<b>.jpg"]._repr_html_()
    assert "<td>decode</td><td>not an image</td>" in results["c.jpg"]._repr_html_()


def test_an_extra_that_is_missing_is_named(results: trtjob.Results, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, extra in [("pyarrow", "parquet"), ("pandas", "pandas"), ("polars", "polars")]:
        monkeypatch.setitem(sys.modules, package, None)
        to = getattr(results, {"pyarrow": "to_arrow"}.get(package, f"to_{package}"))
        with pytest.raises(MissingDependencyError, match=rf"pip install 'trtjob\[{extra}\]'"):
            to()
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'trtjob\[supervision\]'"):
        results["a.jpg"].to_supervision()


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_table_of_detections_has_a_row_for_each(results: trtjob.Results) -> None:
    pytest.importorskip("pyarrow")
    table = results.to_arrow()
    assert table.num_rows == 3
    x1, y1, x2, y2 = BOX
    assert table.to_pylist()[0] == {
        "image": "a.jpg", "width": 200, "height": 100, "label": "dog", "class_id": 1, "score": 0.9,
        "x1": x1, "y1": y1, "x2": x2, "y2": y2,
    }  # fmt: skip


@pytest.mark.parametrize("rows", ["detections", "imag", "", None, 5, []])
def test_a_table_of_other_rows_is_refused(results: trtjob.Results, rows: Any) -> None:
    for package, to in [("pyarrow", results.to_arrow), ("pandas", results.to_pandas), ("polars", results.to_polars)]:
        pytest.importorskip(package)
        with pytest.raises(ConfigError, match=r"^rows .*: expected detection or image$"):
            to(rows)


def test_a_table_of_images_has_all_that_a_record_has(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    mask = Mask((100, 200), "0100")
    corners = RotatedBox(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), 12.5)
    shaped = Detection("cat", 0, 0.5, BOX, mask, ((1.0, 2.0, 0.5),), corners, ((1, 2, 3, 4, 5, 6),))
    records = [
        Record("a.jpg", "cd" * 32, 200, 100, detections=(shaped,), is_truncated=True, pages=3),
        Record("b.jpg", "cd" * 32, 200, 100, classes=(Classification("cat", 0, 0.5),)),
        failed("c\udcff.jpg"),
    ]
    table = trtjob.results(finished(tmp_path, records).uri).to_arrow("image")

    def without_nulls(value: object) -> object:
        if isinstance(value, dict):
            return {name: without_nulls(each) for name, each in value.items() if each is not None}
        return list(map(without_nulls, value)) if isinstance(value, list) else value

    wanted = [json.loads(to_line(record)) for record in records]
    wanted[2]["image"] = "c\\udcff.jpg"
    assert without_nulls(table.to_pylist()) == wanted
    assert isinstance(table, pa.Table)


@pytest.mark.reader
def test_pandas_and_polars_take_the_table(results: trtjob.Results) -> None:
    reader("pandas")
    reader("polars")
    assert list(results.to_pandas()["label"]) == ["dog", "cat", "dog"]
    assert results.to_polars("image")["image"].to_list() == ["a.jpg", "b/b.jpg", "b/c.jpg", "d.jpg"]


@pytest.mark.reader
def test_supervision_takes_boxes_and_masks(tmp_path: Path) -> None:
    reader("supervision")
    pixels = np.zeros((100, 200), bool)
    pixels[20:70, 10:110] = True
    masked = Detection("dog", 1, 0.9, BOX, Mask.encode(pixels))
    records = [Record("a.jpg", "cd" * 32, 200, 100, detections=(masked,)), found("b.jpg")]
    results = trtjob.results(finished(tmp_path, records).uri)
    detections = results["a.jpg"].to_supervision()
    assert detections.xyxy.tolist() == [list(BOX)]
    assert detections["class_name"].tolist() == ["dog"]
    assert (detections.mask[0] == pixels).all()
    assert len(results["b.jpg"].to_supervision()) == 0
