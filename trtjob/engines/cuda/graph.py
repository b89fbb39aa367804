"""CUDA graphs: work that was recorded once and is launched with one call. By cuda-bindings, whoever made the stream."""

from collections.abc import Callable
from typing import Any

from trtjob.engines.cuda.driver import Stream
from trtjob.errors import DeviceLostError, EngineError


def capture(stream: Stream, work: Callable[[], None]) -> "Graph | None":
    """Record what `work` asks of a stream, instead of doing it.

    None where cuda-bindings is not installed or the work cannot be recorded: the stream is as good as before.
    """
    try:
        from cuda.bindings import driver as bindings
    except ImportError:
        return None
    handle = bindings.CUstream(stream.handle)
    mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    if _failed(bindings.cuStreamBeginCapture(handle, mode)):
        return None
    is_recorded = True
    try:
        work()
    except EngineError:  # also DeviceLostError: in a capture, a refusal does not break the context
        is_recorded = False
    ended, graph = bindings.cuStreamEndCapture(handle)
    if not is_recorded or _failed((ended,)):
        if not _failed((ended,)):
            bindings.cuGraphDestroy(graph)
        return None
    made, executable = bindings.cuGraphInstantiate(graph, 0)
    bindings.cuGraphDestroy(graph)
    return None if _failed((made,)) else Graph(bindings, executable, handle)


class Graph:
    """Recorded work."""

    def __init__(self, bindings: Any, executable: Any, stream: Any) -> None:
        self._bindings, self._executable, self._stream = bindings, executable, stream

    def launch(self) -> None:
        """Begin the work, on the stream that it was recorded on. Raises DeviceLostError."""
        if _failed(self._bindings.cuGraphLaunch(self._executable, self._stream)):
            raise DeviceLostError("CUDA failed to launch a graph")

    def close(self) -> None:
        self._bindings.cuGraphExecDestroy(self._executable)


def _failed(answer: tuple[Any, ...]) -> bool:
    """Tell whether a call of cuda-bindings, which returns its error and raises none, went wrong."""
    return int(answer[0]) != 0
