"""What is said of a command line that cannot be meant, in our words and not Typer's."""

from typing import Any

import typer

from trtjob.api.given import expect_named
from trtjob.near import near

UsageError: Any = typer.BadParameter.__base__


def print_usage_error(err: Any) -> int:
    """Print what is wrong with a command line, in a box as the help has. Returns the exit code."""
    from typer import rich_utils

    _reword(err)
    rich_utils.rich_format_error(err)
    return int(err.exit_code)


def _reword(err: Any) -> None:
    """Say in plain words what is wrong with a value, and offer only near names instead of one that is not known."""
    from pydantic import ValidationError

    from trtjob.documents import in_words

    if isinstance(err.__cause__, ValidationError):
        problem = err.__cause__.errors()[0]
        said, value = in_words(problem), repr(problem["input"])
        err.message = said if value in said else f"{value}: {said}"
    if getattr(err, "possibilities", None):
        known = {each.lstrip("-"): each for each in err.possibilities}
        err.possibilities = [known[name] for name in near(err.option_name.lstrip("-"), known)]
    name, hint, _offered = err.message.partition(" Did you mean ")
    if hint and err.ctx is not None:
        typed = name.split("'")[1]
        offered = " or ".join(f"'{known}'" for known in near(typed, err.ctx.command.commands))
        err.message = f"{name} Did you mean {offered}?" if offered else name


def plain_help(command: Any, parent: Any = None) -> Any:
    """Have a command and those below it name arguments and flags as people write them, without a library's types."""
    context = typer.Context(command, parent=parent, **command.context_settings)
    for parameter in (*command.params, command.get_help_option(context)):
        if isinstance(parameter, typer.core.TyperArgument):
            parameter.__class__ = _PlainArgument
        elif parameter.is_flag:
            parameter.__class__ = _PlainFlag
        else:
            parameter.__class__ = _PlainOption
    for child in getattr(command, "commands", {}).values():
        plain_help(child, context)
    return command


# What is expected where this stands in the help: an empty one would be the current folder.
_PLACES = {
    "FILE": "a file",
    "coco.json": "a file",
    "DIR": "a folder",
    "FOLDER": "a folder",
    "PATH": "a file or a folder",
    "s3://": "an s3:// prefix",
    "NAME,NAME": "names",
    "MODEL": "a model",
    "JOB2": "a job's id, or its folder",
}


def _expect_named(parameter: Any, called: str, ctx: Any, given: Any) -> None:
    """Refuse a path that is empty."""
    parts = (parameter.metavar or "").split("|")
    if _PLACES.keys() >= set(parts) and not ctx.resilient_parsing:
        expected = " or ".join(_PLACES[part] for part in parts)
        expect_named(called, given.get(parameter.name), expected, is_required=parameter.required)


class _PlainOption(typer.core.TyperOption):
    """An option with a value, which is not empty where it is a path."""

    def handle_parse_result(self, ctx: Any, opts: Any, args: Any) -> Any:
        _expect_named(self, max(self.opts, key=len), ctx, opts)
        return super().handle_parse_result(ctx, opts, args)


class _PlainArgument(typer.core.TyperArgument):
    """`SOURCE...` and `[JOB]` in the usage, and no type beside it; not empty where it is a path."""

    def handle_parse_result(self, ctx: Any, opts: Any, args: Any) -> Any:
        _expect_named(self, str(self.metavar), ctx, opts)
        return super().handle_parse_result(ctx, opts, args)

    def _usage_display_name(self) -> str:
        return str(self.metavar) if self.required else f"[{self.metavar}]"

    def display_type_rich(self, ctx: Any) -> str | None:
        return None


class _PlainFlag(typer.core.TyperOption):
    """An option without a value, which has no type either."""

    def display_type_rich(self, ctx: Any) -> str | None:
        return None
