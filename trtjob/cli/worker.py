"""`trtjob worker`: the daemon on a node."""

from typing import Annotated

import typer

from trtjob.cli import options as o
from trtjob.cli.parameters import with_fields
from trtjob.cli.session import Session, open_session, start
from trtjob.cli.signals import Stop, run_until_stopped
from trtjob.cli.ui.say import say

EXAMPLE = "Example: trtjob worker --processes 2 --threads 4 --http 127.0.0.1:9100"

STOPPING = "Stopping at the next batch edge. Press Ctrl-C again to stop at once."


@with_fields
def worker(
    *,
    processes: o.Processes = 1,
    workers: o.WorkerOptions,
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

    stop = Stop()
    with stop.on_signals(STOPPING):
        await Supervisor(session.settings, session.connection, processes=processes).run(stop.event)
    return 0
