"""A pipeline that is fed without end, and what it does once it is full."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from trtjob.errors import TrtjobError
from trtjob.jobs.spec import JobSpec
from trtjob.storage.listing import Entry, Listing
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome

WARM_UP_S = 0.7  # from the first image that is done


class _Moment(NamedTuple):
    at_s: float
    images: int
    calls: int
    own_s: float
    others_s: float
    decoding_s: float


@dataclass(frozen=True, slots=True)
class Fed:
    """What a pipeline did. calls: of the engine; own_cores, other_cores: in use by this process, and by the image
    processes; decoding: the share of the time in which the GPU's decoder was at work."""

    images_per_s: float
    images: int
    calls: int
    own_cores: float
    other_cores: float
    decoding: float

    @property
    def cores(self) -> float:
        return self.own_cores + self.other_cores


def feed(pipeline: Pipeline, job: JobSpec, seconds: float, calls: Callable[[], int] = lambda: 0) -> Fed:
    """Feed a job's images again and again, and measure once the pipeline is full. calls: of the engine so far.

    Raises TrtjobError where an image fails.
    """
    due_s: list[float] = []
    moments: list[_Moment] = []
    images = 0

    def on_done(outcome: Outcome) -> None:
        nonlocal images
        if outcome.failure is not None:
            raise TrtjobError(f"{outcome.key}: {outcome.failure}")
        images += 1
        now = time.monotonic()
        if not due_s:
            due_s.extend((now + WARM_UP_S, now + WARM_UP_S + seconds))
        if len(moments) < len(due_s) and now >= due_s[len(moments)]:
            decoder = pipeline.batches.decoder
            decoding_s = 0.0 if decoder is None else decoder.busy_s
            others_s = pipeline.process_pool.cpu_s()
            moments.append(_Moment(now, images, calls(), time.process_time(), others_s, decoding_s))

    def entries() -> Iterator[Entry]:
        for entry in cycle(list(Listing(Path(job.source.root)))):
            if len(moments) == 2:
                return
            yield entry

    asyncio.run(pipeline.run(job, entries(), on_done))
    begin, end = moments
    images, elapsed_s = end.images - begin.images, end.at_s - begin.at_s
    return Fed(
        images / elapsed_s,
        images,
        end.calls - begin.calls,
        own_cores=(end.own_s - begin.own_s) / elapsed_s,
        other_cores=(end.others_s - begin.others_s) / elapsed_s,
        decoding=(end.decoding_s - begin.decoding_s) / elapsed_s,
    )
