"""Where no garbage is looked for."""

import gc
import subprocess
import sys

import pytest

from trtjob.garbage import unsought


def said_by(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_a_command_never_looks_through_what_it_has_imported() -> None:
    script = "import gc, sys; sys.argv[1:] = ['--version']; from trtjob.__main__ import main; main()\n"
    assert said_by(f"{script}print(gc.isenabled(), gc.get_freeze_count() > 10_000)").splitlines()[-1] == "True True"


def test_what_lasts_is_left_alone_and_what_comes_after_is_not() -> None:
    script = (
        "import gc; from trtjob.garbage import lasting\n"
        "class Ring:\n"
        "    def __init__(self): self.me = self\n"
        "    def __del__(self): print('gone')\n"
        "with lasting(): Ring()\n"
        "gc.collect(); print('--'); Ring(); gc.collect(); print('--')"
    )
    assert said_by(script).splitlines() == ["--", "gone", "--"]


@pytest.mark.parametrize("before", [True, False])
def test_a_library_that_is_imported_leaves_the_search_as_it_was(before: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with unsought():
            assert not gc.isenabled()
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
