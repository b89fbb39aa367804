"""A fork in place of a new Python is to others what the new Python would be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import ctypes, os, sys

class Heap(ctypes.Structure):  # mallinfo2(3)
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks".split() + ["more"] * 4]

def main():
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Heap
    before = libc.mallinfo2().hblks
    libc.malloc(ctypes.c_size_t(16 << 20))
    sys.stderr.write(f"{libc.mallinfo2().hblks - before}\\n")
    sys.stderr.write(open("/proc/self/cmdline").read().strip("\\0") + "\\n")
    sys.stderr.write(f"{sorted(map(int, os.listdir('/proc/self/fd')))[:-1]} {os.getpgid(0) == os.getpid()}\\n")
    print(sys.stdin.read(), end="", flush=True)
    END
"""
PARENT = """
import os, sys
sys.path.append(os.environ["PLACE"])
import a_child
from trtjob.child_environment import KEEPS_MEMORY
from trtjob.worker.pipeline.own_fork import OwnFork
given, to_it = os.pipe()
child = OwnFork("a_child", given, KEEPS_MEMORY)
assert child.poll() is None
os.write(to_it, b"hello\\n")
os.close(to_it)
print(child.wait(10), child.poll())
child.kill()
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        pytest.param("return 7", "7 7", "hello", id="it returns"),
        pytest.param("os.kill(os.getpid(), 9)", "-9 -9", "hello", id="it is killed"),
        pytest.param("raise KeyError('a key')", "1 1", "KeyError: 'a key'", id="it raises"),
    ],
)
def test_it_begins_and_ends_as_a_process_of_its_own(end: str, code: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a_child.py").write_text(CHILD.replace("END", end))
    environment = {**os.environ, "PLACE": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", PARENT], env=environment, capture_output=True, text=True, timeout=60)
    maps, name, files, *words = run.stderr.splitlines()
    assert (run.returncode, run.stdout) == (0, code + "\n")
    assert maps == "0", "16 MiB are the allocator's, which keeps them for the next image"
    assert name == "a_child"
    assert files == "[0, 1, 2] True"
    assert words[0] == "hello", "its output is for standard error"
    assert words[-1] == said
