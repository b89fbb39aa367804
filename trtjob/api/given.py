"""Values of options as a caller gives them: Python lets anything through, so each is looked at where it is used.

All of these raise ConfigError, which names the option and what was expected.
"""

import math
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from trtjob.errors import ConfigError
from trtjob.tilde import expand_tilde

Choice = TypeVar("Choice", bound=StrEnum)

LONGEST_WAIT_S = 1e9  # 30 years


def as_number(option: str, value: object) -> float:
    """Return a number, an integer as it is: messages show it.

    >>> as_number("--conf", "high")
    Traceback (most recent call last):
    trtjob.errors.ConfigError: --conf 'high': expected a number
    """
    if isinstance(value, int | float):
        return value
    try:
        return float(value)  # type: ignore[arg-type]  # what is none is told
    except (TypeError, ValueError) as err:
        raise ConfigError(f"{option} {value!r}: expected a number") from err


def as_wait_s(option: str, value: object) -> float | None:
    """Return for how many seconds to wait, None for ever; what is below zero is the past, and so no wait."""
    if value is None:
        return None
    seconds = as_number(option, value)
    if not -math.inf <= seconds <= math.inf:  # not a number; an integer may be too large to be a float
        raise ConfigError(f"{option} {value!r}: expected seconds")
    return min(max(seconds, 0), LONGEST_WAIT_S)


def as_score(option: str, value: object) -> float:
    """Return a score, which is from 0 to 1."""
    score = as_number(option, value)
    if not 0 <= score <= 1:
        raise ConfigError(f"{option} {value}: expected 0 to 1")
    return score


def as_choice(option: str, choices: type[Choice], value: object) -> Choice:
    """Return the one of these choices that is named."""
    try:
        return choices(str(value))
    except ValueError as err:
        raise ConfigError(f"{option} {value!r}: expected {', '.join(choices)}") from err


def expect_named(option: str, value: object, what: str, *, is_required: bool = False) -> None:
    """Refuse a path that is empty, as an unset variable is: it would be the current folder. what: was expected."""
    if value == "":
        raise ConfigError(f"{option} is empty. Name {what}{'' if is_required else ', or leave it out'}")


def as_path(option: str, value: object) -> Path:
    """Return a path that may be empty, a leading `~/` expanded. None has a zero byte."""
    if isinstance(value, str | Path) and "\0" not in str(value):
        return expand_tilde(value)
    raise ConfigError(f"{option} {value!r}: expected a path")


def as_several(option: str, value: object, what: str) -> tuple[object, ...]:
    """Return one or several as several; one is a text or a path. what: was expected.

    >>> as_several("--include", "IMG_*.jpg", "a pattern, or several")
    ('IMG_*.jpg',)
    """
    if isinstance(value, str | Path):
        return (value,)
    if isinstance(value, Iterable):
        return tuple(value)
    raise ConfigError(f"{option} {value!r}: expected {what}")


def as_classes(option: str, value: object) -> tuple[str | int, ...]:
    """Return names of classes, and their numbers, one or several.

    >>> as_classes("label", 2)
    (2,)
    """
    what = "a class's name or number, or several"
    each = (value,) if isinstance(value, int) else as_several(option, value, what)
    classes = tuple(one for one in each if isinstance(one, str | int) and one != "" and not isinstance(one, bool))
    if not classes or len(classes) < len(each):
        raise ConfigError(f"{option} {value!r}: expected {what}")
    return classes
