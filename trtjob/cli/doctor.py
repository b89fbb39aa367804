"""`trtjob doctor`: what this machine has, what is missing, and how to get it."""

from dataclasses import asdict
from typing import Annotated

import typer

from trtjob.cli import options as o
from trtjob.cli.session import start
from trtjob.cli.ui.paint import Painted, line
from trtjob.cli.ui.say import say

EXAMPLE = "Example: trtjob doctor --json"

_MARKS: dict[str, Painted] = {
    "ok": Painted("ok      ", "green"),
    "note": Painted("-       ", "dim"),
    "missing": Painted("MISSING ", "red"),
    "broken": Painted("BROKEN  ", "red"),
}
_FAULTS = frozenset({"missing", "broken"})


def doctor(
    json: Annotated[bool, o.json_instead_of("text")] = False,
) -> None:
    """Check this machine: processor, GPU, ONNX Runtime, engine, queue server, storage and models.

    Exit code 1 where something that trtjob needs is missing or broken.
    """
    from trtjob.cli.doctor_checks import all_checks
    from trtjob.cli.ui.output import print_json

    checks = list(all_checks(start()))
    if json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            say(line(Painted(f"{check.name:<8} ", "bold"), _MARKS[check.state], f" {check.found}"))
            if check.fix:
                say(line(f"{'':<17} -> ", Painted(check.fix, "cyan")))
    raise typer.Exit(1 if any(check.state in _FAULTS for check in checks) else 0)
