"""Images a second, from files to annotated files and JSON: trtjob, a plain loop, and the engine alone, turn by turn."""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVarTuple

import numpy as np

from benchmarks.node import Node, node
from benchmarks.plain import PlainLoop
from benchmarks.processes import tree_cpu_s
from benchmarks.table import Row
from trtjob.bench.synthetic_images import SIZES, write_pictures
from trtjob.converters.registry import RegisteredModel
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import Engine, answer_of

Args = TypeVarTuple("Args")

GOAL = 1.5
BUSY_GOAL = 0.95  # of what the CPU times of engine and host allow
ROUNDS = 5
CORES = len(os.sched_getaffinity(0))


def end_to_end(folder: Path, home: Path, model: RegisteredModel, count: int) -> list[Row]:
    """Return the rows of the end-to-end comparison."""
    plain = PlainLoop(model.path, model.spec)
    rows = []
    with node(home) as running, open_engine(model.path) as engine:
        for size in SIZES:
            source = write_pictures(folder / f"e2e-{size}", size, count)
            _run_job(running, source, model, folder / "warm" / size)
            plain.run(source, folder / "plain" / "warm")
            ours, theirs, bare, worked = [], [], [], []
            (worker,) = running.store.workers()
            for turn in range(ROUNDS):
                before = tree_cpu_s(worker.pid)
                took_s = _seconds(_run_job, running, source, model, folder / f"ours-{turn}" / size)
                worked.append((tree_cpu_s(worker.pid) - before) / took_s / CORES)
                ours.append(count / took_s)
                theirs.append(count / _seconds(plain.run, source, folder / "plain" / f"{turn}-{size}"))
                bare.append(count / _seconds(_infer, engine, count))
            rows.append(_row(size, ours, theirs, "x plain loop", "plain loop", GOAL))
            rows.append(_row(size, ours, bare, "x engine alone", "engine alone", None))
            share = statistics.median(worked)
            rows.append(
                Row(f"end to end {size}", share, "of the cores' time", f">= {BUSY_GOAL}", share >= BUSY_GOAL, "worked")
            )
    return rows


def _seconds(work: Callable[[*Args], None], *args: *Args) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def _run_job(running: Node, source: Path, model: RegisteredModel, output: Path) -> None:
    running.wait(running.submit(source, model, output).job_id)


def _infer(engine: Engine, count: int) -> None:
    """Run the engine from as many threads as it likes, and do nothing else: no pipeline on this machine is faster."""
    image = np.random.default_rng(5).integers(0, 256, (*engine.spec.input_hw, engine.spec.channels), np.uint8)
    with ThreadPoolExecutor(engine.concurrency) as pool:
        list(pool.map(lambda _: answer_of(engine, image), range(count)))


def _row(size: str, ours: list[float], others: list[float], unit: str, name: str, goal: float | None) -> Row:
    ratio = statistics.median(a / b for a, b in zip(ours, others, strict=True))
    note = f"trtjob {statistics.median(ours):.1f}, {name} {statistics.median(others):.1f} images/s"
    met = None if goal is None else ratio >= goal
    return Row(f"end to end {size}", ratio, unit, "" if goal is None else f">= {goal}", met, note)
