"""A job held against another one of the same images: what appeared, went and moved."""

from pathlib import Path

import pytest
from epochs import failed, found, job_spec
from report_page import page_of, report
from samples import made

from trtjob.errors import ConfigError
from trtjob.imaging.detections import Classification
from trtjob.jobs.finish import report_again
from trtjob.jobs.folder import JOB, JobFolder
from trtjob.jobs.records import Record
from trtjob.jobs.report.other_job import OtherJob
from trtjob.jobs.report.reference import NONE, NOT_JUDGED, Other
from trtjob.jobs.spec import JobSpec

BOX = (10.0, 20.0, 110.0, 70.0)
NEAR = (20.0, 20.0, 120.0, 70.0)  # overlaps by 0.82
FAR = (150.0, 20.0, 190.0, 70.0)


def other_job(output: Path, records: list[Record], **model: object) -> JobFolder:
    spec = job_spec(output / "earlier")
    spec = spec.model_copy(update={"job_id": "photos-0ld", "model": spec.model.model_copy(update=model)})
    folder = report(spec, records)
    folder.storage.write(JOB, spec.model_dump_json().encode())
    return folder


def compared(output: Path, records: list[Record], earlier: list[Record]) -> OtherJob:
    return OtherJob(other_job(output, earlier), job_spec(output))


def test_objects_are_the_same_where_label_and_place_are(tmp_path: Path) -> None:
    earlier = [found("a.jpg", (0, 0.7, NEAR), (1, 0.6, BOX), (2, 0.5, BOX))]
    record = found("a.jpg", (0, 0.9, BOX), (1, 0.8, FAR), (2, 0.3, BOX))
    result = compared(tmp_path, [record], earlier).compared(record)
    assert result.partners == [7000, NONE, 5000]
    assert result.moved == {0}
    assert result.others == [Other(0, 7000, NEAR, 9000), Other(1, 6000, BOX, NONE), Other(2, 5000, BOX, 3000)]


def test_of_several_that_overlap_each_is_in_one_pair(tmp_path: Path) -> None:
    earlier = [found("a.jpg", (0, 0.7, BOX))]
    record = found("a.jpg", (0, 0.9, NEAR), (0, 0.8, BOX))
    assert compared(tmp_path, [record], earlier).compared(record).partners == [NONE, 7000]


def test_labels_count_and_not_the_numbers_that_a_model_has_for_them(tmp_path: Path) -> None:
    other = OtherJob(other_job(tmp_path, [], labels=("zebra", "cat")), job_spec(tmp_path))
    assert [other.id_of(label) for label in ("zebra", "cat", "emu", "zebra")] == [3, 0, 4, 3]
    assert other.labels() == {3: "zebra", 4: "emu"}


def test_images_that_one_job_does_not_have_are_counted_and_not_judged(tmp_path: Path) -> None:
    earlier = [found("0.jpg"), found("b.jpg", (0, 0.9, BOX)), found("c.jpg"), failed("d.jpg"), found("z\udcff.jpg")]
    records = [found("a.jpg", (0, 0.9, BOX)), found("b.jpg", (0, 0.9, BOX)), found("d.jpg", (0, 0.9, BOX))]
    other = compared(tmp_path, records, earlier)
    assert [other.compared(record).partners for record in records] == [[NOT_JUDGED], [9000], [NOT_JUDGED]]
    index = other.index()
    assert (index["images"], index["only_here"], index["only_there"]) == (2, 1, 3)


def test_of_a_classifier_the_best_class_is_compared(tmp_path: Path) -> None:
    def classes(*names: str) -> Record:
        numbers = {"cat": 0, "dog": 1, "traffic light": 2}
        return Record("a.jpg", None, 9, 9, classes=tuple(Classification(name, numbers[name], 0.5) for name in names))

    spec = job_spec(tmp_path, task="classify")
    other = OtherJob(other_job(tmp_path, [classes("dog", "cat")], task="classify"), spec)
    result = other.compared(classes("cat", "dog"))
    assert result.partners == [NONE, NOT_JUDGED]
    assert result.others == [Other(1, 5000, None, NONE)]


def test_jobs_of_other_images_and_other_tasks_are_refused(tmp_path: Path) -> None:
    other = compared(tmp_path, [], [found("b.jpg")])
    other.compared(found("a.jpg"))
    with pytest.raises(ConfigError, match="no image in common"):
        other.index()
    with pytest.raises(ConfigError, match="its model does not classify"):
        OtherJob(other_job(tmp_path / "x", []), job_spec(tmp_path, task="classify"))


def test_the_index_counts_what_differs_at_the_threshold(tmp_path: Path) -> None:
    records = [
        found("a.jpg", (0, 0.9, BOX), (0, 0.2, FAR)),
        found("b.jpg", (0, 0.9, NEAR), (1, 0.9, BOX)),
        found("c.jpg", (0, 0.3, BOX)),
        found("d.jpg"),
    ]
    earlier = [
        found("a.jpg", (0, 0.9, BOX)),
        found("b.jpg", (0, 0.9, BOX)),
        found("c.jpg", (0, 0.2, BOX)),  # which does not count yet
        found("d.jpg", (2, 0.5, BOX), (2, 0.1, FAR)),
    ]
    spec: JobSpec = job_spec(tmp_path)
    folder = made(report(spec, records))
    report_again(folder, spec, reference=OtherJob(other_job(tmp_path, earlier), spec))
    index = page_of(folder).index
    assert index["chunks"][0][5:] == [2, 1, 1]
    assert index["reference"]["objects"] == [2, 1, 1, 2]
    assert [label for _, label, _ in index["labels"]] == ["cat", "dog", "traffic light"]
