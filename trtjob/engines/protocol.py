"""What every engine can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from mmap import mmap
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.spec import (
    BOXES_NAME,
    CANDIDATES_NAME,
    EXTRAS_NAME,
    PROTOTYPES_NAME,
    SCORES_NAME,
    ModelSpec,
    Task,
)
from trtjob.errors import EngineInputError

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

# Outputs that are wanted of a batch, by name: where each image's are to be written.
Wanted = Mapping[str, Sequence[FloatArray]]


@dataclass(frozen=True, slots=True)
class DeviceImage:
    """An image that lies on the engine's GPU already: uint8 [H, W, channels], in one piece at an address."""

    address: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape)


AnyImage = UInt8Array | DeviceImage


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model says of a batch; the caller owns the arrays.

    boxes: float32 [N, K, 4], xyxy in pixels of the network input; None for a classifier.
    scores: float32 [N, K, classes] of a detector, [N, classes] of a classifier.
    extras: float32 [N, K, extras], what else a detector says of each box; prototypes: float32 [N, count, h, w], of its
    masks (ModelSpec); None where it says no such thing.
    """

    boxes: FloatArray | None
    scores: FloatArray
    extras: FloatArray | None = None
    prototypes: FloatArray | None = None

    def by_name(self) -> dict[str, FloatArray]:
        """Return those that there are."""
        named = {
            BOXES_NAME: self.boxes,
            SCORES_NAME: self.scores,
            EXTRAS_NAME: self.extras,
            PROTOTYPES_NAME: self.prototypes,
        }
        return {name: array for name, array in named.items() if array is not None}

    def of_image(self, index: int) -> "Outputs":
        """Return what is said of one image, as a batch of 1."""
        return outputs_of({name: array[index : index + 1] for name, array in self.by_name().items()})


class Engine(Protocol):
    """One model on one device. A context manager, for those who inherit it: `close()` frees the device's memory.

    name: `cpu`, `cuda` or `tensorrt`; device: a name to show a person.
    max_batch: the largest N that pays (1 on a CPU, tens on a GPU).
    concurrency: how many threads may call it at once.
    answer_shape: of one image's compact answer: (M, 6 + extras) of a detector, (classes,) of a classifier, (numbers,)
    of a detector that gives masks, which answers with its prototypes as well.
    """

    name: str
    device: str
    spec: ModelSpec
    max_batch: int
    concurrency: int
    answer_shape: tuple[int, ...]

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        """Run a batch, and write each image's compact answer, float32 [*answer_shape], into its array.

        images: at least one, uint8 [H, W, channels], which may lie anywhere in memory, or on the GPU of an engine that
        has one. The answer is a detector's `candidates`, a classifier's `scores` (trtjob/engines/answers.py).
        Raises EngineInputError, EngineError.
        """
        ...

    def infer(self, images: UInt8Array) -> Outputs:
        """Return all that the model says, for checks, which is many times as much. images: uint8 [N, H, W, channels].

        Raises as `answer` does.
        """
        ...

    def pin(self, memory: mmap) -> None:
        """Prepare for images and answers that will lie in shared memory; it replaces what was pinned before.

        An engine that gains nothing by it does nothing; a GPU then copies them itself. The memory may stay mapped until
        `close`.
        """
        return

    def close(self) -> None:
        """Free everything. May be called twice; all other methods that do something raise EngineError afterwards."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def answer_of(engine: Engine, image: UInt8Array) -> FloatArray:
    """Return an engine's compact answer to one image.

    >>> class Brightness(Engine):
    ...     spec = ModelSpec(task="classify", labels=("dark", "bright"), input_hw=(1, 1))
    ...     answer_shape = (2,)
    ...     def answer(self, images, into):
    ...         for image, scores in zip(images, into):
    ...             scores[:] = 1 - image.mean() / 255, image.mean() / 255
    >>> answer_of(Brightness(), np.full((1, 1, 3), 255, np.uint8)).tolist()
    [0.0, 1.0]
    """
    found: FloatArray = np.empty(engine.answer_shape, np.float32)
    engine.answer([image], [found])
    return found


def check_batch(images: NDArray[Any], spec: ModelSpec) -> None:
    """Raise EngineInputError unless `images` is a batch that a model of this spec accepts."""
    expected = (*spec.input_hw, spec.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[0] < 1 or images.shape[1:] != expected:
        raise EngineInputError(
            f"input 'images': got {images.dtype} {list(images.shape)}, but this model takes uint8 "
            f"[N, {', '.join(map(str, expected))}] with N >= 1"
        )


def check_images(images: Sequence[AnyImage], into: Sequence[FloatArray], spec: ModelSpec) -> None:
    """Raise EngineInputError unless every image is one that a model of this spec accepts, and has where to answer."""
    expected = (*spec.input_hw, spec.channels)
    if len(images) < 1 or len(images) != len(into):
        raise EngineInputError(f"got {len(images)} images and {len(into)} arrays: expected as many of both, 1 or more")
    for number, image in enumerate(images):
        kind = np.uint8 if isinstance(image, DeviceImage) else image.dtype
        if kind != np.uint8 or image.shape != expected:
            raise EngineInputError(
                f"image {number} of {len(images)}: got {kind} {list(image.shape)}, but this model takes uint8 "
                f"{list(expected)}"
            )


def on_host(images: Sequence[AnyImage]) -> list[UInt8Array]:
    """Return images as an engine without a GPU takes them. Raises EngineInputError for one that lies on a GPU."""
    arrays = [image for image in images if not isinstance(image, DeviceImage)]
    if len(arrays) < len(images):
        raise EngineInputError("an image lies on a GPU, which this engine does not use")
    return arrays


def output_names(spec: ModelSpec) -> list[str]:
    """Return the names of what `infer` returns."""
    if spec.task is Task.CLASSIFY:
        return [SCORES_NAME]
    return [BOXES_NAME, SCORES_NAME, *([EXTRAS_NAME] if spec.extras else []), *_prototypes(spec)]


def answer_names(spec: ModelSpec) -> list[str]:
    """Return the names of the outputs that `answer` writes, in their order."""
    return [SCORES_NAME] if spec.task is Task.CLASSIFY else [CANDIDATES_NAME, *_prototypes(spec)]


def _prototypes(spec: ModelSpec) -> list[str]:
    return [PROTOTYPES_NAME] if spec.prototypes else []


def all_names(spec: ModelSpec) -> list[str]:
    """Return the names of a model's outputs."""
    return list(dict.fromkeys((*output_names(spec), *answer_names(spec))))


def empty_outputs(shapes: Mapping[str, tuple[int, ...]], spec: ModelSpec, count: int) -> dict[str, FloatArray]:
    """Return arrays for all that `infer` returns of so many images. shapes: of one image, by name."""
    return {name: np.empty((count, *shapes[name]), np.float32) for name in output_names(spec)}


def outputs_of(arrays: Mapping[str, FloatArray]) -> Outputs:
    """Return a batch's outputs from arrays by name."""
    optional = (arrays.get(name) for name in (EXTRAS_NAME, PROTOTYPES_NAME))
    return Outputs(arrays.get(BOXES_NAME), arrays[SCORES_NAME], *optional)


def slice_of(wanted: Wanted, start: int, end: int) -> dict[str, Sequence[FloatArray]]:
    """Return where the outputs of some images of a batch are to be written."""
    return {name: arrays[start:end] for name, arrays in wanted.items()}
