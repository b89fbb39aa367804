"""What exports make of masks, keypoints, rotated boxes and labels."""

import json
from collections.abc import Callable
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from epochs import job_spec, write_records
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from trtjob.errors import StorageError
from trtjob.imaging.detections import Classification, Detection, RotatedBox
from trtjob.imaging.masks import Mask
from trtjob.jobs.exports import ExportFormat, Variant, export
from trtjob.jobs.exports.brush import brush_rle
from trtjob.jobs.exports.outlines import edge_outlines, joined
from trtjob.jobs.exports.results import Image, Shape
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.records import Record
from trtjob.jobs.spec import JobSpec, Part, Source

BOX = (20.0, 30.0, 60.0, 80.0)
PIXELS = np.zeros((100, 200), bool)
PIXELS[30:80, 20:60] = True
PIXELS[40:50, 30:40] = False
MASKED = Detection("dog", 1, 0.9, BOX, Mask.encode(PIXELS))
POSED = Detection("dog", 1, 0.9, BOX, keypoints=((25.0, 35.0, 0.9), (50.0, 70.0, 0.5)))
CORNERS = ((40.0, 30.0), (60.0, 50.0), (50.0, 60.0), (30.0, 40.0))
ROTATED = Detection("dog", 1, 0.9, (30.0, 30.0, 60.0, 60.0), rotated=RotatedBox(CORNERS, 45.0))

Written = Callable[..., Any]


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    """The job of a model whose objects have two keypoints."""
    spec = job_spec(tmp_path)
    return spec.model_copy(
        update={"model": spec.model.model_copy(update={"keypoints": ("nose", "tail"), "skeleton": ((0, 1),)})}
    )


@pytest.fixture
def written(tmp_path: Path, spec: JobSpec) -> Written:
    """Export one image with a detection, and return what was written."""

    def run(detection: Detection, format: ExportFormat, *variants: Variant) -> Any:
        write_records(tmp_path / RESULTS, [Record("a.jpg", width=200, height=100, detections=(detection,))])
        export(JobFolder.at(tmp_path), spec, format, tmp_path / "out", conf=0.25, variants=variants)
        if format is ExportFormat.YOLO:
            return [float(number) for number in (tmp_path / "out" / "a.txt").read_text().split()]
        return json.loads((tmp_path / "out").read_bytes())

    return run


# -- coco --------------------------------------------------------------------------------------------------------------


def test_coco_has_a_mask_as_its_run_lengths_and_its_area(written: Written) -> None:
    (annotation,) = written(MASKED, ExportFormat.COCO)["annotations"]
    assert Mask(tuple(annotation["segmentation"]["size"]), annotation["segmentation"]["counts"]) == MASKED.mask
    assert (annotation["area"], annotation["iscrowd"]) == (PIXELS.sum(), 0)
    assert annotation["bbox"] == [20.0, 30.0, 40.0, 50.0]


def test_coco_has_masks_as_polygons_on_request(written: Written) -> None:
    (annotation,) = written(MASKED, ExportFormat.COCO, Variant.POLYGONS)["annotations"]
    ((x1, y1, *more),) = annotation["segmentation"]
    assert sorted(zip([x1, *more[::2]], [y1, *more[1::2]], strict=True)) == [(20, 30), (20, 80), (60, 30), (60, 80)]
    assert annotation["area"] == PIXELS.sum()


def test_coco_has_keypoints_and_what_they_are_called(written: Written) -> None:
    document = written(POSED, ExportFormat.COCO)
    assert document["categories"][1] == {"id": 2, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
    (annotation,) = document["annotations"]
    assert annotation["keypoints"] == [25.0, 35.0, 2, 50.0, 70.0, 0]
    assert annotation["num_keypoints"] == 1


def test_coco_has_a_rotated_box_as_a_polygon(written: Written) -> None:
    (annotation,) = written(ROTATED, ExportFormat.COCO)["annotations"]
    assert annotation["segmentation"] == [[40.0, 30.0, 60.0, 50.0, 50.0, 60.0, 30.0, 40.0]]
    assert annotation["area"] == 400.0


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_polygons_along_edges_hold_the_pixels_that_they_surround(pixels: NDArray[np.bool_]) -> None:
    height, width = pixels.shape
    detection = Detection("dog", 1, 0.9, (0.0, 0.0, 0.0, 0.0), Mask.encode(pixels))
    outlines = edge_outlines(Image("a.jpg", width, height, ()), detection)
    # A pixel's centre, in halves: no edge goes through it.
    ys, xs = 2 * np.nonzero(pixels)[0] + 1, 2 * np.nonzero(pixels)[1] + 1
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        assert any(cv2.pointPolygonTest((2 * outline).astype(np.int32), (x, y), False) > 0 for outline in outlines)


# -- yolo --------------------------------------------------------------------------------------------------------------


def test_yolos_line_of_a_mask_is_its_outline(written: Written) -> None:
    class_id, *numbers, score = written(MASKED, ExportFormat.YOLO, Variant.WITH_SCORES)
    assert (class_id, score) == (1, 0.9)
    points = zip(numbers[::2], numbers[1::2], strict=True)
    assert sorted(points) == [(0.1, 0.3), (0.1, 0.79), (0.295, 0.3), (0.295, 0.79)]


def test_yolos_line_of_a_pose_is_its_box_and_its_keypoints(written: Written, tmp_path: Path) -> None:
    numbers = written(POSED, ExportFormat.YOLO, Variant.WITH_SCORES)
    assert numbers == [1, 0.2, 0.55, 0.2, 0.5, 0.125, 0.35, 0.9, 0.25, 0.7, 0.5, 0.9]
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert data["kpt_shape"] == [2, 3]
    assert data["names"] == {0: "cat", 1: "dog", 2: "traffic light"}
    assert data["kpt_names"][1] == ["nose", "tail"]


def test_yolos_names_are_read_as_they_are(tmp_path: Path, spec: JobSpec) -> None:
    labels = ("🐶", "à: b", "'it' \\ \"5\"", "no", "x " * 100)
    model = spec.model.model_copy(update={"labels": labels, "keypoints": labels[:2]})
    write_records(tmp_path / RESULTS, [])
    spec = spec.model_copy(update={"model": model})
    export(JobFolder.at(tmp_path), spec, ExportFormat.YOLO, tmp_path / "out", conf=0.25)
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert tuple(data["names"].values()) == labels
    assert tuple(data["kpt_names"][0]) == labels[:2]


def test_yolos_line_of_a_rotated_box_is_its_corners(written: Written) -> None:
    assert written(ROTATED, ExportFormat.YOLO, Variant.WITH_SCORES) == [
        1,
        0.2,
        0.3,
        0.3,
        0.5,
        0.25,
        0.6,
        0.15,
        0.4,
        0.9,
    ]


def test_yolos_lines_for_training_have_no_score_and_mark_keypoints(written: Written) -> None:
    numbers = written(POSED, ExportFormat.YOLO)
    assert numbers == [1, 0.2, 0.55, 0.2, 0.5, 0.125, 0.35, 2, 0.25, 0.7, 0]


def test_yolos_lines_of_boxes_have_no_score(written: Written) -> None:
    assert written(Detection("dog", 1, 0.9, BOX), ExportFormat.YOLO) == [1, 0.2, 0.55, 0.2, 0.5]


def test_a_mask_without_an_outline_is_its_box(written: Written) -> None:
    dot = np.zeros((100, 200), bool)
    dot[30, 20] = True
    numbers = written(Detection("dog", 1, 0.9, BOX, Mask.encode(dot)), ExportFormat.YOLO)
    assert numbers == [1, 0.1, 0.3, 0.3, 0.3, 0.3, 0.8, 0.1, 0.8]


@given(st.lists(st.tuples(st.integers(0, 180), st.integers(0, 80), st.integers(2, 20)), min_size=1, max_size=6))
@example([(0, 13, 2), (9, 0, 14), (15, 16, 2)])
def test_parts_joined_to_one_outline_cover_what_they_covered(squares: list[tuple[int, int, int]]) -> None:
    pixels = np.zeros((101, 201), np.uint8)
    for x, y, side in squares:
        pixels[y : y + side + 1, x : x + side + 1] = 1
    parts = Mask.encode(pixels.astype(bool)).polygons()
    apart, whole = np.zeros_like(pixels), np.zeros_like(pixels)
    cv2.fillPoly(apart, list(parts), 1)
    outline = joined(parts)
    cv2.fillPoly(whole, [outline.astype(np.int32)], 1)
    assert (whole >= apart).all()
    # What is more are lines that lead to the parts, one to each: also side by side no such square fits into them.
    square = np.ones((2 + len(parts), 2 + len(parts)), np.uint8)
    assert (cv2.morphologyEx(whole, cv2.MORPH_OPEN, square) <= cv2.dilate(apart, square)).all()


# -- label studio ------------------------------------------------------------------------------------------------------


def regions(written: Written, detection: Detection, *variants: Variant) -> list[dict[str, Any]]:
    (task,) = written(detection, ExportFormat.LABEL_STUDIO, *variants)
    assert task["data"] == {"image": "/data/local-files/?d=photos/a.jpg"}
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "pets"
    found: list[dict[str, Any]] = prediction["result"]
    assert all(region["to_name"] == "image" and region["original_width"] == 200 for region in found)
    assert all(region["type"] == region["from_name"] for region in found)
    return found


def test_label_studio_has_a_rectangle(written: Written) -> None:
    (region,) = regions(written, Detection("dog", 1, 0.9, BOX))
    assert region["value"] == {
        "x": 10.0,
        "y": 30.0,
        "width": 20.0,
        "height": 50.0,
        "rotation": 0.0,
        "rectanglelabels": ["dog"],
    }
    assert region["score"] == 0.9


def test_label_studios_turned_rectangle_has_the_corners_of_the_rotated_box(written: Written) -> None:
    (region,) = regions(written, ROTATED)
    value = region["value"]
    x, y = value["x"] * 2, value["y"]
    width, height, angle = value["width"] * 2, value["height"], radians(value["rotation"])
    across, down = np.array([cos(angle), sin(angle)]) * width, np.array([-sin(angle), cos(angle)]) * height
    corners = [np.array([x, y]) + step for step in (0 * across, across, across + down, down)]
    assert np.allclose(corners, CORNERS, atol=0.01)


def test_label_studio_has_the_keypoints_that_are_seen_below_their_box(written: Written) -> None:
    box, nose = regions(written, POSED)
    assert (nose["type"], nose["parentID"], nose["score"]) == ("keypointlabels", box["id"], 0.9)
    assert nose["value"] == {"x": 12.5, "y": 35.0, "width": 0.75, "keypointlabels": ["nose"]}


def test_label_studio_has_every_pixel_of_a_mask(written: Written) -> None:
    (region,) = regions(written, MASKED)
    assert (region["type"], region["value"]["brushlabels"], region["value"]["format"]) == (
        "brushlabels",
        ["dog"],
        "rle",
    )
    assert np.array_equal(painted(region["value"]["rle"], (100, 200)), PIXELS)


def test_label_studio_has_masks_as_polygons_on_request(written: Written) -> None:
    (region,) = regions(written, MASKED, Variant.POLYGONS)
    assert sorted(region["value"]["points"]) == [[10.0, 30.0], [10.0, 80.0], [30.0, 30.0], [30.0, 80.0]]
    assert region["value"]["polygonlabels"] == ["dog"]


@pytest.mark.parametrize(
    ("record", "chosen"),
    [
        pytest.param(
            {"classes": (Classification("dog", 1, 0.2), Classification("cat", 0, 0.1))}, [["dog"]], id="the best class"
        ),
        pytest.param(
            {"labels": (Classification("dog", 1, 0.9), Classification("cat", 0, 0.3), Classification("x", 2, 0.1))},
            [["dog", "cat"]],
            id="labels that count",
        ),
        pytest.param({"labels": ()}, [], id="no label"),
    ],
)
def test_label_studio_has_what_a_classifier_found(
    tmp_path: Path, record: dict[str, Any], chosen: list[list[str]]
) -> None:
    write_records(tmp_path / RESULTS, [Record("a.jpg", width=200, height=100, **record)])
    spec = job_spec(tmp_path, task="classify")
    export(JobFolder.at(tmp_path), spec, ExportFormat.LABEL_STUDIO, tmp_path / "out", conf=0.25)
    (task,) = json.loads((tmp_path / "out").read_bytes())
    assert [region["value"]["choices"] for region in task["predictions"][0]["result"]] == chosen


@pytest.mark.parametrize(
    ("root", "address"),
    [
        ("s3://photos/2026", "s3://photos/2026/sub/ä b.jpg"),
        ("gs://photos", "gs://photos/sub/ä b.jpg"),
        ("az://photos", "azure-blob://photos/sub/ä b.jpg"),
        ("https://host", "https://host/sub/ä b.jpg"),
    ],
)
def test_label_studio_finds_images_at_their_addresses(tmp_path: Path, root: str, address: str) -> None:
    write_records(tmp_path / RESULTS, [Record("sub/ä b.jpg", width=200, height=100, detections=())])
    spec = job_spec(tmp_path)
    several = Source(
        kind="folder",
        root="",
        parts=tuple(Part(name=name, root=at, is_listed=True) for name, at in (("a", "/x"), ("sub", root))),
    )
    for source, found in (
        (spec.source.model_copy(update={"root": root}), address),
        (several, address.replace("/sub/", "/")),
    ):
        of_source = spec.model_copy(update={"source": source})
        export(JobFolder.at(tmp_path), of_source, ExportFormat.LABEL_STUDIO, tmp_path / "out", conf=0.25)
        (task,) = json.loads((tmp_path / "out").read_bytes())
        assert task["data"]["image"] == found


@pytest.mark.parametrize(
    ("roots", "below"),
    [
        pytest.param(["/"], "sub/a", id="the whole disk"),
        pytest.param(["/photos"], "photos/sub/a", id="one folder"),
        pytest.param(["/cards/1/photos", "/cards/2/sub"], "2/sub/a", id="two folders"),
        pytest.param(["/photos", "/photos/sub"], "photos/sub/a", id="one in the other"),
        pytest.param(["s3://bucket/photos", "/cards/2/sub"], "sub/a", id="a bucket beside it"),
    ],
)
def test_label_studio_finds_images_below_the_folder_that_holds_all_of_the_jobs(
    tmp_path: Path, roots: list[str], below: str
) -> None:
    parts = [Part(name=name, root=root, is_listed=True) for name, root in zip(("other", "sub"), roots, strict=False)]
    several = {"root": "", "parts": tuple(parts)} if len(parts) > 1 else {"root": roots[0]}
    write_records(tmp_path / RESULTS, [Record("sub/a \udcff#1.jpg", width=200, height=100, detections=())])
    spec = job_spec(tmp_path)
    spec = spec.model_copy(update={"source": spec.source.model_copy(update=several)})
    export(JobFolder.at(tmp_path), spec, ExportFormat.LABEL_STUDIO, tmp_path / "out", conf=0.25)
    (task,) = json.loads((tmp_path / "out").read_bytes())
    assert task["data"]["image"] == f"/data/local-files/?d={below}%20%FF%231.jpg"


def painted(rle: list[int], hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode thi.ng/rle-pack as its readers do, and return the opaque pixels of an image in RGBA."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(size: int) -> int:
        nonlocal at
        at += size
        return int(bits[at - size : at], 2)

    count, word, sizes = read(32), read(5) + 1, [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.asarray(np.array(values).reshape(*hw, 4)[..., 3] == 255)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_a_brush_paints_its_mask(pixels: NDArray[np.bool_]) -> None:
    assert np.array_equal(painted(brush_rle(pixels), (pixels.shape[0], pixels.shape[1])), pixels)


def test_a_brush_paints_runs_of_any_length() -> None:
    pixels = np.ones((200, 300), bool)
    assert painted(brush_rle(pixels), (200, 300)).all()


# -- what is left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", sorted(set(ExportFormat) - {ExportFormat.COCO_RESULTS}))
def test_an_export_says_what_it_drops(tmp_path: Path, spec: JobSpec, format: ExportFormat) -> None:
    if format is ExportFormat.PARQUET:
        pytest.importorskip("pyarrow")
    objects = (MASKED, POSED, ROTATED, Detection("dog", 1, 0.9, BOX))
    write_records(tmp_path / RESULTS, [Record("a.jpg", width=200, height=100, detections=objects)])
    written = export(JobFolder.at(tmp_path), spec, format, tmp_path / "out", conf=0.25)
    holds = format in ("coco", "yolo", "labelme", "cvat", "label-studio")
    assert written.dropped == (() if holds else tuple(Shape))


def test_what_does_not_count_is_not_said_to_be_dropped(tmp_path: Path) -> None:
    masked = Detection("dog", 1, 0.1, BOX, MASKED.mask)
    write_records(tmp_path / RESULTS, [Record("a.jpg", width=200, height=100, detections=(masked,))])
    written = export(JobFolder.at(tmp_path), job_spec(tmp_path), ExportFormat.CSV, tmp_path / "out", conf=0.25)
    assert written.dropped == ()


def test_a_csv_has_a_row_for_each_label_of_an_image(tmp_path: Path) -> None:
    labels = (Classification("dog", 1, 0.7), Classification("cat", 0, 0.1))
    write_records(tmp_path / RESULTS, [Record("a.jpg", width=200, height=100, labels=labels)])
    export(JobFolder.at(tmp_path), job_spec(tmp_path, task="classify"), ExportFormat.CSV, tmp_path / "out", conf=0.25)
    assert (tmp_path / "out").read_text().splitlines()[1:] == ["a.jpg,200,100,dog,1,0.7", "a.jpg,200,100,cat,0,0.1"]


@pytest.mark.parametrize("format", [ExportFormat.COCO, ExportFormat.YOLO, ExportFormat.LABEL_STUDIO])
def test_a_damaged_mask_is_named(written: Written, format: ExportFormat) -> None:
    with pytest.raises(StorageError, match=r"record of 'a\.jpg' has a damaged mask"):
        written(Detection("dog", 1, 0.9, BOX, Mask((100, 200), "~~")), format)
