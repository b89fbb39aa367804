"""CPU time of the host for one image, with an engine that costs nothing."""

import asyncio
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from bench.constant import ConstantEngine
from bench.table import Row
from trtjob.jobs.listing import Listing
from trtjob.jobs.models import Annotate, JobSpec, ModelRef, Options, Source
from trtjob.jobs.records import Record
from trtjob.jobs.storage import LocalStorage
from trtjob.worker.pictures import SIZES, write_pictures
from trtjob.worker.pipeline import Pipeline
from trtjob.worker.pools import Limits, Pools
from trtjob.worker.stages import Stages

ROUNDS = 5  # the best counts: what disturbs a machine only ever adds
LIMITS_MS = {
    ("640x480", "all"): 12.0,
    ("1920x1080", "all"): 27.0,
    ("640x480", "none"): 3.5,
    ("1920x1080", "none"): 12.0,
}


def job_spec(source: Path, output: Path, *, annotate: Annotate = Annotate.ALL, shard_size: int = 256) -> JobSpec:
    """Return the specification of a job for a constant engine."""
    return JobSpec(
        job_id="bench",
        source=Source(kind="folder", root=str(source)),
        model=ModelRef(name="constant", sha256="0" * 64, path="/none", task="detect", labels=("a",)),
        options=Options(
            conf=0.25, min_score=0.05, iou=0.45, annotate=annotate, resize="stretch", shard_size=shard_size
        ),
        output=str(output),
        created_at=time.time(),
        versions={},
    )


async def _open(_: list[str]) -> None:
    """A gate that lets everything in."""


def run_pipeline(pipeline: Pipeline, entries: Iterable[object]) -> list[Record]:
    records: list[Record] = []
    asyncio.run(pipeline.run(entries, _open, records.append))  # type: ignore[arg-type]
    return records


def host_cost(folder: Path, count: int) -> list[Row]:
    """Return the rows of the host's cost, by size and with and without annotation."""
    cv2.setNumThreads(1)
    rows = []
    for size in SIZES:
        source = write_pictures(folder / size, size, count)
        entries = list(Listing(source))
        decoding_ms = _decoding_ms(source)
        for annotate in (Annotate.ALL, Annotate.NONE):
            output = folder / "out"
            with ConstantEngine() as engine:
                pools = Pools(Limits(2, 1, 16), engine.concurrency)
                stages = Stages(
                    job_spec(source, output, annotate=annotate),
                    engine.spec,
                    LocalStorage(output),
                    max_pixels=200_000_000,
                    jpeg_quality=90,
                )
                pipeline = Pipeline(stages, engine, pools)
                run_pipeline(pipeline, entries[:12])
                best = float("inf")
                for _ in range(ROUNDS):
                    before, start = time.process_time(), time.perf_counter()
                    records = run_pipeline(pipeline, entries)
                    cpu_ms = (time.process_time() - before) / len(entries) * 1000
                    wall = time.perf_counter() - start
                    if cpu_ms < best:
                        best, rate = cpu_ms, len(entries) / wall
                pools.close()
            boxes = len(records[0].detections or ())
            label = f"host cost {size}, {'annotated' if annotate is Annotate.ALL else 'JSON only'}, {boxes} boxes"
            limit = LIMITS_MS[size, annotate.value]
            note = f"{rate:.0f} images/s; {best / decoding_ms:.1f} x cv2.imdecode alone ({decoding_ms:.2f})"
            rows.append(Row(label, best, "CPU-ms/image", f"<= {limit:g}", best <= limit, note))
            print_stages(stages, len(entries) * ROUNDS + 12)
            shutil.rmtree(output, ignore_errors=True)
        shutil.rmtree(source)
    return rows


def _decoding_ms(source: Path) -> float:
    """Return the CPU-ms that OpenCV alone takes to decode an image: no pipeline can do with less on this machine."""
    files = [np.frombuffer(path.read_bytes(), np.uint8) for path in source.iterdir()]
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        for data in files:
            cv2.imdecode(data, cv2.IMREAD_COLOR)
        best = min(best, (time.process_time() - before) / len(files) * 1000)
    return best


def print_stages(stages: Stages, images: int) -> None:
    """Show where the milliseconds go (wall time in the threads, so waiting for a core counts)."""
    parts = (f"{stage} {seconds / images * 1000:.2f}" for stage, seconds in stages.watch.busy_s().items())
    print("    ms/image by stage: " + ", ".join(parts), flush=True)
