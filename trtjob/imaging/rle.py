"""Run lengths of a mask, as COCO writes them: column by column, the zeros first; and their compressed text.

Byte for byte what pycocotools gives (rleEncode, rleToString and rleFrString in maskApi.c).
"""

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Runs = NDArray[np.int64]

_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48  # of a character: bits of a number, those above them; the code of 0
_MOST = 8  # characters of one number
_TOO_LARGE = 1 << np.arange(_BITS - 1, _BITS * _MOST - 1, _BITS)  # for one character, for two, and so on


def run_lengths(mask: BoolArray) -> Runs:
    """Return the lengths of a mask's runs: of zeros, of ones, and so on. mask: [H, W].

    >>> run_lengths(np.array([[0, 1, 1], [0, 1, 0]], bool)).tolist()
    [2, 3, 1]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges)
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs


def runs_between(edges: Runs, size: int) -> Runs:
    """Return the lengths of the runs of a mask of so many pixels. edges: where ones begin and end, by turns, rising.

    An end and a beginning may be the same, as those of two columns are that touch.

    >>> runs_between(np.array([2, 4, 4, 5]), 6).tolist()
    [2, 3, 1]
    """
    begins, ends = edges[::2], edges[1::2]
    is_apart = begins[1:] != ends[:-1]
    edges = np.empty(2 * (1 + is_apart.sum()), np.int64)
    edges[::2] = np.concatenate([begins[:1], begins[1:][is_apart]])
    edges[1::2] = np.concatenate([ends[:-1][is_apart], ends[-1:]])
    runs = np.diff(np.concatenate([[0], edges, [size]]))
    return runs if runs[-1] else runs[:-1]


def mask_from(runs: Runs, hw: tuple[int, int]) -> BoolArray:
    """Return the mask, [H, W], of its runs' lengths. Raises ValueError where they do not add up to its size."""
    height, width = hw
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"the runs of a mask add up to {runs.sum()} pixels, but it has {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def compressed(runs: Runs) -> str:
    """Return the runs' lengths as text: from the fourth on, each by how it differs from the one before the last.

    >>> compressed(np.array([5, 3, 40, 2]))
    '53X1O'
    """
    rest = runs.copy()
    rest[3:] -= runs[1:-2]
    lengths = np.searchsorted(_TOO_LARGE, rest ^ (rest >> 63), side="right") + 1
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    codes = (np.repeat(rest, lengths) >> (_BITS * places) & (_MORE - 1)) + (_FIRST + _MORE)
    codes[ends - 1] -= _MORE
    return str(codes.astype(np.uint8).tobytes(), "ascii")


def decompressed(counts: str) -> Runs:
    """Return the runs' lengths that `compressed` wrote. Raises ValueError where it is something else."""
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    if not len(codes) or codes.min() < 0 or codes.max() >= 2 * _MORE or codes[-1] & _MORE:
        raise ValueError(f"{counts[:40]!r} is no mask in COCO's compressed run lengths")
    is_last = (codes & _MORE) == 0
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    places = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
    if places.max() >= _MOST:
        raise ValueError(f"{counts[:40]!r} is no mask in COCO's compressed run lengths")
    values = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * places), starts)
    last = codes[is_last]
    values -= np.where(last & _SIGN, 1 << (_BITS * (places[is_last] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
