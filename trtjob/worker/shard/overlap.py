"""Shard after shard without a pause: the next one's images come in while the last ones of the present are worked on.

A message from RQ starts with its shard. From then on the next is taken from the queue without RQ, as long as it
begins with a shard. At most two are in hand: one that is fed and one that drains.
"""

import asyncio

from trtjob.queue.leases import Lease
from trtjob.worker.context import Context
from trtjob.worker.shard.run import run_shard
from trtjob.worker.unit_claim import claim_unit, settled


def run_shards(context: Context, first: Lease) -> None:
    """Run a claimed shard, and those that follow it. Raises RedisError where the server is away for too long."""
    asyncio.run(_Overlap(context).run(first))


class _Overlap:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.in_hand: set[asyncio.Task[None]] = set()

    async def run(self, first: Lease) -> None:
        try:
            await self._run_all(first)
        finally:
            # Where the server is away, that of one says it for all.
            await asyncio.gather(*self.in_hand, return_exceptions=True)

    async def _run_all(self, first: Lease) -> None:
        lease: Lease | None = first
        while lease is not None:
            self.context.take_in_hand(lease)  # its lease must not run out while others drain
            try:
                if not await self._has_loaded(lease):
                    await self._drain(0)  # before the engine is closed
            except BaseException:
                await asyncio.to_thread(self.context.put_down, lease)
                raise
            await self._feed(lease)
            await self._drain(1)  # before the next is claimed: others may have time for it
            lease = await self._next()
        await self._drain(0)

    async def _feed(self, lease: Lease) -> None:
        """Start a shard, and return when its last image has come in, or it has ended."""
        fed = asyncio.Event()
        task = asyncio.create_task(self._run(lease, fed))
        self.in_hand.add(task)
        feeding = asyncio.create_task(fed.wait())
        await asyncio.wait({task, feeding}, return_when=asyncio.FIRST_COMPLETED)
        feeding.cancel()

    async def _run(self, lease: Lease, fed: asyncio.Event) -> None:
        with self.context.holding(lease) as interrupter, settled(self.context, lease):
            await run_shard(self.context, lease, interrupter, fed.set)

    async def _drain(self, most: int) -> None:
        """Wait until at most so many shards are in hand. Raises what one of them raised."""
        while len(self.in_hand) > most:
            done, self.in_hand = await asyncio.wait(self.in_hand, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _next(self) -> Lease | None:
        """Take the next shard from the queue; None where the process must stop or RQ must deliver something else."""
        if self.context.stopping or self.context.interrupter.reason:
            return None
        return await asyncio.to_thread(self._take)

    def _take(self) -> Lease | None:
        if self.context.own_exclusions.current():  # what waits first may be none of ours: see UnitWorker
            return None
        while (unit := self.context.take_shard()) is not None:
            if (found := claim_unit(self.context, *unit)) is not None:
                return found
        return None

    async def _has_loaded(self, lease: Lease) -> bool:
        model = await asyncio.to_thread(self.context.store.model, lease.job_id)
        return model == self.context.loaded_model
