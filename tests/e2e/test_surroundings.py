"""Machines that are not as a developer's: other users on them, none of root's rights, no shared memory, a slow disk."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from poison import put_into_every_process
from terminal import DIGITS, Terminal, job_folder, records, small_digits

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")]

ALICE, BOB = 61001, 61002
# In a namespace of its own: the folder that others may not enter gives way to one that has only Python in it.
_AS_OTHER = """
mount --bind "$2" "$3" && mount -t tmpfs -o mode=755 tmpfs "$1" && mkdir -p "$2" && mount --bind "$3" "$2" || exit 77
user=$4; shift 4; cd / && exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
"""
_WITHOUT_SHM = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && mount -o remount,ro /dev/shm || exit 77; exec "$@"'
_SLOW_DISK = """
import os, time

def slowly(function):
    def late(*args, **options):
        time.sleep(0.03)
        return function(*args, **options)
    return late

for name in ("open", "fsync", "link", "replace", "rename", "mkdir", "stat", "scandir", "unlink"):
    setattr(os, name, slowly(getattr(os, name)))
"""


def closed_above(folder: Path) -> Path:
    """Return the folder on the way to another one that others may not enter; that one itself, where there is none."""
    closed = (each for each in reversed(folder.parents) if not each.stat().st_mode & stat.S_IXOTH)
    return next(closed, folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="trtjob-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def user(place: Path) -> Iterator[Callable[[int], Terminal]]:
    """Sit down at a terminal as another user, who has a home."""
    terminals = []
    python = Path(sys.base_prefix)
    (place / "python").mkdir()

    def sit_down(uid: int) -> Terminal:
        home = place / str(uid)
        home.mkdir()
        os.chown(home, uid, uid)
        script = ("unshare", "-m", "sh", "-c", _AS_OTHER, "sh")
        within = (*script, str(closed_above(python)), str(python), str(place / "python"), str(uid))
        if subprocess.run([*within, sys.executable, "-c", "import trtjob"], capture_output=True).returncode:
            pytest.skip("others may not enter the folders of this installation")
        homes = {name: str(home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        terminals.append(Terminal(home / "trtjob", homes, within))
        return terminals[-1]

    yield sit_down
    for terminal in terminals:
        terminal.end_all()


@pytest.fixture
def digits(place: Path) -> Path:
    """The sample, where everybody can read it, with the small model."""
    folder = small_digits(place).parent
    shutil.copytree(DIGITS / "scenes", folder / "scenes")
    return folder


@pytest.mark.timeout(90)
def test_a_user_without_any_rights_does_a_job_and_another_can_do_nothing_to_it(
    user: Callable[[int], Terminal], digits: Path, place: Path
) -> None:
    alice, bob = user(ALICE), user(BOB)
    output = place / str(ALICE) / "out"
    job = ("run", digits / "scenes", "--model", digits / "digits.weights")
    outcome = alice.run(*job, "-o", output)
    assert outcome.code == 0, outcome.err
    assert len(records(job_folder(output))) == 12
    bob.environment["TRTJOB_HOME"] = str(alice.home)
    outcome = bob.run("status")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"'{alice.home}' belongs to user {ALICE}" in outcome.err
    del bob.environment["TRTJOB_HOME"]
    outcome = bob.run(*job, "-o", output)
    assert outcome.code == 1
    assert "Permission denied. Choose another place" in outcome.err


def test_no_work_is_done_in_a_home_that_another_user_has_laid_out(user: Callable[[int], Terminal], place: Path) -> None:
    alice = user(ALICE)
    trap = place / "trap"
    trap.mkdir()
    trap.chmod(0o777)
    os.chown(trap, BOB, BOB)
    alice.environment["TRTJOB_HOME"] = str(trap)
    outcome = alice.run("models", "list")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: TRTJOB_HOME: '{trap}' belongs to user {BOB}, who could have code run as you")
    assert list(trap.iterdir()) == []


def test_a_job_needs_no_room_in_dev_shm(place: Path, digits: Path, tmp_path: Path) -> None:
    within = ("unshare", "-m", "sh", "-c", _WITHOUT_SHM, "sh")
    if subprocess.run([*within, "true"]).returncode:
        pytest.skip("no namespace of mounts can be made here")
    terminal = Terminal(tmp_path / "home", within=within)
    outcome = terminal.run("run", digits / "scenes", "--model", digits / "digits.weights", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err


@pytest.mark.timeout(90)
def test_a_slow_disk_costs_time_alone(digits: Path, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "home")
    job = ("run", digits / "scenes", "--model", digits / "digits.weights", "--shard-size", "4")
    slow = put_into_every_process(tmp_path / "code", _SLOW_DISK)
    for output, environment in (("fast", {}), ("slow", slow)):
        terminal.environment.update(environment)
        outcome = terminal.run(*job, "-o", tmp_path / output)
        assert outcome.code == 0, outcome.err
    fast, slow_results = (job_folder(tmp_path / name) / "results.jsonl" for name in ("fast", "slow"))
    assert fast.read_bytes() == slow_results.read_bytes()


def test_a_job_needs_no_standard_files_and_no_locale(digits: Path, tmp_path: Path) -> None:
    within = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    terminal = Terminal(tmp_path / "home", {"LC_ALL": "xx_XX.UTF-8"}, within)
    outcome = terminal.run("run", digits / "scenes", "--model", digits / "digits.weights", "-o", tmp_path / "out")
    terminal.end_all()
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert len(records(job_folder(tmp_path / "out"))) == 12


def test_standard_output_without_room_is_said_in_a_line(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "home", within=("sh", "-c", 'exec "$@" > /dev/full', "sh"))
    outcome = terminal.run("status", "--help")
    assert outcome.code == 1
    assert (
        outcome.err
        == "error: No space left on device: standard output, or the disk that trtjob writes to, has no room\n"
    )
