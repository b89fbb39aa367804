"""Damaged models: refused in one line, or converted where the damage is harmless; never a crash or gigabytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from converters import damage

SEED = 20260101
COUNT, OF_SLOW_READERS = 1000, 300
TIMEOUT_S = 240

KINDS = [pytest.param(kind, marks=[pytest.mark.extra] if kind in damage.OF_TENSORFLOW else []) for kind in damage.KINDS]


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 10)
@pytest.mark.parametrize("of", [pytest.param(4, id="a quarter"), pytest.param(1, id="all", marks=pytest.mark.chaos)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_one_line(kind: str, of: int, tmp_path: Path) -> None:
    count = (OF_SLOW_READERS if kind in damage.OF_TENSORFLOW else COUNT) // of
    done = subprocess.run(
        [sys.executable, damage.__file__, kind, str(count), str(SEED), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(damage.__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused = int(done.stdout.split()[0])
    assert refused > count / 10
