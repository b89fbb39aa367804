"""From the command to the first finished image, with the model converted already."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.table import Row
from trtjob.bench.synthetic_images import write_pictures

GOAL_S = 3.0
ROUNDS = 3


def startup(folder: Path, home: Path, model: str) -> list[Row]:
    """Return the time until the first annotated image lies in the output folder."""
    source = write_pictures(folder / "start", "640x480", 24)
    times = []
    for turn in range(ROUNDS):
        output = folder / f"start-out-{turn}"
        command = [sys.executable, "-m", "trtjob", "run", str(source), "--model", model, "--output", str(output)]
        environment = {**os.environ, "TRTJOB_HOME": str(home)}
        start = time.perf_counter()
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and not any(output.glob("*/annotated/*.jpg")):
                time.sleep(0.01)
            times.append(time.perf_counter() - start)
            if process.wait() != 0:
                raise RuntimeError(f"trtjob run ended with {process.returncode}")
    value = statistics.median(times)
    return [Row("from `trtjob run` to the first image", value, "s", f"< {GOAL_S:g}", value < GOAL_S)]
