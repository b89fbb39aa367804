"""An engine without a model: it finds one object in every image, in the class of the image's brightness."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from trtjob.engines.answers import answers_from
from trtjob.engines.protocol import AnyImage, Engine, FloatArray, Outputs, UInt8Array, on_host
from trtjob.engines.spec import ModelSpec, Task
from trtjob.errors import EngineError

DETECTOR = ModelSpec(task=Task.DETECT, labels=("dark", "bright"), input_hw=(8, 8), candidates=8)
CLASSIFIER = ModelSpec(task=Task.CLASSIFY, labels=("dark", "bright"), input_hw=(8, 8))
POISON = 13  # the grey of an image that this engine cannot run


def _nothing(images: UInt8Array) -> None:
    """Do nothing."""


class PlainEngine(Engine):
    """on_infer sees every batch first, in the thread that calls; a batch with a poisoned image in it fails."""

    name = "plain"
    device = "test"

    def __init__(
        self,
        spec: ModelSpec = DETECTOR,
        *,
        max_batch: int = 1,
        concurrency: int = 1,
        on_infer: Callable[[UInt8Array], None] = _nothing,
    ) -> None:
        self.spec = spec
        self.max_batch = max_batch
        self.concurrency = concurrency
        self.answer_shape = (2,) if spec.task is Task.CLASSIFY else (1, 6)
        self.is_closed = False
        self._on_infer = on_infer

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        outputs = self.infer(np.stack(on_host(images)))
        for array, found in zip(into, answers_from(outputs, self.spec), strict=True):
            array[...] = found

    def infer(self, images: UInt8Array) -> Outputs:
        self._on_infer(images)
        if (images == POISON).all((1, 2, 3)).any():
            raise EngineError("poisoned")
        bright = images.mean((1, 2, 3), dtype=np.float64) / 255
        scores = np.stack([1 - bright, bright], 1).astype(np.float32)
        if self.spec.task is Task.CLASSIFY:
            return Outputs(None, scores)
        return Outputs(np.tile(np.array([1, 1, 7, 7], np.float32), (len(images), 1, 1)), scores[:, None])

    def close(self) -> None:
        self.is_closed = True


def write_image(path: Path, grey: int = 200, hw: tuple[int, int] = (16, 16)) -> Path:
    """Write an image of one grey, as the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.full((*hw, 3), grey, np.uint8))
    assert done
    path.write_bytes(data.tobytes())
    return path


def write_images(folder: Path, count: int, grey: int = 200) -> list[str]:
    """Write so many images; returns their keys, in order."""
    keys = [f"{number:04d}.png" for number in range(count)]
    first = write_image(folder / keys[0], grey).read_bytes()
    for key in keys[1:]:
        (folder / key).write_bytes(first)
    return keys
