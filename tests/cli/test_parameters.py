"""The options that commands share: where they stand among a command's own, and what it gets of them."""

import inspect
from dataclasses import KW_ONLY, dataclass
from typing import Any

from trtjob.cli.parameters import with_fields


@dataclass(frozen=True)
class Request:
    source: str
    output: str = "out"
    _: KW_ONLY
    conf: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Workers:
    threads: int = 2
    batch: int = 1


def test_fields_stand_in_their_dataclass_place_and_positional_ones_first() -> None:
    @with_fields
    def command(*, wait: bool = False, request: Request, workers: Workers, json: bool = False) -> None:
        """Do it."""

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["source", "output", "wait", "conf", "threads", "batch", "json"]
    assert (parameters["conf"].annotation, parameters["conf"].default) == (float, 0.25)
    assert command.__doc__ == "Do it."


def test_a_command_gets_its_dataclasses() -> None:
    given: list[Any] = []

    @with_fields
    def command(job: str, *, workers: Workers, json: bool = False) -> None:
        given.extend([job, workers, json])

    command(job="a", threads=8, batch=4, json=True)
    assert given == ["a", Workers(threads=8, batch=4), True]
