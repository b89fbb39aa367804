"""Images a second, from files to annotated files and JSON: trtjob's whole path beside the plain loop, turn by turn."""

import statistics
import time
from pathlib import Path

from bench.node import node
from bench.pictures import SIZES, write_pictures
from bench.plain import PlainLoop
from bench.table import Row
from trtjob.converters.registry import RegisteredModel

GOAL = 1.5
ROUNDS = 5


def end_to_end(folder: Path, home: Path, model: RegisteredModel, count: int) -> list[Row]:
    """Return the rows of the end-to-end comparison."""
    plain = PlainLoop(model.path, model.spec)
    rows = []
    with node(home) as running:
        for size in SIZES:
            source = write_pictures(folder / f"e2e-{size}", size, count)
            running.wait(running.submit(source, model, folder / "warm" / size).job_id)
            plain.run(source, folder / "plain" / "warm")
            ours, theirs = [], []
            for turn in range(ROUNDS):
                start = time.perf_counter()
                running.wait(running.submit(source, model, folder / f"ours-{turn}" / size).job_id)
                middle = time.perf_counter()
                plain.run(source, folder / "plain" / f"{turn}-{size}")
                end = time.perf_counter()
                ours.append(count / (middle - start))
                theirs.append(count / (end - middle))
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            note = f"trtjob {statistics.median(ours):.1f}, plain loop {statistics.median(theirs):.1f} images/s"
            rows.append(Row(f"end to end {size}", ratio, "x plain loop", f">= {GOAL}", ratio >= GOAL, note))
    return rows
