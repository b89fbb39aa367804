"""A build in a process of its own: `python -m trtjob.engines.tensorrt.build_process`, started by `build_in_child`.

TensorRT 8.6 tells nothing while it builds and cannot be stopped from within; a process can. What ends it - a lack of
memory, a fault of the library, a plan that breaks the GPU's context when it is checked - ends no worker. Standard input
brings one line of JSON, what to build, and its end says that nobody waits any more. Standard output carries a line of
JSON for each step and each line of the log, and last `{"built": true}` or `{"error": ...}`. The plan, which can have
hundreds of megabytes, comes in a file.
"""

import ctypes
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from trtjob.child_process import (
    DEFAULT_ALLOWANCE,
    GONE,
    Allowance,
    Say,
    TimeLimitExceeded,
    child_config,
    end_when_nobody_waits,
    how_it_ended,
    said,
    started,
)
from trtjob.engines.tensorrt.build_folder import NO_ROOM, build_folder, why_no_room
from trtjob.engines.tensorrt.builder import (
    BatchProfile,
    BuildCancelled,
    BuildOptions,
    BuildProgress,
    Built,
    build_plan,
)
from trtjob.engines.tensorrt.plan_failures import PassingBuildError
from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError, TrtjobError

log = logging.getLogger(__name__)

_LAST_WORDS = 600  # characters
# What a build says of itself that is as true the next time; a package that is missing may have come by then.
_LASTING = (EngineError.__name__, DeviceLostError.__name__)
# A library's own; the others come from outside.
_FAULTS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
_OF_MEMORY = re.compile(r"memory|alloc|" + NO_ROOM, re.IGNORECASE)
_MORE_MEMORY = ". Is there enough memory? TRTJOB_PLAN_WORKSPACE_MIB and smaller TRTJOB_PLAN_BATCHES need less"
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def build_in_child(
    model: Path,
    options: BuildOptions,
    *,
    gpu: int | None,
    timing_cache: bytes = b"",
    on_progress: BuildProgress = lambda *_: True,
    name: str = "",
    allowance: Allowance = DEFAULT_ALLOWANCE,
) -> Built:
    """Build a plan in a process of its own, and check it on the GPU that it is built for.

    gpu: None builds for no GPU in particular, as TensorRT-RTX can, and checks nothing.
    on_progress: called with each step; at least once a second, if need be with the last one, or, where nothing tells of
    steps, with "building", the seconds so far and 0. False ends the process at once.
    name: what messages call the model; the file's, unless given. allowance: what the process may take.
    Raises EngineError, of which PassingBuildError and DeviceMemoryError may not come again; BuildCancelled.
    """
    name = name or model.name
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(build_folder())
            (folder / "timing").write_bytes(timing_cache)
            words = stack.enter_context((folder / "stderr").open("wb"))
        except OSError as err:
            raise PassingBuildError(
                f"there is no temporary folder for the build of a plan for '{name}': {err}"
            ) from err
        config = {"model": str(model), "name": name, "options": asdict(options), "gpu": gpu, "folder": str(folder)}
        config |= {"parent": os.getpid(), "log_level": logging.getLogger("trtjob").getEffectiveLevel()}
        try:
            _run(config, words, on_progress, allowance)
        except DeviceMemoryError:
            raise
        except EngineError as err:
            full = why_no_room(folder, str(err))
            if not full or full in str(err):
                raise
            raise PassingBuildError(f"{err}; {full}") from err
        return Built((folder / "plan").read_bytes(), (folder / "timing").read_bytes())


def _run(config: dict[str, Any], words: IO[bytes], on_progress: BuildProgress, allowance: Allowance) -> None:
    """Run the process of a build to its end. words: takes what it writes to standard error."""
    env = {
        "TMPDIR": config["folder"],  # what it leaves when it is killed goes with the rest
        "CUDA_MODULE_LOADING": "LAZY",  # as CUDA does by itself from 12.2 on; TensorRT 8.6 is older
    }
    with started(__name__, config, allowance=allowance, stderr=words, env=env) as (process, stream):
        try:
            is_built = follow(said(stream, allowance.seconds), on_progress)
        except TimeLimitExceeded:
            raise EngineError(
                f"the build of a plan for '{config['name']}' was ended after {allowance.seconds:g} s: "
                "TRTJOB_PLAN_LIMIT_S gives it more time, and a lower TRTJOB_PLAN_LEVEL needs less"
            ) from None
        if not is_built:
            raise _end_error(config["name"], process.wait(), Path(config["folder"]) / "stderr")


def follow(news: Iterable[dict[str, Any] | None], on_progress: BuildProgress) -> bool:
    """Pass on what a build says. Returns True where it is done, False where it ended without a word."""
    started = time.monotonic()
    step: tuple[str, int, int] | None = None
    for told in (each or {} for each in news):
        if "built" in told:
            return True
        if "error" in told:
            raise _error(told["kind"], told["error"])
        if "text" in told:
            logging.getLogger(told["logger"]).log(told["level"], "%s", told["text"])
            continue
        if "phase" in told:
            step = told["phase"], told["done"], told["total"]
        if not on_progress(*(step or ("building", int(time.monotonic() - started), 0))):
            raise BuildCancelled
    return False


def _error(kind: str, text: str) -> EngineError:
    """Return what a build has said of its failure."""
    if kind == DeviceMemoryError.__name__:
        return DeviceMemoryError(text)
    return EngineError(text) if kind in _LASTING and not _OF_MEMORY.search(text) else PassingBuildError(text)


def _end_error(name: str, code: int, stderr: Path) -> EngineError:
    """Return the failure of a build that ended without a word on standard output."""
    words = " ".join(stderr.read_text("utf-8", "replace").split())[-_LAST_WORDS:]
    said = f"; its last words: {words}" if words else ""
    full = why_no_room(stderr.parent, words)
    lasts = -code in _FAULTS and not full and not _OF_MEMORY.search(words)
    return (EngineError if lasts else PassingBuildError)(
        f"the build of a plan for '{name}' {how_it_ended(code)}{said}{f'; {full}' if full else _MORE_MEMORY}"
    )


# -- in the process of the build ---------------------------------------------------------------------------------------


def main() -> int:
    """Build what standard input asks for. Returns the exit code."""
    with child_config() as (config, say):
        _end_with(config["parent"])
        _log_to(say, config["log_level"])
        try:
            _build(config, say)
        except TrtjobError as err:
            say({"error": str(err).replace(Path(config["model"]).name, config["name"]), "kind": type(err).__name__})
        except OSError as err:
            say({"error": f"the build of a plan for '{config['name']}' failed: {err}", "kind": OSError.__name__})
        else:
            say({"built": True})
    return 0


def _end_with(parent: int) -> None:
    """End this process with the one that waits for it, also while TensorRT lets no thread of Python run."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has gone before that
        os._exit(GONE)
    end_when_nobody_waits()


def _log_to(say: Say, level: int) -> None:
    """Have all that is logged said to who waits, who logs it beside what it is about."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say({"logger": record.name, "level": record.levelno, "text": record.getMessage()})

    logging.basicConfig(handlers=[Handler()], level=max(level, logging.WARNING))
    logging.getLogger("trtjob").setLevel(level)


def _build(config: dict[str, Any], say: Say) -> None:
    model, folder, gpu = Path(config["model"]), Path(config["folder"]), config["gpu"]
    options = BuildOptions(**{**config["options"], "profile": BatchProfile(**config["options"]["profile"])})

    def tell(phase: str, done: int, total: int) -> bool:
        say({"phase": phase, "done": done, "total": total})
        return True

    # The check is inside, too: what TensorRT holds after a build belongs to the context, which is gone after the block.
    with nullcontext() if gpu is None else _current(gpu):
        built = build_plan(model, options, timing_cache=(folder / "timing").read_bytes(), on_progress=tell)
        if gpu is not None:
            tell("checking", 0, 1)
            _check(built.plan, model, options.profile, gpu)
    (folder / "plan").write_bytes(built.plan)
    (folder / "timing").write_bytes(built.timing_cache)


def _current(gpu: int) -> Any:
    """Return a block in which a GPU is the one that TensorRT builds for: it takes whose context is current."""
    from contextlib import closing

    from trtjob.engines.cuda.device import Device

    return closing(Device(gpu))


def _check(plan: bytes, model: Path, batches: BatchProfile, gpu: int) -> None:
    from trtjob.engines.cuda.device import gpu_of
    from trtjob.engines.spec import load_spec
    from trtjob.engines.tensorrt.flavour import flavour
    from trtjob.engines.tensorrt.runtime import TensorRtEngine
    from trtjob.engines.tensorrt.selfcheck import check_plan

    spec = load_spec(model)
    with TensorRtEngine(plan, spec, gpu_of(gpu), batches.largest) as engine:
        check_plan(engine, model, batch=batches.largest, title=flavour().title)


if __name__ == "__main__":
    sys.exit(main())
