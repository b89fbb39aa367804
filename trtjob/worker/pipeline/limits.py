"""How much a worker process does at once, and how much memory that may take."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtjob.config import Settings
from trtjob.cpus import usable_cpus
from trtjob.memory import usable_bytes

if TYPE_CHECKING:
    from trtjob.engines.protocol import Engine

# Images that an image process has in hand: one in work, one behind it, and those that wait for the engine or come back.
_SLOTS_PER_PROCESS = 6
_SLOTS_DECODING = 12  # where the GPU may decode, and more come at once
_BATCHES_DECODING = 2  # beside those that the engine takes at once: one is decoded, one waits for that
_LARGE_SHARE = 8  # of the machine's memory is for images that are large; a photograph of 12 megapixels is one


# The stages as a person sees them, and which of the limits says how many can be in one at once.
POOLS = {
    "fetch": ("requests", ("fetch",)),
    "decode": ("processes", ("read", "decode", "resize", "thumbnail")),
    "decode_gpu": ("decoders", ("decode_gpu",)),
    "infer": ("callers", ("infer",)),
    "finish": ("processes", ("nms", "draw", "encode", "write")),
    "store": ("requests", ("store",)),
}


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How much a worker process does at once.

    processes: image processes; batch: images in one call of the engine; slots: images in the pipeline at once;
    requests: to a bucket at once, by all image processes; memory_bytes: for the files and pixels of each of them;
    max_pixels, jpeg_quality: of an image; stall_s: without a step for so long, an image process hangs;
    file_bytes: of the largest file that the GPU decodes, 0 where it decodes none;
    large_bytes: for images that need more than half of memory_bytes, all together; one that needs more than that goes
    without others; batches: under way at once, 0 for as many as the engine takes;
    allow_local: whether images may come from web addresses of this network.
    """

    processes: int
    batch: int
    slots: int
    requests: int = 32
    memory_bytes: int = 128 << 20
    max_pixels: int = 200_000_000
    jpeg_quality: int = 90
    stall_s: float = 120.0
    file_bytes: int = 0
    large_bytes: int = 0
    batches: int = 0
    allow_local: bool = False

    @classmethod
    def of(
        cls, settings: Settings, engine: "Engine", *, decodes: bool = False, worker_processes: int = 1
    ) -> "PipelineLimits":
        """Return a worker process's limits: what the settings say, or what suits the engine and the cores.

        decodes: whether the GPU may decode files; worker_processes: how many share the machine's memory.
        """
        processes, batch = processes_of(settings), settings.batch or engine.max_batch
        batches = engine.concurrency + (_BATCHES_DECODING if decodes else 0)
        slots = batches * batch + (_SLOTS_DECODING if decodes else _SLOTS_PER_PROCESS) * processes
        return cls(
            processes=processes,
            batch=batch,
            slots=settings.window or slots,
            requests=settings.requests,
            memory_bytes=settings.image_memory_mib << 20,
            max_pixels=settings.max_pixels,
            jpeg_quality=settings.jpeg_quality,
            stall_s=settings.stall_s,
            file_bytes=settings.gpu_file_kib << 10 if decodes else 0,
            large_bytes=usable_bytes() // _LARGE_SHARE // worker_processes,
            batches=batches,
            allow_local=settings.fetch_allow_local,
        )

    def shares(self, busy_s: dict[str, float], elapsed_s: float, callers: int) -> dict[str, float]:
        """Return how busy each pool was, 0 to 1, from seconds of work by stage; requests and decoders only where there
        were any.

        callers: of the engine, at once.
        """
        sizes = {"callers": callers, "processes": self.processes, "requests": self.requests, "decoders": 1}
        shares = {}
        for name, (size, stages) in POOLS.items():
            worked = sum(busy_s.get(stage, 0.0) for stage in stages)
            if worked or size in ("processes", "callers"):
                shares[name] = round(worked / elapsed_s / sizes[size], 3)
        return shares

    @property
    def requests_each(self) -> int:
        """How many requests to a bucket each image process makes at once."""
        return max(1, self.requests // self.processes)


def processes_of(settings: Settings) -> int:
    """Return how many image processes a worker process has: one for each core unless told."""
    return settings.image_processes or settings.threads or usable_cpus()
