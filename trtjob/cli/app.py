"""The `trtjob` command: its commands, and the one place where an error becomes a line and an exit code.

Exit codes: 0 all fine; 1 images or the job failed; 2 wrong usage; 130 and 143 after Ctrl-C and SIGTERM.
Nothing heavy is imported at the top of a module below `trtjob.cli`: `trtjob --help` must be quick.
"""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Annotated, Any

import typer

from trtjob import __version__
from trtjob.cli import (
    bench,
    cancel,
    convert,
    crops,
    doctor,
    events,
    export,
    jobs,
    logs,
    models,
    report,
    resume,
    retry,
    run,
    sort,
    status,
    submit,
    worker,
)
from trtjob.cli.ui.say import say
from trtjob.cli.usage import UsageError, plain_help, print_usage_error
from trtjob.errors import TrtjobError
from trtjob.utf8 import ensure_utf8

app = typer.Typer(
    name="trtjob",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEBUG = "--debug"


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"trtjob {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: trtjob run photos/ --model yolov3.weights -o results")
def _trtjob(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the traceback of an error; may stand anywhere in the command.")
    ] = False,
) -> None:
    """Run a detector or classifier over many images; get annotated copies and one JSON record for each image."""


RUNNING, WATCHING, MODELS, MACHINE = "Run", "Jobs", "Models", "This machine"

app.command("run", epilog=run.EXAMPLE, rich_help_panel=RUNNING)(run.run)
app.command("submit", epilog=submit.EXAMPLE, rich_help_panel=RUNNING)(submit.submit)
app.command("worker", epilog=worker.EXAMPLE, rich_help_panel=RUNNING)(worker.worker)
app.command("status", epilog=status.EXAMPLE, rich_help_panel=WATCHING)(status.status)
app.command("logs", epilog=logs.EXAMPLE, rich_help_panel=WATCHING)(logs.logs)
app.command("events", epilog=events.EXAMPLE, rich_help_panel=WATCHING)(events.events)
app.command("cancel", epilog=cancel.EXAMPLE, rich_help_panel=WATCHING)(cancel.cancel)
app.command("resume", epilog=resume.EXAMPLE, rich_help_panel=WATCHING)(resume.resume)
app.command("retry", epilog=retry.EXAMPLE, rich_help_panel=WATCHING)(retry.retry)
app.add_typer(jobs.app, name="jobs", epilog=jobs.EXAMPLE, rich_help_panel=WATCHING)
app.command("report", epilog=report.REPORT_EXAMPLE, rich_help_panel=WATCHING)(report.report)
app.command("open", epilog=report.OPEN_EXAMPLE, rich_help_panel=WATCHING)(report.open_report)
app.command("export", epilog=export.EXAMPLE, rich_help_panel=WATCHING)(export.export)
app.command("crops", epilog=crops.EXAMPLE, rich_help_panel=WATCHING)(crops.crops)
app.command("sort", epilog=sort.EXAMPLE, rich_help_panel=WATCHING)(sort.sort)
app.command("convert", epilog=convert.EXAMPLE, rich_help_panel=MODELS)(convert.convert)
app.add_typer(models.app, name="models", epilog=models.EXAMPLE, rich_help_panel=MODELS)
app.command("bench", epilog=bench.EXAMPLE, rich_help_panel=MACHINE)(bench.bench)
app.command("doctor", epilog=doctor.EXAMPLE, rich_help_panel=MACHINE)(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, `sys.argv` unless given. Returns the exit code."""
    if arguments is None:
        ensure_utf8()
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != DEBUG]
    try:
        code = command(_first(words)).main(words, prog_name="trtjob", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UsageError as err:
        return print_usage_error(err)
    except typer.Abort:
        return 1
    except TrtjobError as err:
        return _report(err, str(err), err.exit_code, debug=len(words) < len(given))
    except BrokenPipeError:  # the reader of our output has what it wanted, as in `trtjob status | head -1`
        _discard_output()
        return 1
    except KeyboardInterrupt:  # before Typer listens to it, or when it no longer does
        return 128 + signal.SIGINT
    except Exception as err:  # noqa: BLE001 - the boundary: whatever it is, a user gets a line, not a traceback
        if isinstance(err, OSError) and err.errno == errno.ENAMETOOLONG:  # any argument may be such a name
            return _report(err, f"{err.filename!r}: {err.strerror}", 2, debug=len(words) < len(given))
        if isinstance(err, OSError) and err.errno == errno.ENOSPC and err.filename is None:
            _discard_output()
            message = f"{err.strerror}: standard output, or the disk that trtjob writes to, has no room"
            return _report(err, message, 1, debug=len(words) < len(given))
        message = f"{type(err).__name__}: {err}. This is a fault in trtjob; repeat with {DEBUG} to see where"
        return _report(err, message, 1, debug=len(words) < len(given))


@cache
def command(name: str | None = None) -> Any:
    """Return `trtjob` with all its commands, or with one, as Typer makes it of `app`: once, since all take 10 ms."""
    wanted = copy(app)
    if name is not None:
        wanted.registered_commands = [each for each in app.registered_commands if each.name == name]
        wanted.registered_groups = [each for each in app.registered_groups if each.name == name]
    return plain_help(typer.main.get_command(wanted))


def _first(words: Sequence[str]) -> str | None:
    """Return the command that a command line begins with; None where all of them are needed to say what it means."""
    names = {each.name for each in app.registered_commands} | {each.name for each in app.registered_groups}
    return words[0] if words and words[0] in names else None


def _report(err: Exception, message: str, code: int, *, debug: bool) -> int:
    if debug:
        say(*"".join(traceback.format_exception(err)).splitlines(), err=True)
    say(f"error: {message}", err=True)
    return code


def _discard_output() -> None:
    """Let the interpreter flush standard output into nothing when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
