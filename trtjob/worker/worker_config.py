"""What a worker process is told before it begins. Light itself: it is read before all else."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from trtjob.engines.choice import EngineKind


class WorkerConfig(NamedTuple):
    """A worker process's config, which goes to it as one line of JSON.

    gpu: the number that its own GPU has in it, None for the CPU; gpu_name: what people call that;
    settings: those of the daemon, as JSON has them, the password of the queue's server included;
    image_processes: how many it has; worker_processes: how many share the machine;
    job: the only job to work on, empty where another line will name it, None for all of the queue;
    cores: those that it is pinned to, empty for any.
    """

    name: str
    engine: "EngineKind"
    gpu: int | None
    gpu_name: str
    settings: dict[str, Any]
    image_processes: int
    worker_processes: int
    job: str | None
    cores: list[int]
