import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from trtjob.engines.tensorrt import plan_failures
from trtjob.engines.tensorrt.builder import BuildCancelled
from trtjob.engines.tensorrt.plan_failures import PassingBuildError
from trtjob.engines.tensorrt.plan_lock import WAITING
from trtjob.engines.tensorrt.plans import Gpu, PlanCache, PlanKey
from trtjob.errors import DeviceMemoryError, EngineError, StorageError

KEY = PlanKey("ab" * 32, "1:8:32", 3, "tensorrt", "11.4.0", Gpu("NVIDIA L4", (8, 9)))
OTHERS = [
    pytest.param(replace(KEY, model="cd" * 32), id="model"),
    pytest.param(replace(KEY, batches="1:1:1"), id="batches"),
    pytest.param(replace(KEY, optimization_level=5), id="optimization level"),
    pytest.param(replace(KEY, flavour="tensorrt_rtx"), id="flavour"),
    pytest.param(replace(KEY, version="11.5.0"), id="version"),
    pytest.param(replace(KEY, gpu=Gpu("NVIDIA L40", (8, 9))), id="GPU"),
    pytest.param(replace(KEY, gpu=Gpu("NVIDIA L4", (9, 0))), id="compute capability"),
    pytest.param(replace(KEY, tf32=False), id="TF32"),
    pytest.param(replace(KEY, workspace_mib=64), id="workspace"),
    pytest.param(replace(KEY, recipe=KEY.recipe - 1), id="an earlier trtjob"),
]


@pytest.fixture
def plans(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


@contextmanager
def alone(_name: str) -> Iterator[None]:
    yield


def keep(plans: PlanCache, key: PlanKey, plan: bytes = b"plan", learnt: bytes = b"learnt") -> bytes:
    return plans.get_or_build(key, lambda _: (plan, learnt), alone)


def never(_learnt: bytes) -> tuple[bytes, bytes]:
    raise AssertionError("it is there already")


def test_a_plan_is_built_once(plans: PlanCache) -> None:
    assert keep(plans, KEY) == b"plan"
    assert plans.get_or_build(KEY, never, alone) == b"plan"
    (sidecar,) = plans.list()
    assert (sidecar.gpu_name, sidecar.size_bytes, sidecar.model) == ("NVIDIA L4", 4, KEY.model)


@pytest.mark.parametrize("other", OTHERS)
def test_a_plan_belongs_to_all_of_its_key(plans: PlanCache, other: PlanKey) -> None:
    keep(plans, KEY)
    assert plans.get(other) is None


@pytest.mark.parametrize("other", OTHERS)
def test_a_plan_moved_to_another_place_is_not_taken(plans: PlanCache, other: PlanKey) -> None:
    keep(plans, KEY)
    for suffix in (".plan", ".json"):
        (plans.folder / f"{KEY.digest}{suffix}").rename(plans.folder / f"{other.digest}{suffix}")
    assert plans.get(other) is None


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        pytest.param(".plan", b"pla", id="cut off"),
        pytest.param(".plan", b"evil", id="another plan"),
        pytest.param(".json", b"{", id="sidecar garbled"),
        pytest.param(".json", b'{"model": 1}', id="sidecar of another version"),
        pytest.param(".json", None, id="no sidecar"),
        pytest.param(".plan", None, id="no plan"),
    ],
)
def test_a_damaged_plan_is_built_again(plans: PlanCache, suffix: str, content: bytes | None) -> None:
    keep(plans, KEY)
    file = plans.folder / f"{KEY.digest}{suffix}"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert plans.get(KEY) is None
    assert keep(plans, KEY, b"again") == b"again"
    assert plans.get(KEY) == b"again"


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        pytest.param(".plan", b"evil", id="another plan"),
        pytest.param(".json", b"", id="sidecar empty"),
        pytest.param(".json", b'{"model": 1}', id="sidecar of another version"),
    ],
)
def test_a_damaged_plan_is_warned_of_once_and_in_one_line(
    plans: PlanCache, suffix: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    keep(plans, KEY)
    (plans.folder / f"{KEY.digest}{suffix}").write_bytes(content)
    keep(plans, KEY, b"again")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert vars(record)["plan"] == str(plans.folder / f"{KEY.digest}.plan")
    assert "\n" not in vars(record)["reason"]
    assert "pydantic" not in vars(record)["reason"]


def test_the_next_build_gets_what_was_learnt_of_the_same_gpu(plans: PlanCache) -> None:
    keep(plans, KEY, learnt=b"kernels")
    seen: list[bytes] = []

    def build(learnt: bytes) -> tuple[bytes, bytes]:
        seen.append(learnt)
        return b"plan", b""

    for other in (replace(KEY, model="cd" * 32), replace(KEY, gpu=Gpu("NVIDIA A10", (8, 6)))):
        plans.get_or_build(other, build, alone)
    assert seen == [b"kernels", b""]


def test_processes_that_want_the_same_plan_build_it_once(plans: PlanCache) -> None:
    lock, built, both = threading.Lock(), [], threading.Barrier(2)

    @contextmanager
    def locked(_name: str) -> Iterator[None]:
        both.wait(10)  # both have looked, and found nothing
        with lock:
            yield

    def build(_learnt: bytes) -> tuple[bytes, bytes]:
        built.append(1)
        return b"plan", b""

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(plans.get_or_build, KEY, build, locked) for _ in range(2)]
        assert [answer.result(10) for answer in answers] == [b"plan", b"plan"]
    assert len(built) == 1


def test_a_build_that_fails_keeps_nothing(plans: PlanCache) -> None:
    def fail(_learnt: bytes) -> tuple[bytes, bytes]:
        raise EngineError("out of workspace")

    with pytest.raises(EngineError, match="out of workspace"):
        plans.get_or_build(KEY, fail, alone)
    assert plans.get(KEY) is None


def test_the_longest_unused_plans_go_first(tmp_path: Path) -> None:
    plans = PlanCache(tmp_path, max_bytes=8)
    keys = [replace(KEY, model=f"{number:064x}") for number in range(3)]
    for age, key in zip((300, 200), keys, strict=False):
        keep(plans, key)
        then = (tmp_path / f"{key.digest}.plan").stat().st_mtime - age
        os.utime(tmp_path / f"{key.digest}.plan", (then, then))
    assert plans.get(keys[0]) == b"plan"  # used just now
    keep(plans, keys[2])
    assert [plans.get(key) for key in keys] == [b"plan", None, b"plan"]


def test_a_plan_larger_than_the_limit_is_kept_alone(tmp_path: Path) -> None:
    plans = PlanCache(tmp_path, max_bytes=2)
    keep(plans, KEY)
    assert plans.get(KEY) == b"plan"


def test_a_plan_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file where the folder is wanted")
    assert keep(PlanCache(tmp_path / "plans"), KEY) == b"plan"


@pytest.mark.parametrize("place", ["plans", f"plans/{KEY.digest}.plan/x", f"plans/{KEY.digest}.json/x"])
def test_a_plan_that_is_built_for_later_must_be_kept(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("in the way")
    with pytest.raises(StorageError, match=f"the plan is built, but cannot be kept in {tmp_path / 'plans'}: "):
        keep(PlanCache(tmp_path / "plans", is_ahead=True), KEY)
    assert keep(PlanCache(tmp_path / "plans"), KEY) == b"plan", "workers use what they build"


def test_what_was_learnt_is_no_condition_for_keeping_a_plan(plans: PlanCache) -> None:
    plans.folder.mkdir()
    (plans.folder / "timing").write_text("in the way")
    keep(plans, KEY)
    assert plans.get(KEY) == b"plan"


def test_a_models_plans_are_removed_with_it(plans: PlanCache) -> None:
    other = replace(KEY, model="cd" * 32)
    keep(plans, KEY)
    keep(plans, other)
    plans.remove_all(KEY.model)
    assert (plans.get(KEY), plans.get(other)) == (None, b"plan")


# -- one builds at a time ----------------------------------------------------------------------------------------------

BUILD = """
import sys, time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from trtjob.engines.tensorrt.plans import Gpu, PlanCache, PlanKey
def build(_learnt):
    print("begun", flush=True)
    sys.stdin.readline()
    return b"theirs", b""
key = PlanKey("ab" * 32, "1:8:32", 3, "tensorrt", "11.4.0", Gpu("NVIDIA L4", (8, 9)))
PlanCache(Path(sys.argv[1])).get_or_build(key, build, lambda _name: nullcontext())
"""


@pytest.fixture
def other(plans: PlanCache) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that is building the plan, and is done when it gets a line."""
    command = [sys.executable, "-c", BUILD, str(plans.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield process
        process.kill()


def test_without_a_server_a_second_process_waits_for_the_first(
    plans: PlanCache, other: "subprocess.Popen[bytes]"
) -> None:
    def on_wait(phase: str, _seconds: int, total: int) -> bool:
        assert (phase, total) == (WAITING, 0)
        if not told:
            other.communicate(b"\n", timeout=10)
        told.append(phase)
        return True

    told: list[str] = []
    assert PlanCache(plans.folder, on_wait=on_wait).get_or_build(KEY, never, alone) == b"theirs"
    assert told


def test_who_waits_can_be_stopped(plans: PlanCache, other: "subprocess.Popen[bytes]") -> None:
    with pytest.raises(BuildCancelled):
        PlanCache(plans.folder, on_wait=lambda *_: False).get_or_build(KEY, never, alone)
    assert other.poll() is None


def test_a_builder_that_is_killed_is_waited_for_no_more(plans: PlanCache, other: "subprocess.Popen[bytes]") -> None:
    def on_wait(*_: object) -> bool:
        other.send_signal(signal.SIGKILL)
        return True

    assert keep(PlanCache(plans.folder, on_wait=on_wait), KEY, b"ours") == b"ours"


def test_another_plan_is_not_waited_for(plans: PlanCache, other: "subprocess.Popen[bytes]") -> None:
    impatient = PlanCache(plans.folder, on_wait=lambda *_: False)
    assert keep(impatient, replace(KEY, model="cd" * 32), b"ours") == b"ours"
    assert other.poll() is None


# -- what cannot be built ----------------------------------------------------------------------------------------------


def failing(error: BaseException) -> Callable[[bytes], tuple[bytes, bytes]]:
    def build(_learnt: bytes) -> tuple[bytes, bytes]:
        raise error

    return build


def fail(plans: PlanCache, error: BaseException) -> None:
    with pytest.raises(type(error)):
        plans.get_or_build(KEY, failing(error), alone)


def test_a_plan_that_cannot_be_built_is_tried_once_and_the_reason_told_to_all(plans: PlanCache) -> None:
    fail(plans, EngineError("node 'Foo': no such layer"))
    with pytest.raises(EngineError, match=r"^node 'Foo': no such layer \(found 0 min ago.*trtjob models build"):
        PlanCache(plans.folder).get_or_build(KEY, never, alone)


@pytest.mark.parametrize("other_key", OTHERS)
def test_what_cannot_be_built_is_tried_with_another_key(plans: PlanCache, other_key: PlanKey) -> None:
    fail(plans, EngineError("no such layer"))
    assert keep(plans, other_key) == b"plan"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(BuildCancelled(), id="stopped"),
        pytest.param(DeviceMemoryError("the GPU's memory is full"), id="memory of the GPU"),
        pytest.param(PassingBuildError("ended by SIGKILL"), id="memory of the machine"),
        pytest.param(KeyboardInterrupt(), id="Ctrl-C"),
    ],
)
def test_what_passes_is_not_remembered(plans: PlanCache, error: BaseException) -> None:
    fail(plans, error)
    assert keep(plans, KEY) == b"plan"


def test_what_may_pass_is_tried_twice(plans: PlanCache) -> None:
    for _ in range(plan_failures.MOST_TRIES):
        fail(plans, PassingBuildError("ended by SIGKILL"))
    with pytest.raises(EngineError, match=r"^ended by SIGKILL \(found 0 min ago.*trtjob models build"):
        plans.get_or_build(KEY, never, alone)
    assert keep(PlanCache(plans.folder, is_ahead=True), KEY) == b"plan"


@pytest.mark.parametrize("age_s", [plan_failures.HOLDS_S + 1, -60], ids=["over an hour old", "of a wrong clock"])
def test_a_failure_holds_for_an_hour(plans: PlanCache, age_s: float) -> None:
    fail(plans, EngineError("no such layer"))
    path = plans.folder / f"{KEY.digest}.failed"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failed_at": time.time() - age_s}))
    assert keep(plans, KEY) == b"plan"


def test_a_failure_that_cannot_be_read_is_none(plans: PlanCache) -> None:
    fail(plans, EngineError("no such layer"))
    (plans.folder / f"{KEY.digest}.failed").write_text("{")
    assert keep(plans, KEY) == b"plan"


def test_who_builds_ahead_tries_again_and_so_ends_the_failure(plans: PlanCache) -> None:
    ahead = PlanCache(plans.folder, is_ahead=True)
    fail(plans, EngineError("no such layer"))
    fail(ahead, EngineError("no such layer either"))
    with pytest.raises(EngineError, match="no such layer either"):
        plans.get_or_build(KEY, never, alone)
    keep(ahead, KEY)
    (plans.folder / f"{KEY.digest}.plan").unlink()
    assert keep(plans, KEY, b"again") == b"again"


def test_a_failure_is_forgotten_with_the_model(plans: PlanCache) -> None:
    fail(plans, EngineError("no such layer"))
    plans.remove_all("cd" * 32)
    with pytest.raises(EngineError):
        plans.get_or_build(KEY, never, alone)
    plans.remove_all(KEY.model)
    assert keep(plans, KEY) == b"plan"


# -- shared with other machines ----------------------------------------------------------------------------------------


class Folder:
    """A place that two machines share; it remembers what was asked of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir()
        self.asked: list[str] = []

    def read(self, name: str) -> bytes | None:
        self.asked.append(name)
        path = self.path / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).write_bytes(data)


class Broken(Folder):
    def read(self, name: str) -> bytes | None:
        raise StorageError("the bucket is gone")

    def write(self, name: str, data: bytes) -> None:
        raise StorageError("the bucket is gone")


@pytest.fixture
def shared(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "shared")


def test_a_plan_that_one_machine_built_serves_the_next(tmp_path: Path, shared: Folder) -> None:
    keep(PlanCache(tmp_path / "one", shared=shared), KEY)
    two = PlanCache(tmp_path / "two", shared=shared)
    assert two.get_or_build(KEY, never, alone) == b"plan"
    assert two.get(KEY) == b"plan", "it is in the machine's own cache by now"
    shared.asked.clear()
    assert two.get_or_build(KEY, never, alone) == b"plan"
    assert shared.asked == []


@pytest.mark.parametrize("other", OTHERS)
def test_a_shared_plan_of_another_key_is_not_even_read(tmp_path: Path, shared: Folder, other: PlanKey) -> None:
    keep(PlanCache(tmp_path / "one", shared=shared), KEY)
    for suffix in (".plan", ".json"):
        (shared.path / f"{KEY.digest}{suffix}").rename(shared.path / f"{other.digest}{suffix}")
    assert keep(PlanCache(tmp_path / "two", shared=shared), other, plan=b"own") == b"own"
    assert shared.asked[-1] == f"{other.digest}.json"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: (folder / f"{KEY.digest}.plan").write_bytes(b"pla"), id="cut off"),
        pytest.param(lambda folder: (folder / f"{KEY.digest}.plan").unlink(), id="gone"),
        pytest.param(lambda folder: (folder / f"{KEY.digest}.json").write_bytes(b"{}"), id="a foreign sidecar"),
        pytest.param(lambda folder: (folder / f"{KEY.digest}.json").write_bytes(b"\xff"), id="no sidecar"),
    ],
)
def test_a_damaged_shared_plan_is_built_again_and_replaced(
    tmp_path: Path, shared: Folder, damage: Callable[[Path], object]
) -> None:
    keep(PlanCache(tmp_path / "one", shared=shared), KEY)
    damage(shared.path)
    assert keep(PlanCache(tmp_path / "two", shared=shared), KEY, plan=b"new") == b"new"
    assert PlanCache(tmp_path / "three", shared=shared).get_or_build(KEY, never, alone) == b"new"


def test_what_another_machine_has_built_is_taken_after_a_failure_here(tmp_path: Path, shared: Folder) -> None:
    two = PlanCache(tmp_path / "two", shared=shared)
    fail(two, EngineError("no such layer"))
    keep(PlanCache(tmp_path / "one", shared=shared), KEY)
    assert two.get_or_build(KEY, never, alone) == b"plan"


def test_a_place_that_fails_costs_only_the_sharing(tmp_path: Path) -> None:
    plans = PlanCache(tmp_path / "one", shared=Broken(tmp_path / "shared"))
    assert keep(plans, KEY) == b"plan"
    assert plans.get(KEY) == b"plan"
