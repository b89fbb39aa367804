"""What limits the speed of a pipeline, in one sentence, from what was measured of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from trtjob.counted import counted

# From this share of its rate alone on, the engine is what the rest waits for; short of it, it may still be.
ENGINE_AT_LIMIT = 0.9
NEAR_LIMIT = 0.8
CORES_FULL = 0.85  # the rest is hand-over between threads

_WORK = {
    "read": "reading the files",
    "decode": "decoding the images",
    "resize": "resizing",
    "thumbnail": "making thumbnails",
    "nms": "suppressing overlapping boxes",
    "record": "writing records",
    "draw": "drawing",
    "encode": "encoding the annotated copies",
    "write": "writing the annotated copies",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured of a pipeline and of its engine alone.

    of_engine: images per second as a share of the engine's alone; host_cpu_ms, engine_cpu_ms: CPU time of an image, of
    which the latter is most where the engine runs on the cores; cores_busy: share of all cores' time that is used, by
    whomever; stages_ms: milliseconds of an image by stage, in one thread.
    """

    images_per_s: float
    of_engine: float
    host_cpu_ms: float
    engine_cpu_ms: float
    cores: int
    cores_busy: float
    stages_ms: Mapping[str, float]


def describe_bottleneck(load: Load) -> str:
    """Say what limits the speed.

    >>> load = Load(20, of_engine=0.95, host_cpu_ms=10, engine_cpu_ms=90, cores=2, cores_busy=1, stages_ms={})
    >>> describe_bottleneck(load)
    "bound by the engine: everything around it takes 10% of an image's CPU time"
    """
    if load.of_engine >= ENGINE_AT_LIMIT:
        return _by_engine(load)
    if load.cores_busy >= CORES_FULL:
        return _by_engine(load) if load.engine_cpu_ms >= load.host_cpu_ms else _by_host(load)
    return _by_engine(load) if load.of_engine >= NEAR_LIMIT else _by_neither(load)


def _by_engine(load: Load) -> str:
    if load.engine_cpu_ms >= load.host_cpu_ms:
        share = load.host_cpu_ms / (load.host_cpu_ms + load.engine_cpu_ms)
        return f"bound by the engine: everything around it takes {share:.0%} of an image's CPU time"
    share = load.host_cpu_ms * load.images_per_s / 1000 / load.cores
    return f"bound by the engine: everything around it takes {share:.0%} of the time of {counted(load.cores, 'core')}"


def _by_host(load: Load) -> str:
    stages = {stage: ms for stage, ms in load.stages_ms.items() if stage in _WORK}
    largest = max(stages, key=lambda stage: stages[stage])
    share = stages[largest] / sum(stages.values())
    return (
        f"bound by {_WORK[largest]} on {counted(load.cores, 'core')}: {share:.0%} of the work around the engine, which "
        f"alone would do {1 / load.of_engine:.1f} times as many images"
    )


def _by_neither(load: Load) -> str:
    return (
        f"bound by neither the engine ({load.of_engine:.0%} of its rate alone) nor {counted(load.cores, 'core')} "
        f"({load.cores_busy:.0%} busy): files come slowly, or more threads or worker processes could use the cores "
        "(trtjob worker --threads, --processes)"
    )
