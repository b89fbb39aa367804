"""Options that several commands share are the fields of one dataclass."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any

from trtjob.cli.job_options import OPTIONS


def with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of each of its parameters that is a dataclass, in that one's place, as `OPTIONS` shows.

    Typer shows them in this order, but for positional ones, which come first as in any signature.
    """
    own = inspect.signature(command).parameters.values()
    kinds = {each.name: each.annotation for each in own if isinstance(each.annotation, type)}
    models = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    fields = {name: inspect.signature(model).parameters for name, model in models.items()}
    parameters = [field for each in own for field in fields.get(each.name, {each.name: each}).values()]
    shown = [each.replace(annotation=OPTIONS.get(each.name, each.annotation)) for each in parameters]

    @wraps(command)
    def parsed(**given: Any) -> None:
        for name, model in models.items():
            given[name] = model(**{field: given.pop(field) for field in fields[name]})
        command(**given)

    shown.sort(key=lambda each: each.kind)
    parsed.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # which Typer reads
    parsed.__annotations__ = {each.name: each.annotation for each in shown}
    return parsed
