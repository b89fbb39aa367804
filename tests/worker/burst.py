"""RQ's worker as it is in a worker process, in this one: for as long as there are messages."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from trtjob.worker.context import Context
from trtjob.worker.heartbeat import HeartbeatThread
from trtjob.worker.rq_worker import UnitWorker


@contextmanager
def unit_worker(context: Context, client: Redis, outside: Redis) -> Iterator[UnitWorker]:
    """Have a worker that has not begun; what it changes in this process is put back. outside: another client."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logger = logging.getLogger("rq.worker")
    before = logger.handlers[:], logger.level, logger.propagate
    worker = UnitWorker(context, HeartbeatThread(context, client), client, context.queue.name)
    try:
        yield worker
    finally:
        if worker.pubsub_thread is not None:
            # It looks whether it should stop when a command comes; in a worker process it just ends with the process.
            outside.publish(worker.pubsub_channel_name, '{"command": "nothing"}')
            worker.pubsub_thread.join(10)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        logger.handlers[:], logger.level, logger.propagate = before


def work(worker: UnitWorker) -> None:
    """Work until the queue is empty."""
    worker.work(burst=True, logging_level="CRITICAL")
