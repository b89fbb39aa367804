"""Run lengths as Label Studio's brush keeps them: bits, packed as by thi.ng/rle-pack, of an image in RGBA."""

from trtjob.imaging.rle import BoolArray, run_lengths

_CHANNELS = 4
_WORD, _SIZES = 8, (3, 4, 8, 16)  # bits of a value, and of a run's length: each run says which of the four it takes
_LONGEST = 1 << _SIZES[-1]


def brush_rle(mask: BoolArray) -> list[int]:
    """Return a mask, [H, W], as bytes.

    A head: the number of values, the bits of one, the four sizes of a length. Then runs, here all of the largest size:
    a bit that says so, two for the size, the length less one, the value.

    >>> import numpy as np
    >>> brush_rle(np.array([[False, True]]))
    [0, 0, 0, 8, 57, 27, 255, 0, 3, 0, 224, 0, 127, 224]
    """
    bits = [f"{_CHANNELS * mask.size:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    value = 0
    for length in (_CHANNELS * run_lengths(mask.T)).tolist():  # row by row
        pieces = (min(_LONGEST, length - begin) for begin in range(0, length, _LONGEST))
        bits += [f"111{piece - 1:016b}{value:08b}" for piece in pieces]
        value ^= 0xFF
    text = "".join(bits)
    size_bytes = -(-len(text) // 8)
    return list(int(text.ljust(8 * size_bytes, "0"), 2).to_bytes(size_bytes))
