"""Which of trtjob's extras, each with its ONNX Runtime, a machine's cards and driver can use."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Extra = Literal["cpu", "cuda", "cuda12"]
Capability = tuple[int, int]


class Need(NamedTuple):
    """What an extra's ONNX Runtime needs. driver: the major version of the oldest release that runs its CUDA."""

    cuda_major: int
    driver: int
    capability: Capability


# The best first. scripts/setup.sh has the same numbers.
NEEDS: Mapping[Extra, Need] = {"cuda": Need(13, 580, (7, 5)), "cuda12": Need(12, 525, (6, 0))}
_FIRST_FOR_CUDA_13 = (1, 27)


def can_use(extra: Extra, cuda_major: int, capability: Capability) -> bool:
    """Tell whether a card can use an extra's ONNX Runtime. cuda_major: of the newest CUDA that the driver runs."""
    need = NEEDS[extra]
    return cuda_major >= need.cuda_major and capability >= need.capability


def fitting_extra(cuda_major: int, capabilities: Iterable[Capability]) -> Extra:
    """Return the extra whose ONNX Runtime every one of some cards can use; `cpu` where none is for all of them."""
    cards = list(capabilities)
    return next((extra for extra in NEEDS if all(can_use(extra, cuda_major, card) for card in cards)), "cpu")


def extra_for(cuda_major: int) -> Extra:
    """Return the extra that brings an ONNX Runtime for this version of CUDA."""
    return "cuda" if cuda_major >= NEEDS["cuda"].cuda_major else "cuda12"


def cuda_major_of_driver(release: str) -> int:
    """Return the major version of the newest CUDA that a driver runs, such as 13 for 580.105.08; 0: below all needs.

    Raises ValueError for what is no version.
    """
    major = int(release.split(".")[0])
    return next((need.cuda_major for need in NEEDS.values() if major >= need.driver), 0)


def cuda_major_of_package(version: str) -> int:
    """Return which CUDA an `onnxruntime-gpu` of the package index is for: its files may be another one's by now."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    return 13 if numbers >= _FIRST_FOR_CUDA_13 else 12
