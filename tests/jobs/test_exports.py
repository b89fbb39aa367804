import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import reader
from epochs import failed, found, job_spec, write_records
from users import as_nobody

from trtjob.errors import ConfigError, StorageError
from trtjob.imaging.detections import Classification, Detection
from trtjob.imaging.metadata import Metadata
from trtjob.jobs.exports import FORMATS, Exported, ExportFormat, Variant, export
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.records import Record
from trtjob.storage import LocalStorage

RECORDS = [
    found("a.jpg", (1, 0.9, (10.0, 20.0, 110.0, 70.5)), (0, 0.2, (0.0, 0.0, 200.0, 100.0))),
    failed("broken.jpg"),
    found("sub/b.png"),
    found("sub/ü.jpg", (2, 0.5, (0.1, 0.1, 66.7, 33.4))),
]

COCO = """\
{"info": {"description": "photos-1a2b3c4d, model pets"},
"licenses": [],
"categories": [
{"id": 1, "name": "cat"},
{"id": 2, "name": "dog"},
{"id": 3, "name": "traffic light"}
],
"images": [
{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100},
{"id": 2, "file_name": "sub/b.png", "width": 200, "height": 100},
{"id": 3, "file_name": "sub/ü.jpg", "width": 200, "height": 100}
],
"annotations": [
{"id": 1, "image_id": 1, "category_id": 2, "bbox": [10.0, 20.0, 100.0, 50.5], "area": 5050.0, "iscrowd": 0, \
"segmentation": [[10.0, 20.0, 110.0, 20.0, 110.0, 70.5, 10.0, 70.5]], "score": 0.9},
{"id": 2, "image_id": 3, "category_id": 3, "bbox": [0.1, 0.1, 66.6, 33.3], "area": 2217.78, "iscrowd": 0, \
"segmentation": [[0.1, 0.1, 66.7, 0.1, 66.7, 33.4, 0.1, 33.4]], "score": 0.5}
]}
"""

MEGADETECTOR = """\
{"info": {"format_version": "1.4", "detector": "pets", "detector_metadata": {"sha256": "%s"}},
"detection_categories": {"1": "cat", "2": "dog", "3": "traffic light"},
"images": [
{"file": "a.jpg", "detections": [{"category": "2", "conf": 0.9, "bbox": [0.05, 0.2, 0.5, 0.505]}]},
{"file": "broken.jpg", "detections": null, "failure": "decode: not an image"},
{"file": "sub/b.png", "detections": []},
{"file": "sub/ü.jpg", "detections": [{"category": "3", "conf": 0.5, "bbox": [0.0005, 0.001, 0.333, 0.333]}]}
]}
""" % ("ab" * 32)

DARKNET = """\
[
{"frame_id": 1, "filename": "a.jpg", "objects": [{"class_id": 1, "name": "dog", "relative_coordinates": \
{"center_x": 0.3, "center_y": 0.4525, "width": 0.5, "height": 0.505}, "confidence": 0.9}]},
{"frame_id": 2, "filename": "sub/b.png", "objects": []},
{"frame_id": 3, "filename": "sub/ü.jpg", "objects": [{"class_id": 2, "name": "traffic light", "relative_coordinates": \
{"center_x": 0.167, "center_y": 0.1675, "width": 0.333, "height": 0.333}, "confidence": 0.5}]}
]
"""

CSV = """\
image,width,height,label,class_id,score,x1,y1,x2,y2
a.jpg,200,100,dog,1,0.9,10.0,20.0,110.0,70.5
sub/ü.jpg,200,100,traffic light,2,0.5,0.1,0.1,66.7,33.4
"""

YOLO = {
    "classes.txt": "cat\ndog\ntraffic light\n",
    "data.yaml": 'train: images\nval: images\nnc: 3\nnames:\n  0: "cat"\n  1: "dog"\n  2: "traffic light"\n',
    "a.txt": "1 0.300000 0.452500 0.500000 0.505000\n",
    "sub/classes.txt": "cat\ndog\ntraffic light\n",
    "sub/b.txt": "",
    "sub/ü.txt": "2 0.167000 0.167500 0.333000 0.333000\n",
}

Export = Callable[..., Path]

ALONE = [format for format in ExportFormat if format is not ExportFormat.COCO_RESULTS]  # which needs a ground truth


@pytest.fixture
def exported(tmp_path: Path) -> Export:
    """Export records of a detector, and return where they lie."""

    def run(
        records: list[Record], format: ExportFormat, *, conf: float = 0.25, out: str = "out", frames: str | None = None
    ) -> Path:
        write_records(tmp_path / RESULTS, records)
        spec = job_spec(tmp_path)
        spec = spec.model_copy(update={"options": spec.options.model_copy(update={"frames": frames})})
        export(JobFolder.at(tmp_path), spec, format, tmp_path / out, conf=conf)
        return tmp_path / out

    return run


def labels(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_every_format_has_its_function() -> None:
    assert set(FORMATS) == set(ExportFormat)


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        pytest.param(ExportFormat.COCO, COCO, id="coco"),
        pytest.param(ExportFormat.MEGADETECTOR, MEGADETECTOR, id="megadetector"),
        pytest.param(ExportFormat.DARKNET, DARKNET, id="darknet"),
        pytest.param(ExportFormat.CSV, CSV, id="csv"),
    ],
)
def test_a_file_has_exactly_these_bytes(exported: Export, format: ExportFormat, expected: str) -> None:
    assert exported(RECORDS, format).read_bytes() == expected.encode()


BOX = (1, 0.9, (10.0, 20.0, 110.0, 70.5))
FRAMES = [
    found("a.jpg", BOX),
    failed("gone.mp4"),  # of which no frame is known
    failed("lost.mkv#t=0.000"),
    dataclasses.replace(found("night/a.mp4#t=0.000"), frame=0, time_s=0.0),
    dataclasses.replace(found("night/a.mp4#t=1.001", BOX, (2, 0.4, (0.0, 0.0, 200.0, 100.0))), frame=30, time_s=1.001),
    failed("night/a.mp4#t=2.002"),
    dataclasses.replace(found("one.mp4#t=0.000", BOX), frame=0, time_s=0.0),
]


def test_a_video_is_one_item_for_megadetector(exported: Export) -> None:
    document = json.loads(exported(FRAMES, ExportFormat.MEGADETECTOR, frames="fps=1").read_text())
    assert document["info"]["format_version"] == "1.6"
    image, gone, lost, video, one = document["images"]
    assert image == {"file": "a.jpg", "detections": [{"category": "2", "conf": 0.9, "bbox": [0.05, 0.2, 0.5, 0.505]}]}
    nothing: dict[str, Any] = {
        "detections": None,
        "failure": "decode: not an image",
        "frame_rate": -1.0,
        "frames_processed": [],
    }
    assert (gone, lost) == ({"file": "gone.mp4", **nothing}, {"file": "lost.mkv", **nothing})
    assert (video["file"], video["frame_rate"], video["frames_processed"]) == ("night/a.mp4", 29.97, [0, 30])
    assert [(found["category"], found["frame_number"]) for found in video["detections"]] == [("2", 30), ("3", 30)]
    assert (one["frame_rate"], one["frames_processed"]) == (1.0, [0])


@pytest.mark.reader
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("records", "frames"),
    [(RECORDS, None), (FRAMES, "fps=1"), (FRAMES[1:2], "fps=1")],
    ids=["images", "videos", "none"],
)
def test_megadetectors_validator_finds_nothing(exported: Export, records: list[Record], frames: str | None) -> None:
    validator = reader("megadetector.postprocessing.validate_batch_results")
    out = exported(records, ExportFormat.MEGADETECTOR, frames=frames)
    found = validator.validate_batch_results(str(out))["validation_results"]
    assert (found["errors"], found["warnings"]) == ([], [])


def test_coco_says_of_which_video_a_frame_is(exported: Export) -> None:
    document = json.loads(exported(FRAMES, ExportFormat.COCO, frames="fps=1").read_text())
    assert document["videos"] == [{"id": 1, "name": "night/a.mp4"}, {"id": 2, "name": "one.mp4"}]
    of_frames = [(image.get("video_id"), image.get("frame_id"), image.get("time_s")) for image in document["images"]]
    assert of_frames == [(None, None, None), (1, 0, 0.0), (1, 30, 1.001), (2, 0, 0.0)]
    assert [annotation["image_id"] for annotation in document["annotations"]] == [1, 3, 3, 4]


def test_a_table_says_when_a_frame_is_shown(exported: Export) -> None:
    rows = list(csv.DictReader(exported(FRAMES, ExportFormat.CSV, frames="fps=1").read_text().splitlines()))
    assert [(row["image"], row["frame_number"], row["time_s"]) for row in rows] == [
        ("a.jpg", "", ""),
        ("night/a.mp4#t=1.001", "30", "1.001"),
        ("night/a.mp4#t=1.001", "30", "1.001"),
        ("one.mp4#t=0.000", "0", "0.0"),
    ]


@pytest.mark.parametrize(
    ("format", "expected"),
    [(ExportFormat.COCO, COCO), (ExportFormat.MEGADETECTOR, MEGADETECTOR), (ExportFormat.CSV, CSV)],
)
def test_a_job_without_videos_has_nothing_of_them(exported: Export, format: ExportFormat, expected: str) -> None:
    assert exported(RECORDS, format, frames="fps=1").read_text() == expected


def test_each_frame_has_a_labels_file(exported: Export) -> None:
    assert set(labels(exported(FRAMES, ExportFormat.YOLO, frames="fps=1"))) == {
        "classes.txt",
        "data.yaml",
        "a.txt",
        "night/classes.txt",
        "night/a.mp4#t=0.000.txt",
        "night/a.mp4#t=1.001.txt",
        "one.mp4#t=0.000.txt",
    }


def test_yolos_folder_has_exactly_these_files(exported: Export) -> None:
    assert labels(exported(RECORDS, ExportFormat.YOLO)) == YOLO


@pytest.mark.parametrize(
    ("format", "walks"),
    [(ExportFormat.CSV, 2), (ExportFormat.MEGADETECTOR, 2), (ExportFormat.DARKNET, 2), (ExportFormat.COCO, 3)],
)
def test_results_are_read_once_to_count_and_no_more_to_look_for_videos(
    tmp_path: Path, format: ExportFormat, walks: int
) -> None:
    spec = job_spec(tmp_path)
    spec = spec.model_copy(update={"options": spec.options.model_copy(update={"frames": "fps=1"})})
    storage = CountedReads(Path(spec.uri))
    storage.make_root()
    write_records(Path(spec.uri) / RESULTS, RECORDS)
    export(JobFolder(storage), spec, format, tmp_path / "out", conf=0.25)
    assert storage.reads == walks


class CountedReads(LocalStorage):
    """A job's folder that counts how often its results are read."""

    reads = 0

    def lines(self, key: str) -> Iterator[bytes]:
        self.reads += 1
        return super().lines(key)


@pytest.mark.parametrize("format", ALONE)
def test_an_export_says_how_much_it_wrote(tmp_path: Path, format: ExportFormat) -> None:
    if format is ExportFormat.PARQUET:
        pytest.importorskip("pyarrow")
    write_records(tmp_path / RESULTS, RECORDS)
    written = export(JobFolder.at(tmp_path), job_spec(tmp_path), format, tmp_path / "out", conf=0.25)
    assert written == Exported(images=3, detections=2, failed=1)


@pytest.mark.parametrize("format", ALONE)
def test_exporting_leaves_nothing_unfinished(exported: Export, tmp_path: Path, format: ExportFormat) -> None:
    if format is ExportFormat.PARQUET:
        pytest.importorskip("pyarrow")
    exported(RECORDS, format)
    assert {path.name for path in tmp_path.iterdir()} == {"user", RESULTS, "out"}


def test_conf_decides_which_detections_count(exported: Export) -> None:
    document = json.loads(exported(RECORDS, ExportFormat.COCO, conf=0.1).read_bytes())
    assert [annotation["score"] for annotation in document["annotations"]] == [0.9, 0.2, 0.5]


@pytest.mark.parametrize("format", [ExportFormat.COCO, ExportFormat.MEGADETECTOR, ExportFormat.DARKNET])
def test_no_images_are_still_valid_json(exported: Export, format: ExportFormat) -> None:
    document = json.loads(exported([], format).read_bytes())
    assert (document if format is ExportFormat.DARKNET else document["images"]) == []


@pytest.mark.parametrize(
    "name",
    ["=1+1.jpg", "+1.jpg", "-1.jpg", "@SUM(A1).jpg", "\t=1.jpg", "\r=1.jpg", "\n=1.jpg", " =1.jpg", "\uff1d1.jpg"],
)
def test_no_cell_is_a_formula(tmp_path: Path, name: str) -> None:
    detection = Detection("=HYPERLINK(A1)", 0, 0.9, (0, 0, 1, 1))
    write_records(tmp_path / RESULTS, [Record(name, width=200, height=100, detections=(detection,))])
    for raw, before in ((False, "'"), (True, "")):
        variants = [Variant.RAW] if raw else []
        folder, out = JobFolder.at(tmp_path), tmp_path / "out"
        export(folder, job_spec(tmp_path), ExportFormat.CSV, out, conf=0.25, variants=variants)
        with (tmp_path / "out").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["image"], row["label"]) == (f"{before}{name}", f"{before}=HYPERLINK(A1)")
        assert row["score"] == "0.9"


@pytest.mark.parametrize(
    ("variant", "format", "takers"),
    [
        pytest.param(Variant.RAW, ExportFormat.COCO, "csv", id="raw"),
        pytest.param(Variant.POLYGONS, ExportFormat.YOLO, "coco and label-studio", id="polygons"),
        pytest.param(Variant.WITH_SCORES, ExportFormat.CSV, "yolo", id="scores"),
    ],
)
def test_a_variant_is_for_its_formats_alone(
    tmp_path: Path, variant: Variant, format: ExportFormat, takers: str
) -> None:
    write_records(tmp_path / RESULTS, RECORDS)
    with pytest.raises(ConfigError, match=f"{variant} is for {takers}, but the format is {format}"):
        export(JobFolder.at(tmp_path), job_spec(tmp_path), format, tmp_path / "out", conf=0.25, variants=[variant])


AWKWARD = ['quote".jpg', "back\\slash.jpg", "comma, and\nline.jpg", "a\r=1.jpg", "no utf-8 \udcff.jpg", "猫 😀.jpg"]


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize(
    "format", [ExportFormat.COCO, ExportFormat.MEGADETECTOR, ExportFormat.DARKNET], ids=lambda format: format.value
)
def test_any_name_survives_in_json(exported: Export, format: ExportFormat, name: str) -> None:
    document = json.loads(exported([found(name)], format).read_bytes())
    image = (document if format is ExportFormat.DARKNET else document["images"])[0]
    assert name in image.values()


@pytest.mark.parametrize("name", AWKWARD)
def test_any_name_survives_in_csv(exported: Export, name: str) -> None:
    path = exported([found(name, (0, 0.9, (0, 0, 1, 1)))], ExportFormat.CSV)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert next(csv.DictReader(file))["image"] == name


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["a.jpg", "a.png"], ["a.txt", "a.png.txt"], id="two suffixes"),
        pytest.param(["a.mp4#t=0.000", "a.mp4#t=0.040"], ["a.mp4#t=0.000.txt", "a.mp4#t=0.040.txt"], id="frames"),
        pytest.param(["a.jpg", "a.png", "a.png.jpg"], ["a.txt", "a.png.txt", "a.png.jpg.txt"], id="a suffix in a name"),
        pytest.param(["a", "a-b.jpg", "a.jpg"], ["a.txt", "a-b.txt", "a.jpg.txt"], id="no suffix"),
        pytest.param(["classes.jpg"], ["classes.jpg.txt"], id="named like the file of classes"),
        pytest.param(["classes"], ["classes.txt.txt"], id="named like it, without a suffix"),
        pytest.param(["classes/classes.jpg"], ["classes/classes.jpg.txt"], id="named like it, elsewhere"),
        pytest.param([".jpg"], [".jpg.txt"], id="nothing but a suffix"),
        pytest.param(["x.1/a.jpg", "x.2/a.jpg"], ["x.1/a.txt", "x.2/a.txt"], id="folders with dots"),
    ],
)
def test_no_image_takes_anothers_labels_file(exported: Export, names: list[str], expected: list[str]) -> None:
    records = [found(name, (0, 0.5, (0, 0, 200, 10.0 * index))) for index, name in enumerate(names, start=1)]
    written = labels(exported(records, ExportFormat.YOLO))
    heights = {
        name: text.split()[4] for name, text in written.items() if Path(name).name not in ("classes.txt", "data.yaml")
    }
    assert heights == {name: f"{index / 10:.6f}" for index, name in enumerate(expected, start=1)}


def test_a_name_without_room_for_a_suffix_gets_a_labels_file(exported: Export) -> None:
    long = "x" * 253 + ".p"
    written = labels(exported([found(long), found("y" * 255)], ExportFormat.YOLO))
    assert len(written) == 4


def test_labels_never_leave_their_folder(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="leaves the folder"):
        exported([found("../evil.jpg")], ExportFormat.YOLO)
    assert not (tmp_path / "evil.txt").exists()


def test_labels_that_cannot_be_completed_leave_no_folder(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        exported([found("a.jpg"), found("../evil.jpg")], ExportFormat.YOLO)
    assert {path.name for path in tmp_path.iterdir()} == {"user", RESULTS}


def test_labels_are_not_mixed_into_a_folder_that_holds_something(exported: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        exported(RECORDS, ExportFormat.YOLO)
    assert labels(tmp_path / "out") == {"mine.txt": "mine"}


def test_labels_go_into_an_empty_folder(exported: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert labels(exported(RECORDS, ExportFormat.YOLO)) == YOLO


@pytest.mark.parametrize("format", [ExportFormat.YOLO, ExportFormat.VOC, ExportFormat.LABELME])
def test_an_empty_folder_that_is_filled_stays_itself(exported: Export, tmp_path: Path, format: ExportFormat) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o2770)
    before = out.stat()
    exported(RECORDS, format)
    after = out.stat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_an_empty_folder_stays_empty_where_labels_cannot_be_completed(exported: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError):
        exported([found("a.jpg"), found("../evil.jpg")], ExportFormat.YOLO)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mode", [0o555, 0])
def test_labels_are_not_written_where_the_user_may_not(public_folder: Path, mode: int) -> None:
    write_records(public_folder / RESULTS, RECORDS)
    out = public_folder / "out"
    out.mkdir()
    public_folder.chmod(0o777)
    out.chmod(mode)
    with as_nobody(), pytest.raises(StorageError, match=r"cannot write .*/out: Permission denied"):
        export(JobFolder.at(public_folder), job_spec(public_folder), ExportFormat.YOLO, out, conf=0.25)
    out.chmod(0o755)
    assert list(out.iterdir()) == []


def test_a_file_is_replaced(exported: Export) -> None:
    exported([], ExportFormat.CSV)
    assert exported(RECORDS, ExportFormat.CSV).read_text() == CSV


@pytest.mark.parametrize("format", ALONE)
def test_an_export_cannot_replace_the_jobs_own_results(exported: Export, tmp_path: Path, format: ExportFormat) -> None:
    with pytest.raises(ConfigError, match=r"the job's own results\.jsonl"):
        exported(RECORDS, format, out=RESULTS)
    assert (tmp_path / RESULTS).read_bytes().count(b"\n") == len(RECORDS)


@pytest.mark.parametrize("format", ALONE)
def test_a_folder_that_is_not_there_is_named(exported: Export, format: ExportFormat) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder '.*nowhere'"):
        exported(RECORDS, format, out="nowhere/out")


@pytest.mark.parametrize(
    "format", sorted(set(ALONE) - {ExportFormat.CSV, ExportFormat.PARQUET, ExportFormat.LABEL_STUDIO})
)
def test_a_classifiers_results_go_into_no_format_of_boxes(tmp_path: Path, format: ExportFormat) -> None:
    with pytest.raises(ConfigError, match=f"as {format}: use --format csv"):
        export(JobFolder.at(tmp_path), job_spec(tmp_path, task="classify"), format, tmp_path / "out", conf=0.25)


def test_a_classifiers_csv_has_a_row_for_each_class(tmp_path: Path) -> None:
    classes = (Classification("dog", 1, 0.7), Classification("cat", 0, 0.1))
    write_records(tmp_path / RESULTS, [Record("a.jpg", "cd" * 32, 200, 100, classes=classes)])
    export(
        JobFolder.at(tmp_path), job_spec(tmp_path, task="classify"), ExportFormat.CSV, tmp_path / "out.csv", conf=0.25
    )
    assert (tmp_path / "out.csv").read_text() == (
        "image,width,height,label,class_id,score\na.jpg,200,100,dog,1,0.7\na.jpg,200,100,cat,0,0.1\n"
    )


def test_results_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Has the job finished"):
        export(JobFolder.at(tmp_path), job_spec(tmp_path), ExportFormat.COCO, tmp_path / "out", conf=0.25)


def test_a_record_without_its_images_size_is_named(exported: Export) -> None:
    with pytest.raises(StorageError, match=r"record of 'a\.jpg' has no width"):
        exported([Record("a.jpg", detections=())], ExportFormat.DARKNET)


PEAK_OF_EXPORT = """
import sys, tracemalloc
from pathlib import Path
from epochs import job_spec
from trtjob.jobs.exports import ExportFormat, export
from trtjob.jobs.folder import JobFolder
folder = Path(sys.argv[1])
tracemalloc.start()
export(JobFolder.at(folder), job_spec(folder), ExportFormat(sys.argv[2]), folder / "out", conf=0.25)
print(tracemalloc.get_traced_memory()[1])
"""


ALL_BY_WRITERS = [  # those of JSON have one writer
    *(ExportFormat.COCO, ExportFormat.CSV, ExportFormat.YOLO),
    *(
        pytest.param(each, marks=pytest.mark.chaos)
        for each in (ExportFormat.MEGADETECTOR, ExportFormat.DARKNET, ExportFormat.LABEL_STUDIO)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("format", ALL_BY_WRITERS)
def test_memory_does_not_hold_the_images(tmp_path: Path, format: ExportFormat) -> None:
    if format is ExportFormat.PARQUET:
        pytest.importorskip("pyarrow")
    boxes = [(0, 0.9, (1.0, 2.0, 30.0, 40.0))] * 5
    # Dots everywhere: none of these names may make the others wait for it.
    write_records(tmp_path / RESULTS, (found(f"cam.1.{number:06d}.jpg", *boxes) for number in range(1500)))
    # In a process of its own: Python keeps the names of all paths in one table, which grows by megabytes at a time.
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", PEAK_OF_EXPORT, str(tmp_path), format.value]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tests)
    assert int(done.stdout) < 1_000_000  # the images, held, take 2.6 MB


def test_megadetector_has_when_and_where_a_picture_was_taken(exported: Export) -> None:
    record = dataclasses.replace(found("site 7/b.png"), metadata=Metadata("2026-07-04T20:30:15.25+02:00"))
    untimed = dataclasses.replace(found("a.png"), metadata=Metadata())
    images = json.loads(exported([untimed, record], ExportFormat.MEGADETECTOR).read_text())["images"]
    assert images == [
        {"file": "a.png", "detections": []},
        {"file": "site 7/b.png", "detections": [], "datetime": "2026-07-04 20:30:15", "location": "site 7"},
    ]


# -- bursts ------------------------------------------------------------------------------------------------------------

BOX = (1, 0.9, (10.0, 20.0, 110.0, 70.5))


def at(image: str, captured_at: str | None) -> Record:
    return dataclasses.replace(found(image, BOX), metadata=Metadata(captured_at))


VISITS = [
    at("1/b.jpg", "2026-07-04T20:30:05"),  # its name comes first, its time does not
    at("1/c.jpg", "2026-07-04T20:30:00"),
    at("1/d.jpg", "2026-07-04T20:30:15.5"),
    at("1/e.jpg", None),
    at("1/f.jpg", "2026-07-04T20:40:00"),
    at("2/a.jpg", "2026-07-04T22:30:02+02:00"),
    at("2/\udc80.jpg", "2026-07-04T20:30:03Z"),
]


@pytest.fixture
def bursts(tmp_path: Path) -> Export:
    def run(records: list[Record], format: ExportFormat, burst_s: float = 10) -> Path:
        write_records(tmp_path / RESULTS, records)
        spec = job_spec(tmp_path)
        spec = spec.model_copy(update={"options": spec.options.model_copy(update={"metadata": True})})
        export(JobFolder.at(tmp_path), spec, format, tmp_path / "out", conf=0.25, burst_s=burst_s)
        return tmp_path / "out"

    return run


@pytest.mark.parametrize("format", [ExportFormat.COCO, ExportFormat.MEGADETECTOR])
def test_pictures_of_a_camera_in_short_order_are_a_sequence(bursts: Export, format: ExportFormat) -> None:
    images = json.loads(bursts(VISITS, format).read_text())["images"]
    names = ("seq_id", "frame_num", "seq_num_frames")
    assert [tuple(image.get(name) for name in names) for image in images] == [
        ("1/c.jpg", 1, 2),
        ("1/c.jpg", 0, 2),
        ("1/d.jpg", 0, 1),
        (None, None, None),
        ("1/f.jpg", 0, 1),
        ("2/a.jpg", 0, 2),
        ("2/a.jpg", 1, 2),
    ]


def test_a_table_has_the_sequence_in_its_last_columns(bursts: Export) -> None:
    with bursts(VISITS, ExportFormat.CSV).open(errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert [row[-2:] for row in rows[:5]] == [
        ["sequence_id", "frame"],
        ["1/c.jpg", "1"],
        ["1/c.jpg", "0"],
        ["1/d.jpg", "0"],
        ["", ""],
    ]


def test_how_long_a_burst_lasts_is_the_users_choice(bursts: Export) -> None:
    images = json.loads(bursts(VISITS, ExportFormat.COCO, burst_s=3600).read_text())["images"]
    assert [image.get("seq_num_frames") for image in images] == [4, 4, 4, None, 4, 2, 2]


def test_bursts_need_times_and_a_format_for_them(tmp_path: Path, bursts: Export) -> None:
    write_records(tmp_path / RESULTS, RECORDS)
    with pytest.raises(ConfigError, match="run it with --metadata"):
        export(JobFolder.at(tmp_path), job_spec(tmp_path), ExportFormat.COCO, tmp_path / "x", conf=0.25, burst_s=1)
    with pytest.raises(ConfigError, match="--burst is for coco, megadetector, csv"):
        bursts(RECORDS, ExportFormat.YOLO)
