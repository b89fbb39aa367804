"""What the host can feed: the pipeline around an engine that costs nothing, by image processes.

A GPU faster than this waits, whatever it is; so these figures are what one GPU's worker process can reach at the most.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.constant import ConstantEngine
from benchmarks.host import job_spec
from scripts.gpu_check.fed import Fed, feed
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import Row
from trtjob.bench.synthetic_images import SIZES, write_pictures
from trtjob.config import Settings
from trtjob.jobs.spec import Annotate
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.limits import PipelineLimits

BATCH, CALLERS = 32, 4  # as the engines for a GPU have them by default
FILES = 64


def check(options: CheckOptions) -> Iterator[Row]:
    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory(prefix="trtjob-gpu-check-") as temporary:
        folder = Path(temporary)
        sources = {size: write_pictures(folder / size, size, FILES) for size in SIZES}
        for processes in counts(cores):
            found = _fed(processes, sources, folder / "out", options.seconds)
            name = f"{processes} image process{'es' if processes > 1 else ''}"
            busy = " / ".join(f"{fed.cores:.1f}" for fed in found)
            figure = " / ".join(f"{fed.images_per_s:.0f}" for fed in found)
            yield Row(name, figure=figure, note=f"{busy} of {cores} cores in use")


def counts(cores: int) -> list[int]:
    """Return how many image processes to try: ever twice as many, up to one for each core."""
    return sorted({*(1 << power for power in range(cores.bit_length())), cores})


def _fed(processes: int, sources: dict[str, Path], output: Path, seconds: float) -> list[Fed]:
    """Return what a pipeline does with each size, annotated and not."""
    with ConstantEngine(max_batch=BATCH, concurrency=CALLERS) as engine:
        limits = PipelineLimits.of(Settings(image_processes=processes), engine)
        pipeline = Pipeline(engine, limits)
        try:
            cases = [(source, how) for source in sources.values() for how in (Annotate.ALL, Annotate.NONE)]
            return [feed(pipeline, job_spec(source, output, annotate=how), seconds) for source, how in cases]
        finally:
            pipeline.close()
