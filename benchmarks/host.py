"""CPU time of the host for one image, with an engine that costs nothing."""

import asyncio
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.constant import ConstantEngine
from benchmarks.table import Row
from trtjob.bench.synthetic_images import SIZES, write_pictures
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.records import from_line
from trtjob.jobs.spec import Annotate, JobSpec, ModelRef, Options, Source
from trtjob.storage.listing import Entry, Listing
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.pipeline.limits import PipelineLimits

ROUNDS = 5  # the best counts: what disturbs a machine only ever adds
LIMITS_MS = {
    ("640x480", "all"): 4.5,
    ("1920x1080", "all"): 27.0,
    ("640x480", "none"): 2.6,
    ("1920x1080", "none"): 12.0,
}


def job_spec(source: Path, output: Path, *, annotate: Annotate = Annotate.ALL, shard_size: int = 256) -> JobSpec:
    """Return the specification of a job for a constant engine; its own folder is there."""
    job = JobSpec(
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
    JobFolder.of(job).storage.make_root()
    return job


def run_pipeline(pipeline: Pipeline, job: JobSpec, entries: Iterable[Entry]) -> list[Outcome]:
    """Take entries through a pipeline. Returns what has become of each."""
    outcomes: list[Outcome] = []
    asyncio.run(pipeline.run(job, entries, outcomes.append))
    return outcomes


def cpu_s(pipeline: Pipeline) -> float:
    """Return the CPU time of this process and of the image processes."""
    return time.process_time() + pipeline.process_pool.cpu_s()


def host_cost(folder: Path, count: int) -> list[Row]:
    """Return the rows of the host's cost, by size and with and without annotation."""
    rows = []
    with ConstantEngine() as engine:
        pipeline = Pipeline(engine, PipelineLimits(processes=2, batch=1, slots=16))
        for size in SIZES:
            source = write_pictures(folder / size, size, count)
            decoding_ms = _decoding_ms(source)
            for annotate in (Annotate.ALL, Annotate.NONE):
                rows.append(_host_row(pipeline, source, folder / "out", size, annotate, decoding_ms))
                shutil.rmtree(folder / "out", ignore_errors=True)
            shutil.rmtree(source)
        pipeline.close()
    return rows


def _host_row(pipeline: Pipeline, source: Path, output: Path, size: str, annotate: Annotate, decoding_ms: float) -> Row:
    job, entries = job_spec(source, output, annotate=annotate), list(Listing(source))
    run_pipeline(pipeline, job, entries[:12])
    busy_s, best, rate = pipeline.busy_s(), float("inf"), 0.0
    for _ in range(ROUNDS):
        before, start = cpu_s(pipeline), time.perf_counter()
        outcomes = run_pipeline(pipeline, job, entries)
        cpu_ms = (cpu_s(pipeline) - before) / len(entries) * 1000
        if cpu_ms < best:
            best, rate = cpu_ms, len(entries) / (time.perf_counter() - start)
    boxes = len(from_line(outcomes[0].line).detections or ())
    label = f"host cost {size}, {'annotated' if annotate is Annotate.ALL else 'JSON only'}, {boxes} boxes"
    limit = LIMITS_MS[size, annotate.value]
    note = f"{rate:.0f} images/s; {best / decoding_ms:.1f} x cv2.imdecode alone ({decoding_ms:.2f})"
    print_stages(busy_s, pipeline.busy_s(), len(entries) * ROUNDS)
    return Row(label, best, "CPU-ms/image", f"<= {limit:g}", best <= limit, note)


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


def print_stages(before: dict[str, float], after: dict[str, float], images: int) -> None:
    """Show where the milliseconds go (wall time, so waiting for a core counts)."""
    parts = (f"{stage} {(after[stage] - before.get(stage, 0.0)) / images * 1000:.2f}" for stage in after)
    print("    ms/image by stage: " + ", ".join(parts), flush=True)
