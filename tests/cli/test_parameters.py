"""The options that commands share: where they stand among a command's own, and what it gets of them."""

import inspect
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

from trtjob.api.job_request import JobRequest
from trtjob.api.session import WorkerOptions
from trtjob.cli.job_options import OPTIONS
from trtjob.cli.parameters import with_fields


@dataclass(frozen=True)
class Request:
    source: str
    output: str = "out"
    _: KW_ONLY
    least: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Workers:
    hands: int = 2
    pile: int = 1


def test_fields_stand_in_their_dataclass_place_and_positional_ones_first() -> None:
    @with_fields
    def command(*, wait: bool = False, request: Request, workers: Workers, json: bool = False) -> None:
        """Do it."""

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["source", "output", "wait", "least", "hands", "pile", "json"]
    assert (parameters["least"].annotation, parameters["least"].default) == (float, 0.25)
    assert command.__doc__ == "Do it."


def test_a_command_gets_its_dataclasses() -> None:
    given: list[Any] = []

    @with_fields
    def command(job: str, *, workers: Workers, json: bool = False) -> None:
        given.extend([job, workers, json])

    command(job="a", hands=8, pile=4, json=True)
    assert given == ["a", Workers(hands=8, pile=4), True]


def test_every_field_of_a_request_has_its_option() -> None:
    assert set(OPTIONS) == {each.name for kind in (JobRequest, WorkerOptions) for each in fields(kind)}
