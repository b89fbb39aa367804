"""Ultralytics on a video, in a Python that has it and need not have trtjob: `python ultralytics_rival.py FOLDER VIDEO`.

Makes YOLOv8n of random weights, `yolov8n.pt`, and its export, `yolov8n.onnx`. Then each line on standard input is a
stride, and is answered with the seconds, the CPU's seconds and the count of frames of one `predict`, as JSON.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from ultralytics import YOLO  # type: ignore[import-not-found, unused-ignore]

HW = (384, 640)  # what `predict` makes of 1080p
_SEED, _OPSET = 8, 17
_FRAMES, _APART = 8, 30  # for the statistics


def _make(folder: Path, video: Path) -> Path:
    """Return weights whose activations are alive: batch normalisations have the statistics of some frames."""
    torch.manual_seed(_SEED)
    model = YOLO("yolov8n.yaml")
    reader = cv2.VideoCapture(str(video))
    frames = [cv2.resize(reader.read()[1], HW[::-1]) for _ in range(_FRAMES * _APART)][::_APART]
    pixels = torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2)).float() / 255
    for module in model.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of what it sees, and of nothing before
            module.reset_running_stats()
    with torch.no_grad():
        model.model.train()(pixels)
    weights = folder / "yolov8n.pt"
    model.model.eval()
    model.save(weights)
    YOLO(weights).export(format="onnx", imgsz=HW, opset=_OPSET, simplify=False, verbose=False)
    return weights


def _predict(model: YOLO, video: Path, stride: int) -> dict[str, float]:
    start, cpu_s = time.perf_counter(), time.process_time()
    results = model.predict(str(video), stream=True, vid_stride=stride, device="cpu", verbose=False)
    frames = sum(1 for _ in results)
    return {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu_s, "frames": frames}


def main() -> None:
    folder, video = map(Path, sys.argv[1:])
    model = YOLO(_make(folder, video))
    _predict(model, video, 1_000_000)  # it is loaded
    print(json.dumps({"made": str(folder / "yolov8n.onnx")}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_predict(model, video, int(line))), flush=True)


if __name__ == "__main__":
    main()
