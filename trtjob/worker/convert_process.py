"""A conversion in a process of its own: `python -m trtjob.worker.convert_process`, started by a worker.

TensorFlow's memory goes with it, and a file that crashes a reader ends no worker. Standard input brings one line of
JSON, what to convert and where the registry lies, and its end says that the worker is gone. Standard output carries a
line of JSON for each step, and last the outcome: `{"model": ...}` or `{"message": ...}`. Logs go to standard error.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from trtjob.config import Settings
from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.errors import TrtjobError
from trtjob.logs import configure_logging
from trtjob.worker.convert import convert_model

log = logging.getLogger(__name__)

BEAT_S = 1.0
_GONE = 70  # the exit code of a conversion whose worker is gone; nobody is left to read it


def convert_apart(
    request: dict[str, Any],
    settings: Settings,
    on_step: Callable[[dict[str, Any]], None],
    is_stopping: Callable[[], bool],
) -> dict[str, Any] | None:
    """Convert in a process of its own; return its outcome, None where it was stopped.

    on_step: called with each step, and once a second with the last one. is_stopping: asked once a second.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the supervisor's, which lets the worker stop in order
    )
    assert process.stdin is not None
    assert process.stdout is not None
    order = {"request": request, "models_dir": str(settings.models_dir), "log_level": settings.log_level}
    try:
        with suppress(BrokenPipeError):  # it has ended already; how, is told below
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        step: dict[str, Any] = {"stage": "starting", "done": 0, "total": 0}
        on_step(step)
        for line in _lines(process.stdout):
            if is_stopping():
                return None
            step = step if line is None else json.loads(line)
            if "stage" not in step:
                return step
            on_step(step)
        return {"message": _how_it_ended(process.wait())}
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield lines as they come, and None where a second brings none."""
    buffer = b""
    while True:
        ready, _, _ = select.select([stream], [], [], BEAT_S)
        if not ready:
            yield None
            continue
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        yield from lines


def _how_it_ended(code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"the conversion {how}. Is there enough memory, and is the file whole? Convert it with --local to see more"


def main() -> int:
    """Convert what standard input asks for. Returns the exit code."""
    # Libraries print to standard output what they think we should know; the worker reads only what is ours.
    with os.fdopen(os.dup(1), "wb", buffering=0) as channel:
        os.dup2(2, 1)
        order = json.loads(sys.stdin.buffer.readline())
        configure_logging(Settings(log_level=order["log_level"]))
        threading.Thread(target=_await_worker, daemon=True).start()

        def say(document: dict[str, Any]) -> None:
            channel.write(json.dumps(document).encode() + b"\n")

        say(_outcome(order["request"], Path(order["models_dir"]), say))
    return 0


def _outcome(request: dict[str, Any], models_dir: Path, say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    def progress(stage: str, done: int, total: int) -> None:
        say({"stage": stage, "done": done, "total": total})

    try:
        model = convert_model(
            ConversionRequest.model_validate(request), registry=ModelRegistry(models_dir), on_progress=progress
        )
    except (TrtjobError, OSError, ValueError) as err:
        return {"message": str(err)}
    except Exception as err:  # else whoever asked for it would not know
        log.exception("unexpected error", extra={"model": str(request.get("model"))})
        what = f"unexpected {type(err).__name__}: {err}"
        return {"message": f"{what}. This is a mistake in trtjob; the worker's log says where"}
    return {"model": model.document()}


def _await_worker() -> None:
    while os.read(0, 4096):
        pass
    os._exit(_GONE)


if __name__ == "__main__":
    sys.exit(main())
