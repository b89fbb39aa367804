"""A conversion in a process of its own: `python -m trtjob.converters.process`, started by a worker.

TensorFlow's memory goes with it, and a file that crashes a reader ends no worker. Standard input brings one line of
JSON, what to convert and where the registry lies, and its end says that the worker is gone. Standard output carries a
line of JSON for each step, and last the outcome: `{"model": ...}` or `{"message": ...}`. Logs go to standard error.
"""

import errno
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trtjob.child_process import (
    Allowance,
    Say,
    TimeLimitExceeded,
    child_config,
    end_when_nobody_waits,
    how_it_ended,
    is_short_of_memory,
    said,
    started,
)
from trtjob.config import Settings
from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.errors import TrtjobError
from trtjob.logs import configure_logging

log = logging.getLogger(__name__)

_FULL = (
    "the conversion needs more memory than it may have: TRTJOB_CONVERT_MEMORY_MIB gives it more, else it has three "
    "quarters of this machine's"
)


def convert_in_child(
    request: dict[str, Any],
    settings: Settings,
    on_step: Callable[[dict[str, Any]], None],
    is_stopping: Callable[[], bool],
) -> dict[str, Any] | None:
    """Convert in a process of its own; return its outcome, None where it was stopped.

    on_step: called with each step, and once a second with the last one. is_stopping: asked once a second.
    """
    config = {"request": request, "models_dir": str(settings.models_dir), "log_level": settings.log_level}
    allowance = Allowance(settings.convert_limit_s, settings.convert_memory_mib << 20)
    with started(__name__, config, allowance=allowance) as (process, stream):
        step: dict[str, Any] = {"stage": "starting", "done": 0, "total": 0}
        on_step(step)
        try:
            for news in said(stream, allowance.seconds):
                if is_stopping():
                    return None
                step = step if news is None else news
                if "stage" not in step:
                    return step
                on_step(step)
        except TimeLimitExceeded:
            return {"message": _over_time(step, allowance.seconds)}
        how = how_it_ended(process.wait())
    advice = (
        "Is there enough memory (TRTJOB_CONVERT_MEMORY_MIB), and is the file whole? Convert it with --local to see more"
    )
    return {"message": f"the conversion {how}. {advice}"}


def _over_time(step: dict[str, Any], seconds: float) -> str:
    at = f" {step['done']}/{step['total']}" if step["total"] else ""
    return (
        f"the conversion was ended after {seconds:g} s, while {step['stage']}{at}. A model whose graph goes round in "
        "itself may never end; TRTJOB_CONVERT_LIMIT_S gives one that only takes long more time"
    )


def main() -> int:
    """Convert what standard input asks for. Returns the exit code."""
    with child_config() as (config, say):
        configure_logging(config["log_level"], "text")
        end_when_nobody_waits()
        say(_outcome(config["request"], Path(config["models_dir"]), say))
    return 0


def _outcome(request: dict[str, Any], models_dir: Path, say: Say) -> dict[str, Any]:
    def progress(stage: str, done: int, total: int) -> None:
        say({"stage": stage, "done": done, "total": total})

    try:
        model = convert_model(
            ConversionRequest.model_validate(request), registry=ModelRegistry(models_dir), on_progress=progress
        )
    except (TrtjobError, OSError, ValueError) as err:
        is_full = isinstance(err, OSError) and err.errno == errno.ENOMEM
        return {"message": _FULL if is_full else str(err)}
    except Exception as err:  # else whoever asked for it would not know
        if isinstance(err, MemoryError) or is_short_of_memory():
            log.warning("the conversion's memory is full", exc_info=err)
            return {"message": _FULL}
        log.exception("unexpected error", extra={"model": str(request.get("model"))})
        what = f"unexpected {type(err).__name__}: {err}"
        return {"message": f"{what}. This is a mistake in trtjob; the worker's log says where"}
    return {"model": model.document()}


if __name__ == "__main__":
    sys.exit(main())
