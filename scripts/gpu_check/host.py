"""What the host can feed: the pipeline around an engine that costs nothing, by image processes.

A GPU faster than this waits, whatever it is; so these figures are what one GPU's worker process can reach at the most.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.constant import ConstantEngine
from bench.host import cpu_s, job_spec
from scripts.gpu_check.rows import Row
from scripts.gpu_check.wishes import Wishes
from trtjob.config import Settings
from trtjob.jobs.listing import Entry, Listing
from trtjob.jobs.models import Annotate
from trtjob.worker.pictures import SIZES, write_pictures
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.pipeline.limits import Limits

BATCH, CALLERS = 32, 4  # as the engines for a GPU have them by default
WARM_UP_S = 0.7
FILES = 64


def check(wishes: Wishes) -> Iterator[Row]:
    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory(prefix="trtjob-gpu-check-") as temporary:
        folder = Path(temporary)
        sources = {size: write_pictures(folder / size, size, FILES) for size in SIZES}
        for processes in counts(cores):
            rates, used = _fed(processes, sources, folder / "out", wishes.seconds)
            name = f"{processes} image process{'es' if processes > 1 else ''}"
            busy = " / ".join(f"{cores_used:.1f}" for cores_used in used)
            yield Row(name, figure=" / ".join(f"{rate:.0f}" for rate in rates), note=f"{busy} of {cores} cores in use")


def counts(cores: int) -> list[int]:
    """Return how many image processes to try: ever twice as many, up to one for each core."""
    return sorted({*(1 << power for power in range(cores.bit_length())), cores})


def _fed(processes: int, sources: dict[str, Path], output: Path, seconds: float) -> tuple[list[float], list[float]]:
    """Return the images per second, and the cores in use, of each size, annotated and not."""
    with ConstantEngine(max_batch=BATCH, concurrency=CALLERS) as engine:
        limits = Limits.of(Settings(image_processes=processes), engine)
        pipeline = Pipeline(engine, limits)
        try:
            cases = [(source, annotate) for source in sources.values() for annotate in (Annotate.ALL, Annotate.NONE)]
            found = [feed(pipeline, source, output, annotate, seconds) for source, annotate in cases]
        finally:
            pipeline.close()
    return [rate for rate, _ in found], [used for _, used in found]


def feed(pipeline: Pipeline, source: Path, output: Path, annotate: Annotate, seconds: float) -> tuple[float, float]:
    """Return the images per second of a pipeline, once it is full, and the cores that it used."""
    started = time.monotonic()
    begin, end = started + WARM_UP_S, started + WARM_UP_S + seconds
    done: list[float] = []
    cpu: list[float] = []

    def on_done(outcome: Outcome) -> None:
        if outcome.failure is not None:
            raise RuntimeError(f"{outcome.key}: {outcome.failure}")
        if begin <= (now := time.monotonic()) < end:
            done.append(now)
            if len(done) == 1:
                cpu.append(cpu_s(pipeline))

    def entries() -> Iterator[Entry]:
        for entry in cycle(list(Listing(source))):
            if time.monotonic() >= end:
                return
            yield entry

    asyncio.run(pipeline.run(job_spec(source, output, annotate=annotate), entries(), on_done))
    return len(done) / seconds, (cpu_s(pipeline) - cpu[0]) / (time.monotonic() - done[0])
