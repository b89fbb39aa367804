"""A conversion that a worker does: asked for, watched, and cancelled where nobody waits for it any more."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import typer

from trtjob.api.progress import StageDisplay, open_stages
from trtjob.api.session import Session
from trtjob.cli.signals import stopped_by_signals
from trtjob.cli.ui.say import say
from trtjob.errors import ConversionError

if TYPE_CHECKING:
    from trtjob.converters.request import ConversionRequest
    from trtjob.queue.conversions import Conversion

POLL_S = 0.2
HINT_AFTER_S = 3.0


async def converted_by_worker(session: Session, request: "ConversionRequest") -> dict[str, Any]:
    """Have a worker convert. Returns what is known of the model; exits where the user stops waiting."""
    from trtjob.queue.conversions import Conversion, name_of, new_id

    conversion = Conversion(session.store.redis, new_id())
    with stopped_by_signals("Cancelling the conversion ...") as stop:
        await asyncio.to_thread(conversion.want)
        await asyncio.to_thread(session.queue.put_convert, conversion.id, request.model_dump(mode="json"))
        try:
            with open_stages(request.model.name) as display:
                outcome = await stop.unless_stopped(_outcome(session, conversion, display))
        finally:
            await asyncio.to_thread(conversion.cancel)
    if outcome is None:
        raise typer.Exit(stop.exit_code)
    if outcome["state"] == "failed":
        raise ConversionError(outcome["message"])
    if outcome["state"] == "cancelled":
        raise ConversionError(f"the conversion {name_of(conversion.id)} was cancelled")
    document: dict[str, Any] = json.loads(outcome["model"])
    return document


async def _outcome(session: Session, conversion: "Conversion", display: "StageDisplay") -> dict[str, str]:
    """Return what the worker reports, once it is done; after a while, say what is missing where no worker runs."""
    from trtjob.queue.conversions import RENEW_S
    from trtjob.queue.progress import worker_command

    now = asyncio.get_running_loop().time
    hint_at, renew_at = now() + HINT_AFTER_S, now() + RENEW_S
    state = "queued"
    while True:
        outcome = await asyncio.to_thread(_look, session, conversion)
        before, state = state, outcome.get("state", "queued")
        if state in ("done", "failed", "cancelled"):
            return outcome
        if now() > renew_at:
            renew_at = now() + RENEW_S
            if not await asyncio.to_thread(conversion.still_want):
                return {"state": "cancelled"}
        if state == "running":
            display.show(outcome["stage"], int(outcome["done"]), int(outcome["total"]))
        elif before == "running" and not outcome:
            raise ConversionError("the worker that was converting the model is gone. Repeat the command")
        elif now() > hint_at:
            hint_at = float("inf")
            workers = await asyncio.to_thread(session.store.workers)
            if not any(worker.may_do(session.queue.name) for worker in workers):
                command = worker_command(session.queue.name)
                say(
                    f"Waiting: no worker is running. Start one with `{command}`, or stop this with Ctrl-C and convert "
                    "here with --local",
                    err=True,
                )
        await asyncio.sleep(POLL_S)


def _look(session: Session, conversion: "Conversion") -> dict[str, str]:
    session.connection.ensure()  # nobody else starts the embedded server again where no worker runs
    return conversion.told()
