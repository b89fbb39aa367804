"""Numbers of more than eight bits -> the eight that a model sees: what is white is a rule, the same for all images."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trtjob.errors import FailureKind, ImageError

Depth = Literal["auto", "high", "full"]

# Sensors have 10, 12 or 14 bits, and 8 come out of screens: files of 16 bits often hold them as they are.
_BITS = (8, 10, 12, 14, 16)
DARK = 64  # of 255: 14 bits of 16 reach no further
_WHITE = 255
_BLOCK_ROWS = 64  # calculated at a time, in eight bytes for each number


def eight_bits(stored: NDArray[Any], depth: Depth) -> NDArray[np.uint8]:
    """Return numbers, [H, W] or [H, W, C], as 0 to 255.

    full: black is the smallest of them, white the largest. Else, of uint16: the upper eight bits of all (high), or of
    the fewest of 8, 10, 12, 14 and 16 that hold the largest (auto); and others are shares of white, from 0 to 1.
    Raises ImageError where they cannot be such shares, or are not numbers at all.

    >>> eight_bits(np.array([[0, 0x0FFF]], np.uint16), "auto").tolist()
    [[0, 255]]
    >>> eight_bits(np.array([[0, 0x0FFF]], np.uint16), "high").tolist()
    [[0, 15]]
    >>> eight_bits(np.array([[-1.0, 0.0, 3.0]]), "full").tolist()
    [[0, 64, 255]]
    """
    if depth != "full" and stored.dtype == np.uint16:
        peak = int(stored.max())
        bits = 16 if depth == "high" else next(bits for bits in _BITS if peak < 1 << bits)
        upper = np.empty(stored.shape, np.uint8)
        np.right_shift(stored, bits - 8, out=upper, casting="unsafe")
        return upper
    smallest, largest = float(stored.min()), float(stored.max())
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        raise ImageError(FailureKind.DECODE, "some of the image's pixels are no numbers, or without end")
    if depth != "full":
        _check_shares(stored, smallest, largest)
        smallest, largest = 0.0, 1.0
    return _scaled(stored, smallest, largest)


def _check_shares(stored: NDArray[Any], smallest: float, largest: float) -> None:
    if stored.dtype.kind == "f" and smallest >= 0 and DARK / _WHITE < largest <= 1:
        return
    raise ImageError(
        FailureKind.DECODE,
        f"the image's pixels are {stored.dtype} numbers from {smallest:g} to {largest:g}, and what of them is white "
        "would be a guess. --depth full makes the smallest black and the largest white",
    )


def _scaled(stored: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    scaled = np.empty(stored.shape, np.uint8)
    factor = _WHITE / (white - black) if white > black else 0.0
    for row in range(0, len(stored), _BLOCK_ROWS):
        rows = stored[row : row + _BLOCK_ROWS].astype(np.float64)
        scaled[row : row + _BLOCK_ROWS] = np.rint((rows - black) * factor)
    return scaled
