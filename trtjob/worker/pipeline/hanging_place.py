"""Whose fault it is that an image process stands still at a file: the file's, or that of the place where it lies."""

from trtjob.errors import PlaceError
from trtjob.jobs.source_images import open_source
from trtjob.storage import open_storage
from trtjob.worker.pipeline.flow import InHand
from trtjob.worker.pipeline.ring import READING
from trtjob.worker.pipeline.waiting import answers_within

PROBE_S = 5.0  # a folder that does not answer for so long hangs, and not one of its files


async def fault_of_place(hand: InHand, stage: str, stall_s: float) -> PlaceError | None:
    """Return the error of a place where an image stands still; None where the place answers.

    stage: where it stands; stall_s: for how long.
    """
    spec = hand.flow.spec
    is_reading = stage in READING
    place = spec.source.shown if is_reading else spec.output
    storage = open_source(spec.source) if is_reading else open_storage(spec.output)
    if await answers_within(storage.check_root, PROBE_S):
        return None
    return PlaceError(
        f"{place} does not answer on this machine: the {stage} of {hand.entry.key!r} took {stall_s:.0f} s"
    )
