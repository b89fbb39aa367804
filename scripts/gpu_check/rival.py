"""Keras itself on the GPU, by another Python: what began this project was measured against it."""

import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.gpu_check import zoo
from scripts.gpu_check.options import ROOT, CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State

BACKENDS = ("torch", "jax")
MODELS = {"vgg16": "", "yolov3-416": "yolov3-416.cfg", "yolov3-608": "yolov3-608.cfg"}
BATCHES = (1, 8, 32)
LIMIT_S = 100.0  # for each backend and precision: what compiles for longer is left out


def check(options: CheckOptions) -> Iterator[Row]:
    if options.keras_python is None:
        raise NotRun("there is no Python with Keras on the GPU: name it with --keras-python")
    found: list[dict[str, Any]] = []
    for backend in BACKENDS:
        lines = [line | {"backend": backend} for line in _lines(backend, options)]
        found += lines
        if not lines:
            yield Row(f"Keras, {backend}", State.NOT_RUN, note="it gave no figure; its errors are above")
    yield from map(row_of, fastest(found))


def fastest(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the line of the fastest way for each model and precision, or one that says why there is none."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        key = (line["model"], line["precision"])
        if key not in best or _speed(line) > _speed(best[key]):
            best[key] = line
    return list(best.values())


def _speed(line: dict[str, Any]) -> float:
    return max((value or 0.0 for value in line.get("images_per_s", {}).values()), default=0.0)


def _lines(backend: str, options: CheckOptions) -> Iterator[dict[str, Any]]:
    cfgs = [f"{name}={zoo.original(name, options).with_suffix('.cfg')}" for name, cfg in MODELS.items() if cfg]
    command = [str(options.keras_python), str(ROOT / "scripts" / "gpu_models" / "keras_rival.py"), "vgg16", *cfgs]
    path = {} if options.keras_path is None else {"PYTHONPATH": str(_unpacked(options.keras_path, options.home))}
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    process = subprocess.Popen(
        [*command, "--seconds", str(options.seconds), "--limit", str(LIMIT_S), "--batch", *map(str, BATCHES)],
        env={**environment, **path, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
    finally:
        process.kill()
        process.wait()


def _unpacked(folder: Path, home: Path) -> Path:
    """Return a folder of packages: of the wheels in it, unpacked, where it holds any."""
    wheels = sorted(folder.glob("*.whl"))
    target = home / "keras-packages"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    return target if wheels else folder


def row_of(line: dict[str, Any]) -> Row:
    """Return the row of a line of keras_rival.py."""
    name = f"{line['model']}, {line['precision']}"
    if "problem" in line:
        return Row(name, State.NOT_RUN, note=f"{line['backend']}, {line['how']}: {line['problem']}")
    figure = " / ".join("-" if value is None else f"{value:.0f}" for value in line["images_per_s"].values())
    return Row(name, figure=figure, note=f"Keras {line['keras']} on {line['backend']}, {line['how']}, {line['device']}")
