"""Builds in a process of their own, with TensorRT-RTX, which needs no GPU for it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import IO

import pytest
from engines import tiny
from terminal import children

from trtjob.child_process import Allowance, said
from trtjob.engines.tensorrt import build_process
from trtjob.engines.tensorrt.build_folder import NO_ROOM, SETTLED_S, build_folder
from trtjob.engines.tensorrt.build_process import build_in_child
from trtjob.engines.tensorrt.builder import BatchProfile, BuildCancelled, BuildOptions
from trtjob.engines.tensorrt.plan_failures import PassingBuildError
from trtjob.errors import EngineError

pytestmark = pytest.mark.extra


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")


@pytest.fixture
def before() -> list[int]:
    return children(os.getpid())


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have temporary files lie where a test can look for them."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


class Notes:
    """Goes on, and notes each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def __call__(self, phase: str, done: int, total: int) -> bool:
        self.steps.append((phase, done, total))
        return True


def never_asked(*_: object) -> bool:
    return True


def started(before: list[int]) -> int:
    (pid,) = set(children(os.getpid())) - set(before)
    return pid


def ending(kill: Callable[[int], None], before: list[int]) -> Callable[[str, int, int], bool]:
    def on_progress(*_: object) -> bool:
        kill(started(before))
        return True

    return on_progress


def test_a_plan_comes_out_and_nothing_is_left(model: Path, before: list[int], tmp_path: Path) -> None:
    built = build_in_child(model, BuildOptions(BatchProfile(1, 2, 4)), gpu=None)
    assert built.plan.startswith(b"vtrt")
    assert built.timing_cache == b""
    assert children(os.getpid()) == before
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_its_steps_are_told(model: Path) -> None:
    notes = Notes()
    build_in_child(model, BuildOptions(), gpu=None, on_progress=notes)
    told = [step for step in notes.steps if step[0] != "building"]
    assert told
    assert all(phase and 1 <= done <= total for phase, done, total in told)


def test_a_build_that_is_stopped_leaves_no_process(model: Path, before: list[int], tmp_path: Path) -> None:
    with pytest.raises(BuildCancelled):
        build_in_child(model, BuildOptions(), gpu=None, on_progress=lambda *_: False)
    assert children(os.getpid()) == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_callback_that_fails_ends_the_build(model: Path, before: list[int]) -> None:
    def fail(*_: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_in_child(model, BuildOptions(), gpu=None, on_progress=fail)
    assert children(os.getpid()) == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV], ids=lambda how: how.name)
def test_a_build_that_is_killed_says_by_which_signal(model: Path, before: list[int], how: signal.Signals) -> None:
    with pytest.raises(EngineError, match=rf"plan for 'tiny\.onnx' was ended by {how.name}.*Is there enough memory"):
        build_in_child(model, BuildOptions(), gpu=None, on_progress=ending(lambda pid: os.kill(pid, how), before))
    assert children(os.getpid()) == before


def test_a_build_that_takes_too_long_is_ended_and_fails_for_good(
    model: Path, before: list[int], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"^the build of a plan for 'tiny.onnx' was ended after 0.2 s: ") as caught:
        build_in_child(model, BuildOptions(BatchProfile(1, 1, 1)), gpu=None, allowance=Allowance(seconds=0.2))
    assert not isinstance(caught.value, PassingBuildError)
    assert children(os.getpid()) == before
    assert not any((tmp_path / "tmp").iterdir())


def test_a_build_with_too_little_memory_may_not_come_again(model: Path, before: list[int]) -> None:
    with pytest.raises(PassingBuildError, match="Is there enough memory"):
        build_in_child(model, BuildOptions(BatchProfile(1, 1, 1)), gpu=None, allowance=Allowance(memory_bytes=64 << 20))
    assert children(os.getpid()) == before


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    (tmp_path / "garbled.onnx").write_bytes(b"garbage")
    with pytest.raises(EngineError, match=r"^TensorRT-RTX [0-9.]+ cannot read 'garbled\.onnx': .*parse"):
        build_in_child(tmp_path / "garbled.onnx", BuildOptions(), gpu=None)


def test_a_gpu_that_is_not_there_is_an_error(model: Path) -> None:
    with pytest.raises(EngineError):
        build_in_child(model, BuildOptions(), gpu=99)


def test_the_last_words_are_told(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that cannot even begin says so on standard error, as a library does that runs out of memory."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "tensorrt.py").write_text("raise SystemExit('std::bad_alloc: no memory for you')")
    with pytest.raises(EngineError, match=r"ended with exit code 1; its last words: .*no memory for you\. Is there"):
        build_in_child(model, BuildOptions(), gpu=None)


def test_what_it_logs_is_logged_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "garbled.onnx").write_bytes(b"garbage")
    with pytest.raises(EngineError):
        build_in_child(tmp_path / "garbled.onnx", BuildOptions(), gpu=None)
    assert any(record.name == "trtjob.engines.tensorrt.messages" for record in caplog.records)


def test_messages_call_the_model_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "ab12.onnx").write_bytes(b"garbage")
    with pytest.raises(EngineError, match=r"cannot read 'yolov3': ") as caught:
        build_in_child(tmp_path / "ab12.onnx", BuildOptions(), gpu=None, name="yolov3")
    assert "ab12" not in str(caught.value)


# -- whether it may go better the next time ----------------------------------------------------------------------------


def failure(model: Path, on_progress: Callable[[str, int, int], bool] = never_asked) -> EngineError:
    with pytest.raises(EngineError) as caught:
        build_in_child(model, BuildOptions(), gpu=None, on_progress=on_progress)
    return caught.value


def test_a_graph_that_cannot_be_built_fails_for_good(tmp_path: Path) -> None:
    (tmp_path / "garbled.onnx").write_bytes(b"garbage")
    assert not isinstance(failure(tmp_path / "garbled.onnx"), PassingBuildError)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "passes"),
    [
        pytest.param(signal.SIGKILL, True, id="as the kernel does that is out of memory"),
        pytest.param(signal.SIGTERM, True, id="as who ends all of a service's processes"),
        pytest.param(signal.SIGSEGV, False, id="as a fault in a library does"),
    ],
)
def test_an_end_from_outside_may_not_come_again(
    model: Path, before: list[int], how: signal.Signals, passes: bool
) -> None:
    error = failure(model, ending(lambda pid: os.kill(pid, how), before))
    assert isinstance(error, PassingBuildError) is passes


def test_what_speaks_of_memory_may_not_come_again(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "tensorrt.py").write_text(
        "import os\nos.write(2, b\"terminate called after throwing 'std::bad_alloc'\")\nos.abort()"
    )
    assert isinstance(failure(model), PassingBuildError)


# -- its folder --------------------------------------------------------------------------------------------------------


REMEDY = "make room there, or set TMPDIR to another folder"


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 64 KiB for temporary files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_when_the_plan_comes_is_named(model: Path, small_disk: Path) -> None:
    with suppress(OSError), (small_disk / "other").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):  # empty files and folders find room after that, a plan does not
            pass
    error = failure(model)
    full = f"the temporary folder '{small_disk}' is full: {REMEDY}"
    assert isinstance(error, PassingBuildError)
    assert str(error).startswith(f"the build of a plan for 'tiny.onnx' failed: [Errno 28] {NO_ROOM}; {full}")
    assert "enough memory" not in str(error)
    assert [path.name for path in small_disk.iterdir()] == ["other"]


def test_a_build_that_a_full_disk_ends_without_a_word_names_the_disk(
    model: Path, small_disk: Path, before: list[int]
) -> None:
    (small_disk / "other").write_bytes(bytes(64 << 10))
    error = failure(model, ending(lambda pid: os.kill(pid, signal.SIGSEGV), before))
    assert isinstance(error, PassingBuildError)
    assert str(error).endswith(f"SIGSEGV; the temporary folder '{small_disk}' is full: {REMEDY}")


def test_a_disk_that_is_full_before_the_build_is_named(model: Path, small_disk: Path) -> None:
    with pytest.raises(
        PassingBuildError, match=r"no temporary folder for the build of a plan for 'tiny\.onnx': .*space"
    ):
        build_in_child(model, BuildOptions(), gpu=None, timing_cache=bytes(100_000))


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed_at_the_next_build(model: Path, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model)],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == b"begun\n"
        (left,) = (tmp_path / "tmp").iterdir()
        age(left)
        with build_folder() as mine:
            assert left.exists(), "its process lives"
            parent.kill()
            parent.wait(10)
            age(left)
            age(mine)
            build_in_child(model, BuildOptions(BatchProfile(1, 1, 1)), gpu=None)
            assert list((tmp_path / "tmp").iterdir()) == [mine]


def age(folder: Path) -> None:
    then = time.time() - SETTLED_S - 1
    os.utime(folder, (then, then))


def test_a_folder_that_was_just_made_is_let_be(tmp_path: Path) -> None:
    young = tmp_path / "tmp" / "trtjob-build-young"
    young.mkdir()
    with build_folder():
        assert young.exists()


# -- its parent --------------------------------------------------------------------------------------------------------

PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may have it ignored
from pathlib import Path
from trtjob.engines.tensorrt.build_process import build_in_child
from trtjob.engines.tensorrt.builder import BuildOptions
def stay(*_):
    print("begun", flush=True)
    import time
    time.sleep(60)
build_in_child(Path(sys.argv[1]), BuildOptions(), gpu=None, on_progress=stay)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_a_build_ends_with_who_waits_for_it(model: Path, how: signal.Signals, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == b"begun\n"
        (build,) = children(parent.pid)
        parent.send_signal(how)
        parent.wait(10)
    deadline = time.monotonic() + 10
    while is_running(build):
        assert time.monotonic() < deadline, "the build goes on without its parent"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = re.search(r"^State:\s+(\w)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except FileNotFoundError:
        return False
    return state is None or state[1] != "Z"


# -- what it says ------------------------------------------------------------------------------------------------------


def follow(speak: Callable[[IO[bytes]], None], on_progress: Callable[[str, int, int], bool]) -> bool:
    """Have a thread say lines into a pipe, and follow them."""
    reading, writing = os.pipe()

    def say() -> None:
        with os.fdopen(writing, "wb", buffering=0) as channel:
            speak(channel)

    speaker = threading.Thread(target=say)
    speaker.start()
    with os.fdopen(reading, "rb") as stream:
        try:
            return build_process.follow(said(stream), on_progress)
        finally:
            speaker.join()


@pytest.mark.slow
def test_where_nothing_tells_of_steps_the_seconds_are_told() -> None:
    """As with TensorRT 8.6, which is silent for a minute."""
    notes = Notes()

    def stay_silent(channel: IO[bytes]) -> None:
        time.sleep(2.5)
        channel.write(b'{"built": true}\n')

    assert follow(stay_silent, notes)
    assert notes.steps[:2] == [("building", 1, 0), ("building", 2, 0)]


@pytest.mark.slow
def test_the_last_step_is_told_again_while_nothing_happens() -> None:
    notes = Notes()

    def say_one(channel: IO[bytes]) -> None:
        channel.write(json.dumps({"phase": "kernels", "done": 3, "total": 9}).encode() + b"\n")
        time.sleep(1.5)
        channel.write(b'{"built": true}\n')

    assert follow(say_one, notes)
    assert notes.steps[:2] == [("kernels", 3, 9)] * 2


def test_an_end_without_a_word_is_no_plan() -> None:
    assert not follow(lambda _channel: None, never_asked)
