"""What the seams between shards cost: the same images in one shard and in shards of 256, through a real node."""

import statistics
from pathlib import Path

from benchmarks.node import node
from benchmarks.table import Row
from trtjob.bench.synthetic_images import write_pictures
from trtjob.converters.registry import RegisteredModel
from trtjob.jobs.spec import Annotate

SHARD = 256
LOSS_GOAL = 2.0
REPEATS = 5


def shard_boundary(folder: Path, home: Path, model: RegisteredModel, count: int) -> list[Row]:
    """Return the share of the speed that is lost between shards: the median of pairs of runs, one after the other."""
    source = write_pictures(folder / "seam", "640x480", count)
    losses, elapsed = [], {}
    with node(home) as running:
        running.wait_for_worker()
        for repeat in range(-1, REPEATS):  # the first loads the model
            for size in (count, SHARD):
                output = folder / f"seam-{size}-{repeat}"
                job_id = running.submit(source, model, output, annotate=Annotate.NONE, shard_size=size).job_id
                view = running.wait(job_id)
                assert view.started_at is not None
                assert view.finished_at is not None
                elapsed[size] = view.finished_at - view.started_at
            if repeat >= 0:
                losses.append((elapsed[SHARD] / elapsed[count] - 1) * 100)
    loss = statistics.median(losses)
    note = f"{count} images, {len(losses)} pairs: {', '.join(f'{x:+.1f}' for x in losses)}"
    return [Row("speed lost between shards of 256", loss, "%", f"< {LOSS_GOAL:g}", loss < LOSS_GOAL, note)]
