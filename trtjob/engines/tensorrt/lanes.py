"""Run batches on lanes: while one computes, the next is copied in and the last copied out.

A lane is a stream with buffers of its own; what moves bytes is behind this one small port, so that the order of things
is tested without a GPU.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from trtjob.engines.cuda.staging import Arrays, deliver, to_fill, to_send
from trtjob.engines.pool import LanePool
from trtjob.engines.protocol import AnyImage, UInt8Array, Wanted
from trtjob.errors import EngineError

log = logging.getLogger(__name__)

POLL_S = 0.0005  # how often a GPU with room for another batch is asked whether the one under way is done


class Lane(Protocol):
    """One stream. Its arrays lie in page-locked memory, and hold [largest batch, ...].

    `launch` and `wait` are called from the engine's own thread only, in turn.
    """

    @property
    def images(self) -> UInt8Array: ...

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]: ...

    def reaches(self, arrays: Arrays) -> bool:
        """Tell whether `launch` takes all these arrays, which are not the lane's. May be called from any thread."""
        ...

    def launch(self, images: Sequence[AnyImage], outputs: Mapping[str, Arrays]) -> None:
        """Begin to copy images in, compute, and copy the outputs into arrays by name; return at once.

        The arrays are the lane's own, or such that it reaches; each may hold several images or their outputs.
        """
        ...

    def is_done(self) -> bool:
        """Tell whether the outputs of the last launch are there."""
        ...

    def wait(self) -> None:
        """Wait until the outputs of the last launch are there."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _BatchRequest:
    """A batch under way: its images are where the GPU takes them; the answer is set when the outputs are there."""

    lane: Lane
    images: Sequence[AnyImage]
    outputs: Mapping[str, Arrays]
    answer: "Future[None]" = field(default_factory=Future)


@dataclass(slots=True)
class _Errand:
    """Something else to be done in the GPU's thread; the answer is set when it is done."""

    work: Callable[[], None]
    answer: "Future[None]" = field(default_factory=Future)


class Lanes:
    """The lanes of one engine, and the one thread in which its GPU's context is current."""

    def __init__(
        self, open_lanes: Callable[[], Sequence[Lane]], close_device: Callable[[], None], *, runs: int
    ) -> None:
        """Open the lanes inside the thread. Raises what `open_lanes` raises, after the thread has ended.

        runs: how many lanes may be between `launch` and `wait` at once; the others are filled or emptied meanwhile.
        """
        self._runs = runs
        self._requests: queue.SimpleQueue[_BatchRequest | _Errand | None] = queue.SimpleQueue()
        self._pool: LanePool[Lane] = LanePool()
        self._gate = threading.Lock()  # between the last request and the end
        opened: Future[int] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(open_lanes, close_device, opened), name="trtjob-gpu", daemon=True
        )
        self._thread.start()
        try:
            self.count = opened.result()
        except BaseException:
            self._thread.join()
            raise

    def run(self, images: Sequence[AnyImage], wanted: Wanted) -> None:
        """Run a batch and bring what is wanted; as many callers at once as there are lanes keep the GPU busy."""
        with self._pool.taken() as lane:
            # What has to be copied is copied by the caller, while the GPU works for others.
            sent = to_send(images, lane.images, lane.reaches)
            filled = {name: to_fill(arrays, lane.outputs[name], lane.reaches) for name, arrays in wanted.items()}
            self._hand_over(_BatchRequest(lane, sent, filled))
            for name, arrays in wanted.items():
                deliver(filled[name], arrays)

    def do(self, work: Callable[[], None]) -> None:
        """Do something in the GPU's thread, when no batch is under way. Raises what it raises."""
        self._hand_over(_Errand(work))

    @property
    def waiting(self) -> int:
        """How many batches the GPU's thread has yet to take."""
        return self._requests.qsize()

    def _hand_over(self, request: _BatchRequest | _Errand) -> None:
        with self._gate:
            self._pool.check()
            self._requests.put(request)
        request.answer.result()

    def close(self) -> None:
        """Finish what is under way, then free everything. May be called twice."""
        with self._gate:
            if not self._pool.is_closed:
                self._pool.refuse()
                self._requests.put(None)
        self._thread.join()

    def _run(
        self,
        open_lanes: Callable[[], Sequence[Lane]],
        close_device: Callable[[], None],
        opened: "Future[int]",
    ) -> None:
        try:
            lanes = list(open_lanes())
        except BaseException as err:  # noqa: BLE001 - it is for whoever opens the engine
            with suppress(EngineError):  # of a GPU that has failed nothing can be given back
                close_device()
            opened.set_exception(err)
            return
        self._pool.offer(lanes)
        opened.set_result(len(lanes))
        try:
            self._serve()
        finally:
            self._pool.withdraw(len(lanes))  # callers may still copy into or out of them
            self._pool.end()
            with suppress(EngineError):  # likewise
                for lane in lanes:
                    lane.close()
                close_device()

    def _serve(self) -> None:
        under_way: deque[_BatchRequest] = deque()
        is_open = True
        while is_open or under_way:
            request = self._next(under_way) if is_open else None
            if request is _NOTHING:
                _finish(under_way.popleft())
            elif isinstance(request, _BatchRequest):
                if len(under_way) == self._runs:
                    _finish(under_way.popleft())
                if _launch(request):
                    under_way.append(request)
            else:
                while under_way:
                    _finish(under_way.popleft())
                if request is None:
                    is_open = False
                else:
                    _answer(request.answer, request.work)

    def _next(self, under_way: "deque[_BatchRequest]") -> "_BatchRequest | _Errand | None":
        """Return the next request, None at the end; `_NOTHING` where one that is under way should be finished first."""
        while under_way:
            try:
                # With room for another one on the GPU, that comes before waiting for the first.
                return self._requests.get(block=len(under_way) < self._runs, timeout=POLL_S)
            except queue.Empty:
                if len(under_way) == self._runs or _is_done(under_way[0]):
                    return cast("_BatchRequest", _NOTHING)
        return self._requests.get()


_NOTHING = object()


def _is_done(request: _BatchRequest) -> bool:
    try:
        return request.lane.is_done()
    except BaseException:  # noqa: BLE001 - finishing it tells its caller
        return True


def _launch(request: _BatchRequest) -> bool:
    try:
        request.lane.launch(request.images, request.outputs)
    except BaseException as err:  # noqa: BLE001 - it is the caller's, who waits for it
        request.answer.set_exception(err)
        return False
    return True


def _finish(request: _BatchRequest) -> None:
    _answer(request.answer, request.lane.wait)


def _answer(answer: "Future[None]", work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as err:  # noqa: BLE001 - likewise
        answer.set_exception(err)
    else:
        answer.set_result(None)
