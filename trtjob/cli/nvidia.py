"""NVIDIA's cards, as nvidia-smi or else CUDA's driver names them, and which ONNX Runtime they can use."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from trtjob.child_environment import environment
from trtjob.engines.cuda.interface import GpuInfo
from trtjob.engines.onnxruntime.extras import Extra, can_use, cuda_major_of_driver, fitting_extra

_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU. driver: its version, such as 580.105.08, or the CUDA that it runs; compute_capability: such as (9, 0).

    cuda_major: of the newest CUDA that the driver runs; 0: of none that is of use here.
    """

    name: str
    memory: str
    driver: str
    compute_capability: tuple[int, int]
    cuda_major: int

    def can_use(self, extra: Extra) -> bool:
        return can_use(extra, self.cuda_major, self.compute_capability)

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"{self.name}, {self.memory}, driver {self.driver}, compute capability {major}.{minor}"


@dataclass(frozen=True, slots=True)
class Cards:
    """What nvidia-smi says, or where it does not answer CUDA's driver.

    problem: why nvidia-smi names none; is_silent: there is a driver, and neither names a card.
    """

    cards: Sequence[Card] = ()
    problem: str = ""
    is_silent: bool = False

    @property
    def has_gpu(self) -> bool:
        return bool(self.cards) or self.is_silent

    def fitting_extra(self) -> Extra:
        """Return the extra of trtjob whose ONNX Runtime every card here can use."""
        if not self.has_gpu:
            return "cpu"
        cuda_major = min((card.cuda_major for card in self.cards), default=0)
        return fitting_extra(cuda_major, [card.compute_capability for card in self.cards])


def find_cards() -> Cards:
    """Ask nvidia-smi, and CUDA's driver where that names no card."""
    asked = _ask_tool()
    return asked if asked.cards else _ask_driver(asked.problem)


def _ask_tool() -> Cards:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Cards()
    command = [tool, "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        # A card's name may have a sign that is no UTF-8.
        answer = subprocess.run(
            command,
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Cards(problem=f"nvidia-smi fails: it gives no answer within {_TIMEOUT_S} s")
    except OSError as err:
        return Cards(problem=f"nvidia-smi fails: {err}")
    said = " ".join(f"{answer.stdout} {answer.stderr}".split())
    if answer.returncode:
        return Cards(problem=f"nvidia-smi fails: {said or 'it says nothing'} (exit code {answer.returncode})")
    try:
        cards = [_card(line) for line in answer.stdout.strip().splitlines()]
    except ValueError:
        return Cards(problem=f"nvidia-smi gives an answer that trtjob does not understand: {said}")
    return Cards(cards, "" if cards else "nvidia-smi names no GPU")


def _ask_driver(problem: str) -> Cards:
    """Return the cards by CUDA's driver, as in containers without nvidia-smi. problem: that of nvidia-smi."""
    from trtjob.engines.cuda.survey import survey

    here = survey()
    major, minor = here.cuda
    cards = [_card_of(gpu, major, minor) for gpu in here.gpus]
    if here.problem:
        problem = ". ".join(filter(None, [problem, f"CUDA's driver is installed and names no GPU: {here.problem}"]))
    return Cards(cards, problem, is_silent=bool(here.problem))


def _card_of(gpu: GpuInfo, major: int, minor: int) -> Card:
    memory = f"{gpu.memory_bytes >> 20} MiB"
    return Card(gpu.name, memory, f"for CUDA up to {major}.{minor}", gpu.compute_capability, major)


def _card(line: str) -> Card:
    name, memory, driver, capability = (part.strip() for part in line.rsplit(",", 3))
    major, minor = capability.split(".")
    return Card(name, memory, driver, (int(major), int(minor)), cuda_major_of_driver(driver))
