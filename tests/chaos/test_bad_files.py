"""Files of bad kinds, those that fail and those that are passed over: 10,000 of each take no more memory than few."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from terminal import Terminal, descendants, job_folder, small_digits

from scripts import messy_folder

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(1800)]

FEW, MANY = 500, 10_000
SPARE_MB = 30  # of all processes together: what allocators keep varies


def test_ten_thousand_of_each_bad_kind_leave_memory_flat(terminal: Terminal, tmp_path: Path) -> None:
    model = small_digits(tmp_path)
    terminal.environment["TRTJOB_IMAGE_PROCESSES"] = "1"
    peaks_mb = []
    for copies in (FEW, MANY):
        messy, output = tmp_path / f"messy-{copies}", tmp_path / f"out-{copies}"
        expected = messy_folder.make_many(messy, copies)
        peak_mb, job = _run(terminal, "run", messy, "--model", model, "-o", output, "--annotate", "none", "--json")
        assert messy_folder.Counts(job["images"], job["ignored"], job["failures"]) == expected
        assert (job_folder(output) / "_SUCCESS.json").is_file()
        peaks_mb.append(peak_mb)
        shutil.rmtree(messy)
    print(f"peak of all processes: {peaks_mb[0]:.0f} MB with {FEW:,} of each kind, {peaks_mb[1]:.0f} MB with {MANY:,}")
    assert peaks_mb[1] < peaks_mb[0] + SPARE_MB


def _run(terminal: Terminal, *arguments: str | Path) -> tuple[float, dict[str, Any]]:
    """Return the most memory that a command's processes had at once, in MB, and what it says."""
    process = terminal.start(*arguments)
    peak_mb = 0.0
    while process.poll() is None:
        peak_mb = max(peak_mb, sum(_own_mb([process.pid, *descendants(process.pid)])))
        time.sleep(0.3)
    text, errors = process.communicate()
    assert process.returncode == 1, errors
    return peak_mb, json.loads(text)


def _own_mb(pids: list[int]) -> Iterator[float]:
    """Yield what is each process's own, and not shared with others."""
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        yield sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Private_Clean:"))) / 1e3
