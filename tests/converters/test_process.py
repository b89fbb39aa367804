import os
import signal
from typing import Any

import pytest
from terminal import DIGITS, children

from trtjob.config import Settings
from trtjob.converters.process import convert_in_child
from trtjob.converters.registry import ModelRegistry

REQUEST = {"model": str(DIGITS / "digits.weights")}


def never() -> bool:
    return False


def ignore(_step: dict[str, Any]) -> None:
    pass


@pytest.fixture
def before() -> list[int]:
    return children(os.getpid())


def test_the_outcome_is_the_model_in_the_registry(settings: Settings, before: list[int]) -> None:
    steps: list[dict[str, Any]] = []
    outcome = convert_in_child(REQUEST, settings, steps.append, never)
    assert outcome == {"model": ModelRegistry(settings.models_dir).get("digits").document()}
    assert {"stage": "converting", "done": 0, "total": 0} in steps
    assert children(os.getpid()) == before


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        pytest.param({"model": "/nowhere/a.weights"}, "no model file '/nowhere/a.weights'", id="missing"),
        pytest.param({"model": "/a.weights", "shell": "rm"}, "shell", id="unknown-field"),
        pytest.param({}, "model", id="no-model"),
    ],
)
def test_what_cannot_be_converted_has_a_message(settings: Settings, request_: dict[str, Any], said: str) -> None:
    outcome = convert_in_child(request_, settings, ignore, never)
    assert outcome is not None
    assert said in outcome["message"]


def test_a_conversion_that_crashes_says_by_which_signal(settings: Settings, before: list[int]) -> None:
    def crash(_step: dict[str, Any]) -> None:
        (pid,) = set(children(os.getpid())) - set(before)
        os.kill(pid, signal.SIGSEGV)

    outcome = convert_in_child(REQUEST, settings, crash, never)
    assert outcome is not None
    assert outcome["message"].startswith("the conversion was ended by SIGSEGV. Is there enough memory")
    assert children(os.getpid()) == before


def test_a_conversion_has_so_much_memory_and_no_more(settings: Settings, before: list[int]) -> None:
    settings = settings.model_copy(update={"convert_memory_mib": 64})
    outcome = convert_in_child(REQUEST, settings, ignore, never)
    assert outcome is not None
    assert "memory" in outcome["message"]
    assert children(os.getpid()) == before


def test_a_conversion_that_is_stopped_leaves_no_process(settings: Settings, before: list[int]) -> None:
    assert convert_in_child(REQUEST, settings, ignore, lambda: True) is None
    assert children(os.getpid()) == before


def test_a_step_that_cannot_be_told_ends_the_conversion(settings: Settings, before: list[int]) -> None:
    def fail(_step: dict[str, Any]) -> None:
        raise ConnectionError("the server is away")

    with pytest.raises(ConnectionError):
        convert_in_child(REQUEST, settings, fail, never)
    assert children(os.getpid()) == before
