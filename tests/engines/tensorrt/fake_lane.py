"""The project's one test double: a lane without a GPU.

What it stands for - page-locked memory, streams, the driver - exists only where a GPU is. It keeps a lane's promises:
`launch` returns at once, the work is done between `launch` and `wait`, and the arrays are those of the lane.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trtjob.engines.cuda.staging import Arrays
from trtjob.engines.protocol import AnyImage, UInt8Array, on_host


class FakeLane:
    """Gives the mean and the largest value of each image, if wanted, and notes what is called, by which thread."""

    def __init__(self, name: str, notes: list[str], max_batch: int = 4) -> None:
        self.name, self.notes = name, notes
        self.images: UInt8Array = np.zeros((max_batch, 2, 2, 3), np.uint8)
        self.outputs = {name: np.full((max_batch, 1), np.nan, np.float32) for name in ("scores", "largest")}
        self.before_launch: Callable[[], None] = _nothing
        self.before_wait: Callable[[], None] = _nothing
        self.computing = threading.Event()  # set: its work is not done yet
        self.threads: set[int] = set()
        self.reached: list[Any] = []
        self.launched: Sequence[AnyImage] = []
        self._wanted: Mapping[str, Arrays] = {}

    def reaches(self, arrays: Arrays) -> bool:
        return all(any(array is other for other in self.reached) for array in arrays)

    def launch(self, images: Sequence[AnyImage], outputs: Mapping[str, Arrays]) -> None:
        self.launched = images
        self._wanted = outputs
        self._note(f"launch {sum(image.nbytes for image in images) // 12}")
        self.before_launch()

    def is_done(self) -> bool:
        return not self.computing.is_set()

    def wait(self) -> None:
        self._note("wait")
        self.before_wait()
        values = np.concatenate([image.reshape(-1, 12) for image in on_host(self.launched)])
        for own in self.outputs.values():
            own[:] = np.nan  # what is beyond the batch, or not wanted, is of no use to anybody
        for name, arrays in self._wanted.items():
            answers = iter(values.mean(1) if name == "scores" else values.max(1))
            for array in arrays:
                for row in array.reshape(-1, 1):
                    row[:] = next(answers)

    def close(self) -> None:
        self._note("close")
        self.images = np.empty((0, 2, 2, 3), np.uint8)  # nobody may use it any more
        self.outputs = {}

    def _note(self, what: str) -> None:
        self.threads.add(threading.get_ident())
        self.notes.append(f"{self.name} {what}")


def _nothing() -> None:
    pass
