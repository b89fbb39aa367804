"""What a worker process does: it holds an engine, and takes units of work from the queue."""

import json
import logging
import os
import signal
import threading
from typing import IO

import cv2
from redis import Redis, RedisError

from trtjob.config import Settings
from trtjob.engines.cuda.survey import survey
from trtjob.errors import TrtjobError
from trtjob.logs import bind_process, configure_logging
from trtjob.queue.connection import Connection
from trtjob.queue.job_log import JobLog
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker import tasks  # noqa: F401 - imported now, so that the first message does not wait for it
from trtjob.worker.context import Context, set_current
from trtjob.worker.exit_codes import DEVICE_LOST, SERVER_AWAY
from trtjob.worker.heartbeat import HeartbeatThread
from trtjob.worker.job_worker import JobWorker
from trtjob.worker.pipeline.prestart import PrestartedProcesses
from trtjob.worker.rq_worker import UnitWorker
from trtjob.worker.worker_config import WorkerConfig

log = logging.getLogger(__name__)


def work(config: WorkerConfig, commands: IO[bytes], prestarted: PrestartedProcesses | None) -> int:
    """Work until told to stop. Returns the exit code.

    commands: what follows the config: the id of the only job to work on, where that is to be named.
    """
    settings = Settings(**config.settings)
    job_log = _configure_logging(settings, config.name)
    cv2.setNumThreads(1)  # the pipeline has threads of its own
    if config.gpu is not None and not _is_there(config.gpu):
        log.critical("the GPU is not there: the worker process ends", extra={"gpu": config.gpu_name})
        return DEVICE_LOST
    try:
        with Connection(settings) as connection:
            context = _context(config, settings, connection.redis, prestarted)
            set_current(context)
            heartbeat_thread = HeartbeatThread(context, connection.heartbeat(), job_log)
            heartbeat_thread.report()
            heartbeat_thread.start()
            threading.Thread(target=_heed, args=(commands, context, os.getpid()), daemon=True).start()
            if context.job_id is None:
                UnitWorker(context, heartbeat_thread, connection.redis, settings.queue).work(logging_level="ERROR")
            else:
                JobWorker(context).work()
            heartbeat_thread.end()
            context.close_engine()
            context.store.remove_worker(context.name)
    except RedisError as err:
        log.warning("the queue's server is away: the worker process ends", extra={"error": str(err)})
        return SERVER_AWAY
    except TrtjobError as err:
        log.error(str(err))
        return 1
    return 0


def _configure_logging(settings: Settings, name: str) -> JobLog:
    """Say where lines go, and that they are of this worker. Returns those about jobs, for the server."""
    configure_logging(settings.log_level, settings.log_format)
    bind_process(worker=name)
    logging.getLogger().addHandler(job_log := JobLog())
    logging.getLogger("rq.worker").setLevel(logging.ERROR)
    return job_log


def _context(config: WorkerConfig, settings: Settings, redis: Redis, prestarted: PrestartedProcesses | None) -> Context:
    return Context(
        config.name,
        settings,
        JobStore(redis),
        WorkQueue(redis, settings.queue),
        engine=config.engine,
        gpu=config.gpu,
        gpu_name=config.gpu_name,
        prestarted=prestarted,
        job_id=config.job,
        worker_processes=config.worker_processes,
    )


def _is_there(gpu: int) -> bool:
    """Tell whether the driver still names a GPU: no unit is taken for one that is gone, nor done by the CPU instead."""
    return gpu in [seen.index for seen in survey().gpus]


def _heed(commands: IO[bytes], context: Context, pid: int) -> None:
    """Hear which job to work on. Stop, as by SIGTERM, when the supervisor is gone: that ends its commands, however it
    dies."""
    for line in commands:
        context.job_id = json.loads(line)
    os.kill(pid, signal.SIGTERM)
