"""A program that was started without standard input, output or error."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import json, os, subprocess, sys
from trtjob.standard_files import have_standard_files
have_standard_files()
print("said", file=sys.stderr)
print("said")
assert sys.stdin is not None
heir = subprocess.run([sys.executable, "-c", "import os; [os.fstat(number) for number in range(3)]"])
places = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
with open(sys.argv[1], "w") as file:
    json.dump([places, file.fileno(), heir.returncode], file)
"""


@pytest.mark.parametrize("closed", [(), (0,), (2,), (1, 2), (0, 1, 2)])
def test_what_is_closed_is_nothing_and_what_is_open_stays(closed: tuple[int, ...], tmp_path: Path) -> None:
    shell = f'exec "$0" "$@" {" ".join(f"{number}>&-" for number in closed)}'
    given = tmp_path / "given"
    with given.open("w+") as file:
        command = ["sh", "-c", shell, sys.executable, "-c", LOOK, str(tmp_path / "found")]
        subprocess.run(command, stdin=file, stdout=file, stderr=file, check=True, timeout=60)
    places, opened, heir = json.loads((tmp_path / "found").read_text())
    assert places == ["/dev/null" if number in closed else str(given) for number in range(3)]
    assert opened > 2
    assert heir == 0
    assert given.read_text().count("said") == 2 - len({1, 2} & set(closed))
