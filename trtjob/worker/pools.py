"""How much a worker process does at once: its limits, and its threads."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore

from trtjob.config import Settings
from trtjob.engines.protocol import Engine
from trtjob.worker.engine import threads_of
from trtjob.worker.stages import POOLS

# Room for every thread to have one image in hand and one waiting.
_WINDOW_BASE, _WINDOW_PER_THREAD = 8, 4


@dataclass(frozen=True, slots=True)
class Limits:
    """threads: of the stages before and after the engine, each; batch: images in one call of the engine;
    window: images in the pipeline at once; requests: to a bucket at once."""

    threads: int
    batch: int
    window: int
    requests: int = 32

    @classmethod
    def of(cls, settings: Settings, engine: Engine) -> "Limits":
        """Return a worker process's limits: what the settings say, or what suits the engine and the cores."""
        threads, batch = threads_of(settings), settings.batch or engine.max_batch
        window = settings.window or max(_WINDOW_BASE + _WINDOW_PER_THREAD * threads, 3 * batch)
        return cls(threads, batch, window, settings.requests)


class Pools:
    """The threads of a worker process, kept from shard to shard."""

    def __init__(self, limits: Limits, concurrency: int) -> None:
        self.limits = limits
        self.concurrency = concurrency
        sizes = {"decode": limits.threads, "infer": concurrency, "finish": limits.threads}
        # One more than can work at once: while it reads or writes, the others have the cores.
        sizes["whole"] = max(limits.threads, concurrency) + 1
        self.engine_slots = BoundedSemaphore(concurrency)  # also for what a shard that was left still runs
        self.pools = {name: ThreadPoolExecutor(size, f"trtjob-{name}") for name, size in sizes.items()}

    def close(self) -> None:
        for pool in self.pools.values():
            pool.shutdown(wait=True, cancel_futures=True)

    def size(self, name: str) -> int:
        return self.pools[name]._max_workers if name in self.pools else self.limits.requests

    def shares(self, busy_s: dict[str, float], elapsed_s: float) -> dict[str, float]:
        """Return how busy each pool was, 0 to 1, from seconds of work by stage; requests only where there were any."""
        seconds = {name: sum(busy_s.get(stage, 0.0) for stage in stages) for name, stages in POOLS.items()}
        return {
            name: round(worked / elapsed_s / self.size(name), 3)
            for name, worked in seconds.items()
            if worked or name in self.pools
        }
