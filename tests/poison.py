"""Images that end the process which decodes them: the fault is put into a library, not into trtjob."""

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
