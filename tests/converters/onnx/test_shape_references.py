"""Exports with masks, keypoints and rotated boxes find what Ultralytics' own predict found on the same files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import answer_of
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import Detection, RotatedBox
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import prepare
from trtjob.imaging.rle import mask_from

CASES = (
    "ultralytics_yolo11_seg",
    "ultralytics_yolo11_seg_nms",
    "ultralytics_yolov8_pose",
    "ultralytics_yolo26_pose",
    "ultralytics_yolo11_obb",
)
IMAGES = ("coffee.png", "grace_hopper.jpg", "chelsea.png")
NEAR_CONF = 0.005


@dataclass(frozen=True)
class Case:
    told: dict[str, Any]
    found: dict[str, tuple[Detection, ...]]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = shared / "detectors" / request.param
    told = json.loads((folder / "expected.json").read_text())
    registry = ModelRegistry(tmp_path_factory.mktemp("models"))
    model = convert_model(ConversionRequest(model=folder / "model.onnx", name="case"), registry=registry)
    found = {}
    with open_engine(model.path, threads=1) as engine:
        for name in IMAGES:
            image = decode_image((shared / "images" / name).read_bytes(), max_pixels=1_000_000)
            tensor, placement = prepare(image, model.spec, model.spec.resize)
            found[name] = detections_from(
                answer_of(engine, tensor),
                placement,
                model.spec,
                hw=(image.shape[0], image.shape[1]),
                min_score=told["conf"] - NEAR_CONF,
                iou=model.spec.iou,
            ).detections
    return Case(told, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_what_ultralytics_finds_is_found(case: Case, name: str) -> None:
    told, found = case.told["images"][name], case.found[name]
    least = case.told["conf"] + NEAR_CONF
    # A network that was not trained may place the right edge left of the left one: that is no box of ours.
    certain = [
        index
        for index, (score, (x1, y1, x2, y2)) in enumerate(zip(told["scores"], told["boxes"], strict=True))
        if score > least and x2 > x1 and y2 > y1
    ]
    assert len(certain) > 3
    assert len(found) >= len(certain)
    assert sum(item.score > least for item in found) <= len(told["scores"])
    for index in certain:
        _expect_same(_nearest(found, told, index), told, index)


def _nearest(found: tuple[Detection, ...], told: dict[str, Any], index: int) -> Detection:
    same = [item for item in found if item.class_id == told["classes"][index]]
    return min(same, key=lambda item: abs(item.score - told["scores"][index]))


def _expect_same(ours: Detection, told: dict[str, Any], index: int) -> None:
    width, height = told["size"]
    box = np.clip(told["boxes"][index], 0, [width, height, width, height])
    np.testing.assert_allclose(ours.box, box, atol=0.5)
    assert abs(ours.score - told["scores"][index]) < 2e-3
    if "masks_in_the_image" in told:
        assert ours.mask is not None
        assert abs(ours.mask.area / told["masks_in_the_image"]["area"][index] - 1) < 0.01
        runs = told["masks_in_the_image"]["rle_of_the_first"]
        if index < len(runs):
            theirs, pixels = mask_from(np.array(runs[index]), (height, width)), ours.mask.decode()
            assert (theirs & pixels).sum() / (theirs | pixels).sum() >= 0.99
    if "keypoints" in told:
        np.testing.assert_allclose(np.array(ours.keypoints)[:, :2], np.array(told["keypoints"][index])[:, :2], atol=0.1)
        np.testing.assert_allclose(np.array(ours.keypoints)[:, 2], np.array(told["keypoints"][index])[:, 2], atol=5e-3)
    if "corners" in told:
        assert ours.rotated is not None
        assert _rotated_iou(ours.rotated, np.array(told["corners"][index]).reshape(4, 2)) >= 0.99


def _rotated_iou(ours: RotatedBox, corners: np.ndarray) -> float:
    one, other = np.array(ours.corners, np.float32), corners.astype(np.float32)
    common, _ = cv2.intersectConvexConvex(one, other)
    return common / (cv2.contourArea(one) + cv2.contourArea(other) - common)
