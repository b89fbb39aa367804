"""The way of a batch to the GPU and back: straight between its arrays and the GPU, or by page-locked ones of a lane."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from numpy.typing import NDArray

from trtjob.engines.cuda.interface import Memory, Stream
from trtjob.engines.protocol import AnyImage, DeviceImage

# Arrays up to this size come in one call of CUDA's driver for all, by a lane's own array, and not in one for each.
_SMALL_BYTES = 64 << 10

Arrays = Sequence[NDArray[Any]]
Reaches = Callable[[Arrays], bool]


def to_send(images: Sequence[AnyImage], own: NDArray[Any], reaches: Reaches) -> Sequence[AnyImage]:
    """Return what the GPU is to copy: the images where it reaches them all, else their copies in a lane's own array."""
    hosts = [image for image in images if not isinstance(image, DeviceImage)]
    if reaches(hosts):
        return images
    sent = list(images)
    for number, image in enumerate(images):
        if not isinstance(image, DeviceImage):
            own[number][...] = image
            sent[number] = own[number]
    return sent if len(hosts) < len(images) else [own[: len(images)]]


def to_fill(arrays: Arrays, own: NDArray[Any], reaches: Reaches) -> Arrays:
    """Return what the GPU is to fill: the arrays where they are large and it reaches all, else rows of a lane's own."""
    return arrays if own[0].nbytes > _SMALL_BYTES and reaches(arrays) else [own[: len(arrays)]]


def deliver(filled: Arrays, arrays: Arrays) -> None:
    """Bring what the GPU has filled into the arrays that `to_fill` was asked about, unless it is there."""
    if filled is not arrays:
        # A lane's own array is written again by the next batch, so copy.
        for array, values in zip(arrays, filled[0], strict=True):
            array[...] = values


def copy_in(stream: Stream, device: Memory, images: Sequence[AnyImage]) -> None:
    """Begin to copy images to the GPU, where they lie in a row."""
    at = int(device)
    for _, group in groupby(enumerate(images), _start):
        neighbours = [image for _, image in group]
        if isinstance(first := neighbours[0], DeviceImage):
            nbytes = first.nbytes * len(neighbours)
            stream.copy_within(at, first.address, nbytes)
            at += nbytes
            continue
        for image in neighbours:
            assert not isinstance(image, DeviceImage)
            stream.copy_in(at, image)
            at += image.nbytes


def _start(numbered: tuple[int, AnyImage]) -> int | None:
    """Return where the first image would lie, were all up to this one in a row on the GPU; None for one of the host's.

    So neighbours that are one copy have the same.
    """
    number, image = numbered
    return image.address - number * image.nbytes if isinstance(image, DeviceImage) else None


def copy_out(stream: Stream, hosts: Arrays, device: Memory) -> None:
    """Begin to fill arrays from the GPU, where they lie in a row."""
    at = int(device)
    for host in hosts:
        stream.copy_out(host, at)
        at += host.nbytes
