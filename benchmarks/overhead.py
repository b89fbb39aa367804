"""What queue, commits and storage cost beside the pipeline: the same images with them and without."""

import os
import time
from pathlib import Path

import cv2

from benchmarks.constant import ConstantEngine
from benchmarks.host import cpu_s, job_spec, run_pipeline
from benchmarks.node import node
from benchmarks.table import Row
from trtjob.bench.synthetic_images import make_picture
from trtjob.config import Settings
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.jobs.states import FINISHED
from trtjob.queue.submit import submit
from trtjob.storage.listing import Listing
from trtjob.worker.context import Context, set_current
from trtjob.worker.heartbeat import HeartbeatThread
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.limits import PipelineLimits
from trtjob.worker.rq_worker import UnitWorker

GOAL_MS = 1.0


def overhead(folder: Path, home: Path, count: int) -> list[Row]:
    """Return the rows of the cost, in wall and CPU time, of everything that makes a job safe."""
    source = folder / "tiny"
    source.mkdir()
    _, data = cv2.imencode(".jpg", cv2.resize(make_picture("640x480", 1), (64, 48)))
    for index in range(count):
        (source / f"{index:06d}.jpg").write_bytes(data.tobytes())
    spec = job_spec(source, folder / "tiny-out", annotate=Annotate.NONE)
    bare_wall, bare_cpu = _bare(spec, source)
    wall, cpu = _with_queue(spec, home)
    rows = []
    for name, value, bare in (("wall", wall, bare_wall), ("CPU", cpu, bare_cpu)):
        extra = (value - bare) / count * 1000
        note = f"{value / count * 1000:.2f} with, {bare / count * 1000:.2f} without"
        rows.append(
            Row(f"queue, commits, storage: {name}", extra, "ms/image", f"<= {GOAL_MS:g}", extra <= GOAL_MS, note)
        )
    return rows


def _bare(spec: JobSpec, source: Path) -> tuple[float, float]:
    with ConstantEngine() as engine:
        entries = list(Listing(source))
        pipeline = Pipeline(engine, PipelineLimits.of(Settings(), engine))
        run_pipeline(pipeline, spec, entries[:64])
        wall, cpu = time.perf_counter(), cpu_s(pipeline)
        run_pipeline(pipeline, spec, entries)
        taken = time.perf_counter() - wall, cpu_s(pipeline) - cpu
        pipeline.close()
    return taken


def _with_queue(spec: JobSpec, home: Path) -> tuple[float, float]:
    """Run the whole job in this process: submission, plan, shards through RQ, commits, finish."""
    with node(home, workers=0) as server:
        context = Context("bench", Settings(home=home), server.store, server.queue)
        set_current(context)
        heart = HeartbeatThread(context, server.connection.heartbeat())
        engine = ConstantEngine()
        pipeline = context.adopt_engine(spec.model, engine)
        heart.start()
        worker = UnitWorker(context, heart, server.connection.redis, server.queue.name)
        wall, cpu = time.perf_counter(), cpu_s(pipeline)
        submit(server.store, server.queue, spec)
        worker.work(burst=True, logging_level="ERROR")
        taken = time.perf_counter() - wall, cpu_s(pipeline) - cpu
        heart.end()
        context.close_engine()
        state = server.store.state(spec.job_id)
        if state not in FINISHED:
            raise RuntimeError(f"the job ended as {state} (pid {os.getpid()})")
    return taken
