"""A user runs Ultralytics' exports that say more than boxes."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from converters.onnx import graphs
from terminal import Terminal, job_folder

from trtjob.jobs.records import from_line

EXPORTS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "segment": ({"task": "segment"}, {"extras": 8, "prototypes": 8}),
    "pose": ({"task": "pose", "kpt_shape": "[2, 3]"}, {"extras": 6}),
    "obb": ({"task": "obb"}, {"extras": 1}),
}


def model(kind: str, folder: Path) -> Path:
    said, more = EXPORTS[kind]
    graphs.save(graphs.detector(metadata={**graphs.ULTRALYTICS, **said}, **more), folder / f"{kind}.onnx")
    return folder / f"{kind}.onnx"


def pictures(folder: Path) -> Path:
    """Make some pictures of grain, each of a colour."""
    folder.mkdir()
    for number, shade in enumerate(np.random.default_rng(4).integers(0, 200, (6, 3))):
        grain = np.random.default_rng(number).integers(0, 56, (60, 80, 3))
        cv2.imwrite(str(folder / f"{number}.png"), grain + shade)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPORTS)
def test_records_say_more_than_boxes_however_the_work_is_divided(kind: str, terminal: Terminal, tmp_path: Path) -> None:
    photos, path = pictures(tmp_path / "photos"), model(kind, tmp_path)
    more = ["--polygons"] if kind == "segment" else []

    def results(output: str, *options: str) -> bytes:
        outcome = terminal.here("run", photos, "--model", path, "-o", tmp_path / output, *more, *options)
        assert outcome.code == 0, outcome.err
        return (job_folder(tmp_path / output) / "results.jsonl").read_bytes()

    written = results("out")
    found = [item for record in map(from_line, written.splitlines()) for item in record.detections or ()]
    assert found
    for item in found:
        _expect(kind, item)
    job: dict[str, Any] = json.loads((job_folder(tmp_path / "out") / "job.json").read_text())
    assert job["model"]["keypoints"] == (["keypoint_0", "keypoint_1"] if kind == "pose" else [])
    assert results("small", "--shard-size", "1") == written


def _expect(kind: str, item: Any) -> None:
    told = {"segment": item.mask, "pose": item.keypoints, "obb": item.rotated}
    assert {name for name, value in told.items() if value is not None} == {kind}
    if kind == "segment":
        pixels = item.mask.decode()
        assert pixels.shape == (60, 80)
        assert item.mask.area == pixels.sum() > 0
        assert item.polygons is not None
