"""What an image process says to its engine process."""

from trtjob.errors import PlaceError, TrtjobError
from trtjob.storage import troubles
from trtjob.utf8 import escaped
from trtjob.worker.pipeline.wire import Kind, frame, write_all


class ReplyWriter:
    """Writes frames to the pipe that the engine process hears."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._trouble = ""

    def write(self, kind: Kind, number: int, payload: bytes = b"", flag: int = 0) -> None:
        """Say something, as `wire.Kind` tells; wait where the pipe is full. Raises BrokenPipeError."""
        write_all(self._pipe, frame(kind, number, payload, flag))

    def write_ended(self, job: int, err: TrtjobError) -> None:
        """Say that a job cannot go on for any image."""
        self.write(Kind.ENDED, job, escaped(str(err)).encode(), flag=isinstance(err, PlaceError))

    def write_trouble(self) -> None:
        """Say which place is failing, where that has changed."""
        if (trouble := troubles()) != self._trouble:
            self._trouble = trouble
            self.write(Kind.TROUBLE, 0, trouble.encode())
