"""NVIDIA's cards as its driver names them, and which ONNX Runtime they can use."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Extra = Literal["cpu", "cuda", "cuda12"]

_TIMEOUT_S = 10
# What the extras' packages need: their CUDA, the driver's lowest major version, the lowest compute capability.
# scripts/setup.sh has the same numbers.
_NEEDS: dict[Extra, tuple[int, int, tuple[int, int]]] = {"cuda": (13, 580, (7, 5)), "cuda12": (12, 525, (6, 0))}


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU. driver: its version, such as 580.105.08; compute_capability: such as (9, 0)."""

    name: str
    memory: str
    driver: str
    compute_capability: tuple[int, int]

    def can_use(self, extra: Extra) -> bool:
        _, driver, capability = _NEEDS[extra]
        return int(self.driver.split(".")[0]) >= driver and self.compute_capability >= capability

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"{self.name}, {self.memory}, driver {self.driver}, compute capability {major}.{minor}"


@dataclass(frozen=True, slots=True)
class Cards:
    """What nvidia-smi says. problem: why it says nothing; is_unasked: there is a driver and, as in some containers, no
    nvidia-smi.
    """

    cards: Sequence[Card] = ()
    problem: str = ""
    is_unasked: bool = False

    @property
    def has_gpu(self) -> bool:
        return bool(self.cards) or self.is_unasked

    def fitting_extra(self) -> Extra:
        """Return the extra of trtjob whose ONNX Runtime every card here can use."""
        if not self.has_gpu:
            return "cpu"
        return next((extra for extra in _NEEDS if all(card.can_use(extra) for card in self.cards)), "cpu")


def find_cards() -> Cards:
    """Ask nvidia-smi."""
    from trtjob.engines.cuda.driver import has_driver

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Cards(is_unasked=has_driver())
    command = [tool, "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        cards = [_card(line) for line in answer.stdout.strip().splitlines()]
        return Cards(cards, "" if cards else "nvidia-smi names no GPU")
    except (OSError, subprocess.SubprocessError) as err:
        return Cards(problem=f"nvidia-smi fails: {err}")
    except ValueError:
        return Cards(problem=f"nvidia-smi gives an answer that trtjob does not understand: {answer.stdout.strip()}")


def extra_for(cuda_major: int) -> Extra:
    """Return the extra that brings an ONNX Runtime for this version of CUDA."""
    return "cuda" if cuda_major >= _NEEDS["cuda"][0] else "cuda12"


def _card(line: str) -> Card:
    name, memory, driver, capability = (part.strip() for part in line.rsplit(",", 3))
    major, minor = capability.split(".")
    int(driver.split(".")[0])
    return Card(name, memory, driver, (int(major), int(minor)))
