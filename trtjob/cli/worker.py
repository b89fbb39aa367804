"""`trtjob worker`: the daemon on a node."""

from typing import Annotated

import typer

from trtjob.api.session import Session, WorkerOptions, open_session
from trtjob.cli import options as o
from trtjob.cli.parameters import with_fields
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped, stopped_by_signals
from trtjob.cli.ui.say import say

EXAMPLE = "Example: trtjob worker --processes 2 --threads 4 --http 127.0.0.1:9100"

STOPPING = "Stopping at the next batch edge. Press Ctrl-C again to stop at once."


@with_fields
def worker(
    *,
    processes: o.Processes = 1,
    workers: WorkerOptions,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Answer /metrics (Prometheus), /livez and /readyz there. Default: TRTJOB_HTTP, or nowhere.",
        ),
    ] = None,
) -> None:
    """Work on the jobs that are handed in, until stopped with Ctrl-C or SIGTERM (exit code 0)."""
    settings = start(workers, http=http, quiet=False)
    with open_session(settings) as session:
        say(f"Working on queue '{settings.queue}' of {session.connection.describe()}", err=True)
        code = run_until_stopped(_work(session, processes))
    raise typer.Exit(code)


async def _work(session: Session, processes: int) -> int:
    from trtjob.worker.supervisor import Supervisor

    with stopped_by_signals(STOPPING) as stop:
        await Supervisor(session.settings, session.connection, processes=processes).run(stop.event)
    return 0
