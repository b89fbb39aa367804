"""What every engine can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, ModelSpec
from trtjob.errors import EngineInputError

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model says of a batch; the caller owns the arrays.

    boxes: float32 [N, K, 4], xyxy in pixels of the network input; None for a classifier.
    scores: float32 [N, K, classes] of a detector, [N, classes] of a classifier.
    """

    boxes: FloatArray | None
    scores: FloatArray


class Engine(Protocol):
    """One model on one device. A context manager, for those who inherit it: `close()` frees the device's memory.

    name: `cpu`, `cuda` or `tensorrt`; device: a name to show a person.
    max_batch: the largest N that pays (1 on a CPU, tens on a GPU).
    concurrency: how many threads may call `infer` at once.
    """

    name: str
    device: str
    spec: ModelSpec
    max_batch: int
    concurrency: int

    def infer(self, images: UInt8Array) -> Outputs:
        """Run a batch: uint8 [N, H, W, channels], 1 <= N. Raises EngineInputError, EngineError."""
        ...

    @property
    def answer_shape(self) -> tuple[int, ...]:
        return (len(self.spec.labels),) if self.spec.task == "classify" else (1024, 6)

    def answer(self, images: Sequence[UInt8Array], into: Sequence[FloatArray]) -> None:
        outputs = self.infer(np.stack(images))
        for index, place in enumerate(into):
            if outputs.boxes is None:
                place[:] = outputs.scores[index]
                continue
            boxes, scores = outputs.boxes[index], outputs.scores[index]
            place[:] = 0
            if self.spec.multi_label:
                order = np.argsort(-scores.ravel(), kind="stable")[:1024]
                rows, classes = np.divmod(order, scores.shape[1])
            else:
                best = scores.argmax(1)
                rows = np.argsort(-scores[np.arange(len(best)), best], kind="stable")[:1024]
                classes = best[rows]
            n = len(rows)
            place[:n, :4], place[:n, 4], place[:n, 5] = boxes[rows], scores[rows, classes], classes

    def close(self) -> None:
        """Free everything. May be called twice; `infer` raises EngineError afterwards."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_batch(images: NDArray[Any], spec: ModelSpec) -> None:
    """Raise EngineInputError unless `images` is a batch that a model of this spec accepts."""
    expected = (*spec.input_hw, spec.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[0] < 1 or images.shape[1:] != expected:
        raise EngineInputError(
            f"input 'images': got {images.dtype} {list(images.shape)}, but this model takes uint8 "
            f"[N, {', '.join(map(str, expected))}] with N >= 1"
        )


def joined(parts: Sequence[Mapping[str, FloatArray]]) -> Outputs:
    """Return one batch's outputs from those of its parts, by name, in order."""
    outputs = (
        parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )
    return Outputs(outputs.get(BOXES_NAME), outputs[SCORES_NAME])
