"""Exports with masks, keypoints and rotated boxes find what Ultralytics' own predict found on the same files."""

from pathlib import Path

import pytest

from scripts.detector_families import SHAPE_MARKS, Agreement, compared, shapes_table, written

CASES = {
    "ultralytics_yolo11_seg": "masks",
    "ultralytics_yolo11_seg_nms": "masks",
    "ultralytics_yolov8_pose": "keypoints",
    "ultralytics_yolo26_pose": "keypoints",
    "ultralytics_yolo11_obb": "rotated boxes",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_ultralytics_finds_is_found(name: str, shared: Path) -> None:
    found = compared(shared / "detectors" / name, shared / "images")
    assert (found.missing, found.extra) == (0, 0)
    assert found.wanted > 20
    assert found.boxes_px < 0.5
    assert found.scores < 0.002
    kind = CASES[name]
    assert found.shapes.keys() == {kind}
    assert found.shapes[kind] <= 0.1 if kind == "keypoints" else found.shapes[kind] >= 0.99


def test_the_table_of_shapes_stands_between_its_marks() -> None:
    agreement = Agreement("ultralytics_yolo11_seg", "", "ultralytics 8", 9, 0, 0, 0.05, 0.0, {"masks": 0.99996})
    rows = shapes_table([agreement])
    assert "| yolo11-seg | ultralytics 8 | all found of 9, 0.05 px, 0.0000 | worst IoU of masks 1.0000 |" in rows
    document = f"before\n{SHAPE_MARKS[0]}\nold\n{SHAPE_MARKS[1]}\nafter\n"
    assert written(document, rows, SHAPE_MARKS) == (f"before\n{SHAPE_MARKS[0]}\n\n{rows}\n\n{SHAPE_MARKS[1]}\nafter\n")
