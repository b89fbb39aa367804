"""Ultralytics' own `predict` over the same pictures, in a process of its own: PyTorch brings its own CUDA libraries."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from scripts.gpu_check import need
from scripts.gpu_check.options import ROOT
from scripts.gpu_check.rows import NotRun, Row

BATCH, SIDE = 32, 640
WARM_UP = 4 * BATCH
MANY = 20_000  # for one call of theirs: more than it does in the time


@dataclass(frozen=True, slots=True)
class Predicted:
    """images_per_s: with pictures saved or not; boxes: of an image."""

    name: str
    images_per_s: dict[bool, float]
    boxes: float

    def rows(self) -> Iterator[Row]:
        for is_saved, rate in self.images_per_s.items():
            how = "pictures saved" if is_saved else "nothing saved"
            note = f"half, batch {BATCH}, stream; {self.boxes:.1f} boxes an image"
            yield Row(f"yolov8n, {self.name}, {how}", figure=f"{rate:.0f}", note=note)


def predicted(source: Path, output: Path, seconds: float, device: str = "cuda:0") -> Predicted:
    """Measure YOLOv8n in half precision over a folder again and again, without saved pictures and with them.

    Raises NotRun.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    ultralytics: Any = need.module("ultralytics", "Ultralytics")
    torch: Any = need.module("torch", "PyTorch")
    if device != "cpu" and not torch.cuda.is_available():
        raise NotRun("PyTorch finds no GPU")
    model = import_module("scripts.gpu_models.yolov8n").lively()
    many = output / "pictures"
    many.mkdir(parents=True)
    for number, path in zip(range(MANY), cycle(sorted(source.iterdir())), strict=False):
        (many / f"{number:06d}.jpg").hardlink_to(path)
    rates, boxes = {}, 0.0
    for is_saved in (False, True):
        results = model.predict(
            str(many),
            imgsz=SIDE,
            batch=BATCH,
            half=True,
            stream=True,
            save=is_saved,
            device=device,
            project=str(output),
            name="saved",
            exist_ok=True,
            verbose=False,
        )
        with closing(results):  # which lets its predictor go
            boxes = sum(len(result.boxes) for result in islice(results, WARM_UP)) / WARM_UP
            rates[is_saved] = _rate(results, seconds)
    return Predicted(f"Ultralytics {ultralytics.__version__}", rates, boxes)


def predicted_by(python: Path, path: Path | None, source: Path, output: Path, seconds: float) -> Predicted:
    """Have another Python measure it. path: a folder of packages that it lacks. Raises NotRun."""
    ended = subprocess.run(
        [python, "-m", __name__, source, output, str(seconds)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, path))))},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise NotRun(f"Ultralytics gave no figure and ended with {ended.returncode}; its errors are above")
    said = json.loads(lines[-1])
    return Predicted(said["name"], {False: said["plain"], True: said["saved"]}, said["boxes"])


def _rate(results: Iterator[Any], seconds: float) -> float:
    """Return images per second, by whole batches."""
    images, begin = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - begin) < seconds or not images:
        images += len(list(islice(results, BATCH)))
    return images / elapsed_s


if __name__ == "__main__":
    here = predicted(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
    rates = here.images_per_s
    print(json.dumps({"name": here.name, "plain": rates[False], "saved": rates[True], "boxes": here.boxes}))
