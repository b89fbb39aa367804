"""A container's quota of CPU time counts wherever threads and processes are counted."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing_service
from terminal import ROOT

from trtjob.cpus import by_neighbourhood, cpus_of, near_cpus, quota_cpus, usable_cpus

CORES = len(os.sched_getaffinity(0))


def write(tmp_path: Path, *, group: str, mount: str, files: dict[str, str]) -> Path:
    """Write what /proc/self and the control groups would say. Returns the first."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(group)
    (proc / "mountinfo").write_text(mount.replace("AT", str(tmp_path / "cg")))
    for name, text in files.items():
        path = tmp_path / "cg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc


V2 = "31 23 0:28 / AT rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "31 23 0:28 / AT rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.mark.parametrize(
    ("group", "mount", "files", "cpus"),
    [
        pytest.param("0::/\n", V2, {"cpu.max": "150000 100000\n"}, 1.5, id="v2"),
        pytest.param("0::/\n", V2, {"cpu.max": "max 100000\n"}, None, id="v2-no-limit"),
        pytest.param("0::/a/b\n", V2, {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5, id="v2-above"),
        pytest.param("0::/../x\n", V2, {"cpu.max": "200000 100000\n"}, 2.0, id="v2-outside-of-the-namespace"),
        pytest.param(
            "4:cpu,cpuacct:/k\n0::/\n",
            V1,
            {"k/cpu.cfs_quota_us": "300000", "k/cpu.cfs_period_us": "100000"},
            3.0,
            id="v1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/f00\n",
            V1.replace(" / ", " /docker/f00 "),
            {"cpu.cfs_quota_us": "25000", "cpu.cfs_period_us": "100000"},
            0.25,
            id="v1-seen-from-a-container",
        ),
        pytest.param(
            "4:cpu:/\n", V1, {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None, id="v1-no-limit"
        ),
        pytest.param("3:cpuset:/\n", V1, {"cpu.cfs_quota_us": "1", "cpu.cfs_period_us": "1"}, None, id="v1-other"),
        pytest.param("0::/\n", V2, {"cpu.max": "rubbish"}, None, id="rubbish"),
        pytest.param("rubbish\n", V2, {}, None, id="no-groups"),
    ],
)
def test_the_least_quota_of_a_groups_line_counts(
    tmp_path: Path, group: str, mount: str, files: dict[str, str], cpus: float | None
) -> None:
    assert quota_cpus(write(tmp_path, group=group, mount=mount, files=files)) == cpus


def test_where_nobody_says_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_cpus(tmp_path) is None
    assert usable_cpus(tmp_path) == CORES


@pytest.mark.parametrize(("quota", "cpus"), [(1, 1), (100_000, 1), (100_001, min(2, CORES)), (10**9, CORES)])
def test_a_part_of_a_cpu_is_one_and_never_more_than_the_affinity(tmp_path: Path, quota: int, cpus: int) -> None:
    proc = write(tmp_path, group="0::/\n", mount=V2, files={"cpu.max": f"{quota} 100000"})
    assert usable_cpus(proc) == cpus


@pytest.fixture
def half_a_cpu() -> Iterator[Path]:
    """A real control group of half a CPU, of either version, in which a process can be put."""
    name = f"trtjob-test-{os.getpid()}"
    for root, file, text in (
        (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "50000"),
        (Path("/sys/fs/cgroup"), "cpu.max", "50000 100000"),
    ):
        try:
            (root / name).mkdir()
        except OSError:
            continue
        try:
            (root / name / file).write_text(text)
            yield root / name
        except OSError:
            continue
        else:
            return
        finally:
            (root / name).rmdir()
    missing_service("no control group can be made here: that takes root")


@pytest.mark.slow
def test_a_real_quota_counts_for_threads_and_image_processes(half_a_cpu: Path) -> None:
    code = (
        "from trtjob.config import Settings\n"
        "from trtjob.cpus import usable_cpus\n"
        "from trtjob.worker.engine_choice import threads_of\n"
        "from trtjob.worker.pipeline.limits import processes_of\n"
        "settings = Settings()\n"
        "print(usable_cpus(), threads_of(settings), processes_of(settings), threads_of(Settings(threads=7)))\n"
    )
    enter = f"echo $$ > '{half_a_cpu}/cgroup.procs' && exec \"$@\""
    command = ["sh", "-c", enter, "sh", sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout.split() == ["1", "1", "1", "7"]


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("\n", set()), ("0,2-2", {0, 2})],
)
def test_the_kernels_lists_of_cpus_are_read(text: str, cpus: set[int]) -> None:
    assert cpus_of(text) == cpus


def test_a_devices_own_node_is_found_whatever_the_case_of_its_bus_id(tmp_path: Path) -> None:
    (tmp_path / "0000:3b:00.0").mkdir()
    (tmp_path / "0000:3b:00.0" / "local_cpulist").write_text("16-31\n")
    assert near_cpus("0000:3B:00.0", tmp_path) == set(range(16, 32))


@pytest.mark.parametrize("listed", ["rubbish", None])
def test_of_a_device_that_the_kernel_says_nothing_of_no_cpu_is_near(tmp_path: Path, listed: str | None) -> None:
    if listed is not None:
        (tmp_path / "0000:3b:00.0").mkdir()
        (tmp_path / "0000:3b:00.0" / "local_cpulist").write_text(listed)
    assert near_cpus("0000:3B:00.0", tmp_path) == set()
    assert near_cpus("", tmp_path) == set()


def machine(tmp_path: Path, *, nodes: list[str], siblings: dict[int, str]) -> Path:
    """Write what /sys/devices/system would say."""
    for number, cpus in enumerate(nodes):
        (tmp_path / f"node/node{number}").mkdir(parents=True)
        (tmp_path / f"node/node{number}/cpulist").write_text(cpus)
    for cpu, text in siblings.items():
        folder = tmp_path / f"cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("nodes", "siblings", "order"),
    [
        pytest.param([], {}, [0, 1, 2, 3, 4, 5, 6, 7], id="nobody-says"),
        pytest.param(["0,2,4,6", "1,3,5,7"], {}, [0, 2, 4, 6, 1, 3, 5, 7], id="nodes-in-turn"),
        pytest.param(["0-7"], {n: f"{n % 4},{n % 4 + 4}" for n in range(8)}, [0, 4, 1, 5, 2, 6, 3, 7], id="siblings"),
        pytest.param(
            ["0-1,4-5", "2-3,6-7"],
            {n: f"{n % 4},{n % 4 + 4}" for n in range(8)},
            [0, 4, 1, 5, 2, 6, 3, 7],
            id="both",
        ),
    ],
)
def test_neighbours_stand_side_by_side(
    tmp_path: Path, nodes: list[str], siblings: dict[int, str], order: list[int]
) -> None:
    assert by_neighbourhood(set(range(8)), machine(tmp_path, nodes=nodes, siblings=siblings)) == order
