"""`trtjob convert`: a foreign model becomes a self-describing ONNX file."""

import asyncio
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from trtjob.cli.desk import Desk, open_desk, start
from trtjob.cli.stopping import Stop, run_until_stopped
from trtjob.errors import ConversionError, ModelError

EXAMPLE = "Example: trtjob convert yolov3.weights --cfg yolov3.cfg --labels coco.names -o yolov3.onnx"

POLL_S = 0.2
HINT_AFTER_S = 3.0


def convert(
    model: Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="A Darknet .weights file.")],
    cfg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its .cfg. Default: the one of the same name beside it.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its class names, one a line. Default: the .names beside it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the .onnx here. Default: the registry only."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name in the registry. Default: the file's name.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Convert in this process. Default: a worker converts, and this waits.")
    ] = False,
) -> None:
    """Convert a model once, register it under a name, and print the name.

    `trtjob run` does this by itself; this command is for other names and files, and for a look at the errors.
    """
    settings = start()
    if not model.expanduser().is_file():  # found here, not by a worker that may never come
        raise ModelError(f"no model file '{model}'")
    request = {
        "model": _absolute(model),
        "cfg": _absolute(cfg),
        "labels": _absolute(labels),
        "out": _absolute(output),
        "name": name,
    }
    if local:
        from trtjob.converters.registry import ModelRegistry
        from trtjob.converters.request import ConversionRequest
        from trtjob.worker.convert import convert_model

        registry = ModelRegistry(settings.models_dir)
        typer.echo(convert_model(ConversionRequest.model_validate(request), registry=registry).name)
        return
    with open_desk(settings) as desk:
        raise typer.Exit(run_until_stopped(_convert(desk, request)))


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


async def _convert(desk: Desk, request: dict[str, Any]) -> int:
    stop = Stop()
    request_id = secrets.token_hex(8)
    with stop.on_signals("No longer waiting; a worker may still convert the model."):
        await asyncio.to_thread(desk.queue.put_convert, request_id, request)
        outcome = await stop.unless_stopped(_outcome(desk, request_id))
    if outcome is None:
        return stop.exit_code
    if outcome["state"] == "failed":
        raise ConversionError(outcome["message"])
    typer.echo(outcome["name"])
    return 0


async def _outcome(desk: Desk, request_id: str) -> dict[str, str]:
    """Return what the worker reports, once it is done; after a while, say what is missing where no worker runs."""
    hint_at = asyncio.get_running_loop().time() + HINT_AFTER_S
    while True:
        outcome = await asyncio.to_thread(_look, desk, request_id)
        if outcome.get("state") in ("done", "failed"):
            return outcome
        if asyncio.get_running_loop().time() > hint_at:
            hint_at = float("inf")
            if not await asyncio.to_thread(desk.store.workers):
                typer.echo(
                    "Waiting: no worker is running. Start one with `trtjob worker`, or stop this with Ctrl-C and "
                    "convert here with --local",
                    err=True,
                )
        await asyncio.sleep(POLL_S)


def _look(desk: Desk, request_id: str) -> dict[str, str]:
    from trtjob.jobs.queue import conversion_key

    desk.connection.ensure()
    fields = desk.store.redis.hgetall(conversion_key(request_id))
    return {key.decode(): value.decode() for key, value in fields.items()}
