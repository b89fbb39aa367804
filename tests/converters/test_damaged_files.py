"""Damaged models: refused in one line, or converted where the damage is harmless; never a crash or gigabytes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from converters import damage

SEED = 20260101
COUNT, OF_SLOW_READERS = 1000, 300
TIMEOUT_S = 240

# Those that need TensorFlow in one process: to import it takes longer than to read what is damaged.
KINDS = [
    *(pytest.param([kind], id=kind) for kind in damage.KINDS if kind not in damage.OF_TENSORFLOW),
    pytest.param(damage.OF_TENSORFLOW, id="-".join(damage.OF_TENSORFLOW), marks=pytest.mark.extra),
]


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 10)
@pytest.mark.parametrize("of", [pytest.param(4, id="a quarter"), pytest.param(1, id="all", marks=pytest.mark.chaos)])
@pytest.mark.parametrize("kinds", KINDS)
def test_a_damaged_file_is_refused_in_one_line(kinds: Sequence[str], of: int, tmp_path: Path) -> None:
    count = (OF_SLOW_READERS if kinds is damage.OF_TENSORFLOW else COUNT) // of
    done = subprocess.run(
        [sys.executable, damage.__file__, str(count), str(SEED), str(tmp_path), *kinds],
        env={**os.environ, "PYTHONPATH": str(Path(damage.__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(refused) == len(kinds)
    assert min(refused) > count / 10
