"""One shard's way through the pipeline: what is still to come of it, what is in hand, and what it waits for."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from trtjob.errors import FailureKind
from trtjob.jobs.records import ImageFailure, Record, to_line
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.storage import is_address
from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.process_handle import ProcessHandle
from trtjob.worker.pipeline.ring import READING

log = logging.getLogger(__name__)

_DEATHS = 2  # of an image process with one image, the second time with nothing else in hand: it is the image's fault


class Outcome(NamedTuple):
    """An image that is done: its record's line, and why it failed, None where it did not."""

    key: str
    line: bytes
    failure: FailureKind | None


class State(Enum):
    """Where an image in hand is."""

    SENT = auto()  # with an image process, to be prepared
    PREPARED = auto()  # its input lies in its slot
    COMPUTING = auto()  # in a batch
    ANSWERED = auto()  # with its image process, to be finished


@dataclass(slots=True)
class InHand:
    """An image in a slot. is_orphan: its image process died, or its shard was left, while the engine had it."""

    flow: "Flow"
    entry: Entry
    owner: ProcessHandle
    state: State = State.SENT
    is_orphan: bool = False


@dataclass(slots=True)
class Flow:
    """A shard in the pipeline.

    number: the job's, as image processes know it; is_remote: images come from a bucket; is_decoded_by_gpu: they are, as
    far as it can; is_drawn: something is made of them; runs: frames of videos that are decoded one after another, by
    the number of the image process that does; unowned: those that nobody does yet; again: entries whose image process
    died with them; suspects: those that it died of, as far as is known, which go alone; deaths: how many an image has
    caused.
    """

    number: int
    spec: JobSpec
    entries: Iterator[Entry]
    on_done: Callable[[Outcome], None]
    on_fed: Callable[[], None]
    done: "asyncio.Future[None]"
    is_remote: bool
    is_decoded_by_gpu: bool
    is_drawn: bool
    upcoming: Entry | None = None
    runs: dict[int, deque[Entry]] = field(default_factory=dict)
    unowned: deque[deque[Entry]] = field(default_factory=deque)
    again: deque[Entry] = field(default_factory=deque)
    suspects: deque[Entry] = field(default_factory=deque)
    deaths: dict[str, int] = field(default_factory=dict)
    in_hand: int = 0
    is_fed: bool = False
    is_left: bool = False
    emptied: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(
        cls,
        number: int,
        spec: JobSpec,
        entries: Iterable[Entry],
        on_done: Callable[[Outcome], None],
        on_fed: Callable[[], None],
    ) -> "Flow":
        """Begin a shard in the running loop."""
        options = spec.options
        flow = cls(
            number,
            spec,
            iter(entries),
            on_done,
            on_fed,
            done=asyncio.get_running_loop().create_future(),
            is_remote=any(map(is_address, spec.source.roots)),
            is_decoded_by_gpu=options.decode == "gpu",
            is_drawn={options.annotate, options.with_thumbnails} != {Annotate.NONE},
        )
        flow._look_ahead()
        return flow

    def next_entry(self, process: int) -> Entry | None:
        """Return what an image process is to prepare next, None where there is nothing now."""
        if self.again:
            return self.again.popleft()
        if process not in self.runs:
            run = self.unowned.popleft() if self.unowned else self._next_run()
            if not run:
                return None
            self.runs[process] = run
        entry = self.runs[process].popleft()
        if not self.runs[process]:
            del self.runs[process]
        return entry

    def disown(self, process: int) -> None:
        """Let others have the frames that an image process was to decode, which is gone or has something else to do."""
        if (run := self.runs.pop(process, None)) is not None:
            self.unowned.append(run)

    def _next_run(self) -> deque[Entry]:
        """Return the next entry, and those frames of its video that are decoded with it."""
        run: deque[Entry] = deque()
        while (entry := self.upcoming) is not None and (not run or (entry.run is not None and entry.run == run[0].run)):
            run.append(entry)
            self._look_ahead()
        return run

    def _look_ahead(self) -> None:
        self.upcoming = next(self.entries, None)
        if self.upcoming is None:
            self.is_fed = True
            self.on_fed()

    def accuse(self, entry: Entry, how: str, waits_at: str = "", *, was_alone: bool) -> None:
        """Have an image done again, alone in a new image process, whose image process has ended with it; the second
        time it is to blame.

        waits_at: the stage, where the process stood still at its file while the folder answered.
        """
        key = entry.key
        self.deaths[key] = self.deaths.get(key, 0) + 1
        if not was_alone or self.deaths[key] < _DEATHS:
            self.suspects.append(entry)
            return
        if waits_at:
            kind = FailureKind.READ if waits_at in READING else FailureKind.WRITE
            message = f"the {waits_at} stood still ({how}), twice, while its folder answered"
        else:
            kind = FailureKind.CRASHED
            message = f"processing it ended the image process ({how}), also when nothing else was in hand"
        failure = ImageFailure(kind, message, attempts=self.deaths[key])
        log.warning("image set aside", extra={"image": key, "blame": how})
        self.finish(Outcome(key, to_line(Record(key, error=failure)), kind))

    def finish(self, outcome: Outcome) -> None:
        """Hand over an image that is done."""
        try:
            self.on_done(outcome)
        except Exception as err:  # noqa: BLE001 - it is for who waits for the shard
            self.fail(err)

    def fail(self, err: BaseException) -> None:
        """End the shard with an error; the first counts."""
        if not self.done.done():
            self.done.set_exception(err)

    def end_if_over(self) -> None:
        """End the shard where nothing is left to do."""
        waiting = self.runs or self.unowned or self.again or self.suspects
        if self.is_fed and not (self.in_hand or waiting or self.done.done()):
            self.done.set_result(None)
