"""JPEG files that a GPU is to decode: in numbers, so that nothing in Python is by the image."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.resampling import RESAMPLING, Resampling

CHANNELS = 3
NOWHERE = -1
# Of one file: where it lies, its size in bytes, where its pixels are wanted, NOWHERE if they are not, and how it comes
# into the network's input.
ENCODED = np.dtype([("at", "<i8"), ("size_bytes", "<i8"), ("pixels_at", "<i8"), ("resampling", RESAMPLING)])


def pixel_bytes(resamplings: NDArray[Any]) -> NDArray[np.int64]:
    """Return how much images take as RGB: int64 [images]. resamplings: RESAMPLING [images]."""
    found: NDArray[np.int64] = CHANNELS * resamplings["height"].astype(np.int64) * resamplings["width"]
    return found


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Files of JPEG, and how they come into the network's input.

    memory: uint8 [bytes], in which they lie, and their pixels, RGB [H, W, 3], where these are wanted on the host too;
    told: ENCODED [files].
    """

    memory: UInt8Array
    told: NDArray[Any]

    @classmethod
    def of(cls, files: Sequence[tuple[bytes, Resampling]], wanted: Container[int] = ()) -> Self:
        """Return files in memory of their own. wanted: the numbers of those whose pixels are."""
        told = np.zeros(len(files), ENCODED)
        end = 0
        for number, (data, resampling) in enumerate(files):
            told[number] = (end, len(data), NOWHERE, resampling)
            end += len(data)
            if number in wanted:
                told[number]["pixels_at"] = end
                end += CHANNELS * resampling.height * resampling.width
        found = cls(np.zeros(end, np.uint8), told)
        for number, (data, _) in enumerate(files):
            found.file(number)[:] = np.frombuffer(data, np.uint8)
        return found

    def __len__(self) -> int:
        return len(self.told)

    def __getitem__(self, part: slice) -> Self:
        return type(self)(self.memory, self.told[part])

    def file(self, number: int) -> UInt8Array:
        """Return a file, uint8 [bytes]."""
        at, size_bytes, _, _ = self.told[number]
        return self.memory[at : at + size_bytes]

    def pixels(self, number: int) -> UInt8Array | None:
        """Return where a file's pixels are wanted, uint8 [H, W, 3]; None: nowhere."""
        _, _, at, resampling = self.told[number]
        if at == NOWHERE:
            return None
        shape = (int(resampling["height"]), int(resampling["width"]), CHANNELS)
        return self.memory[at : at + np.prod(shape)].reshape(shape)

    def resampling(self, number: int) -> Resampling:
        """Return how a file comes into the network's input, to the precision of float32."""
        return Resampling(*self.told["resampling"][number].item())
