"""What the engines with lanes share: each call is checked, and its outputs are written where they belong."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from trtjob.engines.answers import parts_of
from trtjob.engines.protocol import (
    AnyImage,
    Engine,
    FloatArray,
    Outputs,
    UInt8Array,
    Wanted,
    answer_names,
    check_batch,
    check_images,
    empty_outputs,
    outputs_of,
)


class LaneEngine(Engine):
    """A model on one GPU; as many callers at once as there are lanes keep it busy.

    Every call has the same shape, the rows that a smaller batch leaves over being computed for nothing.
    """

    _shapes: Mapping[str, tuple[int, ...]]  # of one image's outputs, by name

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        check_images(images, into, self.spec)
        parts = [parts_of(answer, self.spec) for answer in into]
        self._run(images, {name: [part[name] for part in parts] for name in answer_names(self.spec)})

    def infer(self, images: UInt8Array) -> Outputs:
        check_batch(images, self.spec)
        found = empty_outputs(self._shapes, self.spec, len(images))
        self._run(list(images), {name: list(array) for name, array in found.items()})
        return outputs_of(found)

    @abstractmethod
    def _run(self, images: Sequence[AnyImage], wanted: Wanted) -> None:
        """Compute images of any number, and write what is wanted of each."""
