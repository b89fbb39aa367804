"""Shard after shard without a pause: the next one's images come in while the last ones of the present are worked on.

A message from RQ starts the conveyor with its shard. From then on the conveyor takes the next from the queue itself, as
long as it begins with a shard, and has at most two in hand: one that is fed and one that drains.
"""

import asyncio

from trtjob.queue.job_store import Claim
from trtjob.worker.context import Context
from trtjob.worker.leases import claim_unit, settled
from trtjob.worker.shard.run import run_shard


def run_shards(context: Context, first: Claim) -> None:
    """Run a claimed shard, and those that follow it. Raises RedisError where the server is away for too long."""
    asyncio.run(_Conveyor(context).run(first))


class _Conveyor:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.in_hand: set[asyncio.Task[None]] = set()

    async def run(self, first: Claim) -> None:
        try:
            await self._run_all(first)
        finally:
            # Where the server is away, that of one says it for all.
            await asyncio.gather(*self.in_hand, return_exceptions=True)

    async def _run_all(self, first: Claim) -> None:
        claim: Claim | None = first
        while claim is not None:
            self.context.take_in_hand(claim)  # its lease must not run out while others drain
            try:
                if not await self._has_loaded(claim):
                    await self._drain(0)  # before the engine is closed
            except BaseException:
                await asyncio.to_thread(self.context.put_down, claim)
                raise
            await self._feed(claim)
            await self._drain(1)  # before the next is claimed: others may have time for it
            claim = await self._next()
        await self._drain(0)

    async def _feed(self, claim: Claim) -> None:
        """Start a shard, and return when its last image has come in, or it has ended."""
        fed = asyncio.Event()
        task = asyncio.create_task(self._run(claim, fed))
        self.in_hand.add(task)
        feeding = asyncio.create_task(fed.wait())
        await asyncio.wait({task, feeding}, return_when=asyncio.FIRST_COMPLETED)
        feeding.cancel()

    async def _run(self, claim: Claim, fed: asyncio.Event) -> None:
        with self.context.holding(claim) as interrupter, settled(self.context, claim):
            await run_shard(self.context, claim, interrupter, fed.set)

    async def _drain(self, most: int) -> None:
        """Wait until at most so many shards are in hand. Raises what one of them raised."""
        while len(self.in_hand) > most:
            done, self.in_hand = await asyncio.wait(self.in_hand, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _next(self) -> Claim | None:
        """Take the next shard from the queue; None where the process must stop or RQ must deliver something else."""
        if self.context.stopping or self.context.interrupter.reason:
            return None
        return await asyncio.to_thread(self._take)

    def _take(self) -> Claim | None:
        if self.context.asides.current():  # what waits first may be none of ours: see UnitWorker
            return None
        while (unit := self.context.take_shard()) is not None:
            if (found := claim_unit(self.context, *unit)) is not None:
                return found
        return None

    async def _has_loaded(self, claim: Claim) -> bool:
        model = await asyncio.to_thread(self.context.store.model, claim.job_id)
        return model == self.context.loaded_model
