"""A container's limit of memory counts where it is less than the machine has."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from trtjob.memory import bounded_allocations, usable_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V2 = "31 23 0:28 / AT rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "31 23 0:28 / AT rw,nosuid shared:9 - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("group", "mount", "files", "expected"),
    [
        pytest.param("0::/\n", V2, {"memory.max": "1048576\n"}, 1 << 20, id="v2"),
        pytest.param("0::/\n", V2, {"memory.max": "max\n"}, MACHINE, id="v2-no-limit"),
        pytest.param("0::/a/b\n", V2, {"a/memory.max": "4096", "a/b/memory.max": "8192"}, 4096, id="v2-above"),
        pytest.param("9:memory:/\n", V1, {"memory.limit_in_bytes": "1048576\n"}, 1 << 20, id="v1"),
        pytest.param("9:memory:/\n", V1, {"memory.limit_in_bytes": str(1 << 62)}, MACHINE, id="v1-no-limit"),
        pytest.param("9:cpu:/\n", V1, {"memory.limit_in_bytes": "4096"}, MACHINE, id="v1-of-another-group"),
    ],
)
def test_the_least_of_all_limits_holds(
    tmp_path: Path, group: str, mount: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "cgroup").write_text(group)
    (tmp_path / "mountinfo").write_text(mount.replace("AT", str(tmp_path / "cg")))
    for name, text in files.items():
        path = tmp_path / "cg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_bytes(tmp_path) == expected


def test_without_groups_the_machine_has_what_it_has(tmp_path: Path) -> None:
    assert usable_bytes(tmp_path) == MACHINE


def test_allocations_are_bounded_in_the_block_alone() -> None:
    large = 2 << 30  # more than other tests can have left free in this process, which it may take again
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded_allocations(64 << 20):
        np.ones(32 << 20, np.uint8)
        with pytest.raises(MemoryError):
            np.empty(large, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    np.empty(large, np.uint8)
