"""The way of a batch to the GPU and back: straight between its arrays and the GPU, or by page-locked ones of a lane."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from trtjob.engines.cuda.driver import Memory, Stream

Arrays = Sequence[NDArray[Any]]
Reaches = Callable[[Arrays], bool]


def to_send(images: Arrays, own: NDArray[Any], reaches: Reaches) -> Arrays:
    """Return what the GPU is to copy: the images where it reaches them all, else their copies in a lane's own array."""
    if reaches(images):
        return images
    for place, image in zip(own, images, strict=False):
        place[...] = image
    return [own[: len(images)]]


def to_fill(arrays: Arrays, own: NDArray[Any], reaches: Reaches) -> Arrays:
    """Return what the GPU is to fill: the arrays where it reaches them all, else rows of a lane's own array."""
    return arrays if reaches(arrays) else [own[: len(arrays)]]


def deliver(filled: Arrays, arrays: Arrays) -> None:
    """Bring what the GPU has filled into the arrays that `to_fill` was asked about, unless it is there."""
    if filled is not arrays:
        # A lane's own array is written again by the next batch, so copy.
        for array, values in zip(arrays, filled[0], strict=True):
            array[...] = values


def copy_in(stream: Stream, device: Memory, hosts: Arrays) -> None:
    """Begin to copy arrays to the GPU, where they lie in a row."""
    at = int(device)
    for host in hosts:
        stream.copy_in(at, host)
        at += host.nbytes


def copy_out(stream: Stream, hosts: Arrays, device: Memory) -> None:
    """Begin to fill arrays from the GPU, where they lie in a row."""
    at = int(device)
    for host in hosts:
        stream.copy_out(host, at)
        at += host.nbytes
