"""Import TensorFlow and what belongs to it, when it is first needed and without its noise."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from trtjob.errors import MissingDependencyError
from trtjob.garbage import unsought
from trtjob.library_output import as_remark, library_output

log = logging.getLogger(__name__)

_SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    # Its C++ part reads this whenever it logs: it writes to stderr itself, past Python's logging.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # oneDNN's allocator keeps what it once had: of VGG16's 528 MiB it makes 1000.
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
_LOGGERS = ("tensorflow", "absl", "tf2onnx")


def tensorflow() -> Any:
    """Return the package tensorflow, on the CPU. Raises MissingDependencyError."""
    package = _imported("tensorflow")
    try:
        # A reference needs no speed, and TensorFlow would take all memory of a GPU for itself.
        package.config.set_visible_devices([], "GPU")
    except RuntimeError:  # the program around us has used it on a GPU already, and it stays there
        logging.getLogger(__name__).debug("TensorFlow is in use already, and keeps its devices")
    return package


def keras() -> Any:
    """Return the package keras, on TensorFlow. Raises MissingDependencyError."""
    tensorflow()
    return _imported("keras")


def tf2onnx() -> Any:
    """Return the package tf2onnx. Raises MissingDependencyError."""
    tensorflow()
    return _imported("tf2onnx")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep to ourselves what these packages warn of: it is meant for those who call them, not for those who convert.

    What their C++ parts print is logged, where that is in the main thread: another one's standard error is not its own,
    and may be what a child is started with meanwhile.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            with ExitStack() as stack:
                if threading.current_thread() is threading.main_thread():
                    said = stack.enter_context(library_output())
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if said:
                log.info("TensorFlow's remark", extra={"remark": as_remark(said)})


def _imported(name: str) -> Any:
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    try:
        with quiet(), unsought():
            package = import_module(name)
    except ModuleNotFoundError as err:
        raise MissingDependencyError(err.name or name, extra="keras") from err
    for logger in map(logging.getLogger, _LOGGERS):  # their own handlers would write past ours
        logger.handlers.clear()
        logger.propagate = True
    return package
