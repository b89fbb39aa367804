"""An engine that costs nothing: what is left is the host's work."""

from collections.abc import Sequence

import numpy as np

from trtjob.engines.candidates import candidates_from
from trtjob.engines.protocol import AnyImage, Engine, FloatArray, Outputs, UInt8Array, check_batch, check_images
from trtjob.engines.spec import ModelSpec, Task

LABELS = tuple(f"class {n}" for n in range(80))
OBJECTS, RIVALS_EACH = 17, 2.8  # COCO pictures have 7 objects; 17 after and 64 before NMS is a crowded one


class ConstantEngine(Engine):
    """Finds the same objects, each with some overlapping rivals, in every image."""

    name = "constant"
    device = "none"

    def __init__(
        self,
        *,
        size: int = 416,
        objects: int = OBJECTS,
        candidates: int = 1024,
        max_batch: int = 1,
        concurrency: int = 2,
    ) -> None:
        self.spec = ModelSpec(
            task=Task.DETECT, labels=LABELS, input_hw=(size, size), multi_label=True, candidates=candidates
        )
        self.max_batch = max_batch
        self.concurrency = concurrency
        self._boxes, self._scores = _outputs(size, objects, candidates)
        (self._answer,) = candidates_from(Outputs(self._boxes[None], self._scores[None]), self.spec)
        self.answer_shape = self._answer.shape

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        check_images(images, into, self.spec)
        for array in into:
            array[...] = self._answer

    def infer(self, images: UInt8Array) -> Outputs:
        check_batch(images, self.spec)
        count = len(images)
        boxes, scores = self._boxes, self._scores
        return Outputs(np.broadcast_to(boxes, (count, *boxes.shape)), np.broadcast_to(scores, (count, *scores.shape)))

    def close(self) -> None:
        """Nothing to free."""


def _outputs(size: int, count: int, candidates: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(17)
    rival_count = int(count * RIVALS_EACH)
    corner = np.stack([np.arange(count) % 5, np.arange(count) // 5], 1) * size / 5.2 + 4
    objects = np.concatenate([corner, corner + rng.uniform(size / 9, size / 6.5, (count, 2))], 1)
    rivals = objects[rng.integers(0, count, rival_count)] + rng.normal(0, 1.0, (rival_count, 4))
    corners = rng.uniform(0, size - 32, (candidates - count - rival_count, 2))
    rest = np.concatenate([corners, corners + 30], 1)
    boxes = np.concatenate([objects, rivals, rest]).astype(np.float32)
    scores = rng.uniform(0, 0.02, (candidates, len(LABELS))).astype(np.float32)
    owner = [*range(count), *_nearest(rivals, objects)]
    scores[np.arange(len(owner)), owner] = [
        *np.linspace(0.95, 0.5, count),
        *rng.uniform(0.26, 0.45, rival_count),
    ]
    return boxes, scores


def _nearest(rivals: np.ndarray, objects: np.ndarray) -> list[int]:
    return [int(np.abs(objects - rival).sum(1).argmin()) for rival in rivals]
