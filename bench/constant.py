"""An engine that costs nothing: what is left is the host's work."""

from types import TracebackType
from typing import Self

import numpy as np

from trtjob.engines.protocol import Outputs, UInt8Array, check_batch
from trtjob.engines.spec import ModelSpec, Task

LABELS = tuple(f"class {n}" for n in range(80))
OBJECTS, RIVALS = 17, 47  # COCO pictures have 7 objects; 17 after and 64 before NMS is a crowded one


class ConstantEngine:
    """Finds the same 17 objects, each with some overlapping rivals, in every image."""

    name = "constant"
    device = "none"

    def __init__(self, *, size: int = 416, candidates: int = 1024, max_batch: int = 1, concurrency: int = 2) -> None:
        self.spec = ModelSpec(task=Task.DETECT, labels=LABELS, input_hw=(size, size), multi_label=True)
        self.max_batch = max_batch
        self.concurrency = concurrency
        self._boxes, self._scores = _outputs(size, candidates)

    def infer(self, images: UInt8Array) -> Outputs:
        check_batch(images, self.spec)
        count = len(images)
        boxes, scores = self._boxes, self._scores
        return Outputs(np.broadcast_to(boxes, (count, *boxes.shape)), np.broadcast_to(scores, (count, *scores.shape)))

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _outputs(size: int, candidates: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(17)
    corner = np.stack([np.arange(OBJECTS) % 5, np.arange(OBJECTS) // 5], 1) * size / 5.2 + 4
    objects = np.concatenate([corner, corner + rng.uniform(size / 9, size / 6.5, (OBJECTS, 2))], 1)
    rivals = objects[rng.integers(0, OBJECTS, RIVALS)] + rng.normal(0, 1.0, (RIVALS, 4))
    corners = rng.uniform(0, size - 32, (candidates - OBJECTS - RIVALS, 2))
    rest = np.concatenate([corners, corners + 30], 1)
    boxes = np.concatenate([objects, rivals, rest]).astype(np.float32)
    scores = rng.uniform(0, 0.02, (candidates, len(LABELS))).astype(np.float32)
    owner = [*range(OBJECTS), *_nearest(rivals, objects)]
    scores[np.arange(len(owner)), owner] = [*np.linspace(0.95, 0.5, OBJECTS), *rng.uniform(0.26, 0.45, RIVALS)]
    return boxes, scores


def _nearest(rivals: np.ndarray, objects: np.ndarray) -> list[int]:
    return [int(np.abs(objects - rival).sum(1).argmin()) for rival in rivals]
