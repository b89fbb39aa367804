"""Images that end the process which decodes them, or keep it waiting: that is put into a library, not into trtjob."""

import os
from pathlib import Path

_MARK = b"POISON"

_CRASHING_DECODER = """
import os, signal
import cv2
_imdecode = cv2.imdecode

def imdecode(data, flags):
    if bytes(data[-6:]) == b"POISON":
        os.kill(os.getpid(), signal.{signal})
        signal.pause()
    return _imdecode(data, flags)

cv2.imdecode = imdecode
"""


_HANGING_FILE = """
import os, time
_open = os.open

def open_slowly(path, *args, **options):
    while os.fspath(path).endswith({name!r}) and os.path.exists({while_there!r}):
        time.sleep(0.05)
    return _open(path, *args, **options)

os.open = open_slowly
"""


def hanging_file(name: str, while_there: Path) -> str:
    """Return code with which opening a file of this name does not return while another file is there."""
    return _HANGING_FILE.format(name=name, while_there=str(while_there))


_SLOW_FILES = """
import os, time
_open = os.open

def open_slowly(path, *args, **options):
    if os.fsencode(path).endswith({ending!r}):
        time.sleep({each_s})
    return _open(path, *args, **options)

os.open = open_slowly
"""


def slow_files(ending: str, each_s: float) -> str:
    """Return code with which opening a file of this ending takes so long: few images take a while, but no core."""
    return _SLOW_FILES.format(ending=os.fsencode(ending), each_s=each_s)


def crashing_decoder(signal: str) -> str:
    """Return code that sends a process this signal when it decodes a poison image."""
    return _CRASHING_DECODER.format(signal=signal)


def make_poison(image: Path) -> None:
    image.write_bytes(image.read_bytes() + _MARK)


def put_into_every_process(folder: Path, code: str) -> dict[str, str]:
    """Return the environment with which a Python process runs this code first, as its `sitecustomize`."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}
