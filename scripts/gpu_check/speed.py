"""Throughput, by `trtjob bench`: the engine alone and files to results, on each engine that runs here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.gpu_check import need
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.watch import GpuWatch
from scripts.gpu_check.wishes import ROOT, Wishes


def check(wishes: Wishes) -> Iterator[Row]:
    needs: dict[str, Callable[[], object]] = {
        "onnxruntime": lambda: None,
        "tensorrt": lambda: need.tensorrt(wishes.home),
    }
    for path in wishes.models:
        for engine, needed in needs.items():
            try:
                needed()
                with GpuWatch() as watch:
                    document = _bench(path, engine, wishes)
                yield from rows_of(document, path.name)
                yield _busy(path.name, document, watch)
            except NotRun as err:
                yield Row(f"{path.name}, {engine}", State.NOT_RUN, note=str(err))


def _bench(path: Path, engine: str, wishes: Wishes) -> dict[str, Any]:
    command = [sys.executable, "-m", "trtjob", "bench", str(path), "--json", "--engine", engine]
    ended = subprocess.run(
        [*command, "--seconds", str(wishes.seconds)],
        cwd=ROOT,
        env={**os.environ, "TRTJOB_HOME": str(wishes.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"trtjob bench ended with exit code {ended.returncode}: {ended.stderr.strip()[-300:]}")
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def rows_of(document: dict[str, Any], model: str) -> Iterator[Row]:
    """Return the rows of what `trtjob bench --json` printed."""
    where = _where(document)
    for rate in document["engine_alone"]:
        note = f"{rate['call_ms']:.2f} ms a call, {document['engine']['callers']} callers; {where}"
        yield Row(f"{model}: engine alone, batch {rate['batch']}", figure=_per_s(rate), note=note)
    for sample in document["samples"]:
        name = f"{model}: {sample['name']}"
        for key, what in (("annotated", "annotated"), ("json_only", "JSON only")):
            rate = sample[key]
            shares = f"{rate['of_engine']:.0%} of the engine alone; cores busy {rate['cores_busy']:.0%}; {where}"
            yield Row(f"{name}, files to results, {what}", figure=_per_s(rate), note=shares)
        ratio = sample["annotated"]["images_per_s"] / sample["json_only"]["images_per_s"]
        yield Row(f"{name}, annotated / JSON only", figure=f"{ratio:.2f}")
        phases = ", ".join(f"{phase} {ms:.2f}" for phase, ms in sample["phases_ms"].items())
        yield Row(f"{name}, ms an image by phase", figure=phases, note="in one thread, one phase after another")
        yield Row(f"{name}, what limits", note=sample["limit"])


def _where(document: dict[str, Any]) -> str:
    if document["engine"]["name"] == "onnxruntime":
        return f"on the CPU, {document['cores']} cores: the GPU does nothing"
    return str(document["engine"]["device"])


def _per_s(rate: dict[str, Any]) -> str:
    return f"{rate['images_per_s']:.0f} images/s"


def _busy(model: str, document: dict[str, Any], watch: GpuWatch) -> Row:
    name = f"{model}, {document['engine']['name']}: GPU busy"
    share = watch.gpu(document["elapsed_s"])
    if not share:
        return Row(name, State.NOT_RUN, note=f"nobody says how busy it is: {watch.how}")
    return Row(name, figure=share, note=f"{watch.how}, over all that was measured; {_where(document)}")
