"""Frames of videos: trtjob beside the loop that one writes in an afternoon, and beside Ultralytics; and two workers
beside one."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.made_video import FPS, write_video
from benchmarks.node import Node, node
from benchmarks.plain import PlainLoop
from benchmarks.processes import tree_cpu_s
from benchmarks.table import Row
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.converters.run import resolve_model
from trtjob.engines.onnxruntime.session import CPU_PROVIDER, open_session
from trtjob.engines.spec import INPUT_NAME, ModelSpec
from trtjob.imaging.planes import prepare_planes
from trtjob.imaging.video import Picture
from trtjob.imaging.video_file import opened
from trtjob.jobs.spec import Annotate

CORES = sorted(os.sched_getaffinity(0))
_BOUND_FRAMES = 1_000  # for each core
_RIVALLED_S = 60  # of a video at most, beside Ultralytics
_RIVAL = Path(__file__).with_name("ultralytics_rival.py")
_SHARED_S = 1_800  # of a video that two workers share: at 5 frames a second, enough shards that the last one is little
LOOP_GOAL, WORKERS_GOAL = 1.5, 0.55  # a tenth for what two workers share: the plan, and the end
SAMPLINGS = {"fps=1": FPS, "fps=5": FPS // 5, "every=1": 1}  # and of how many frames the loop takes one


def videos(
    folder: Path, home: Path, model: RegisteredModel, seconds: int, rounds: int = 1, ultralytics: Path | None = None
) -> list[Row]:
    """Return the rows for a video of 1080p of so many seconds, and for one of twice as many that two workers share.

    ultralytics: a Python that has it, None: it is not measured.
    """
    path = write_video(folder / "videos" / "1080p.mp4", seconds, (1080, 1920))
    rows = [*_beside_loop(path, home, model, folder / "videos-out", seconds * FPS, rounds)]
    if ultralytics is not None:
        short = write_video(folder / "short" / "1080p.mp4", min(seconds, _RIVALLED_S), (1080, 1920))
        rows += _beside_ultralytics(short, home, folder / "ultralytics", ultralytics)
    small = write_video(folder / "two-workers" / "long.mp4", max(2 * seconds, _SHARED_S), (360, 640))
    return [*rows, _two_workers(small, folder, model)]


def _beside_loop(
    path: Path, home: Path, model: RegisteredModel, output: Path, frames: int, rounds: int
) -> Iterator[Row]:
    plain = PlainLoop(model.path, model.spec)
    with node(home) as running:
        running.wait_for_worker()
        (worker,) = running.store.workers()
        for sampling, step in SAMPLINGS.items():
            ours, theirs, before = [], [], tree_cpu_s(worker.pid)
            for turn in range(rounds):
                start = time.perf_counter()
                running.wait(_submit(running, path, model, output / f"{sampling}-{turn}", sampling))
                ours.append(time.perf_counter() - start)
                start, before_loop = time.perf_counter(), time.process_time()
                plain.run_video(path, step)
                theirs.append(time.perf_counter() - start)
                loop_cpu_s = time.process_time() - before_loop
            cpu_s = (tree_cpu_s(worker.pid) - before) / rounds
            ratio = statistics.median(loop / own for loop, own in zip(theirs, ours, strict=True))
            times = f"trtjob {statistics.median(ours):.1f} s, loop {statistics.median(theirs):.1f} s"
            note = f"{frames:,} frames: {times}; of the CPU {cpu_s:.1f} s and {loop_cpu_s:.1f} s"
            met = ratio >= LOOP_GOAL if step == 1 else None
            goal = f">= {LOOP_GOAL}" if step == 1 else ""
            yield Row(f"video 1080p, {sampling}", ratio, "x OpenCV loop", goal, met, note)
        yield _bound(path, model, statistics.median(theirs) / frames)


def _beside_ultralytics(path: Path, home: Path, folder: Path, python: Path) -> Iterator[Row]:
    """Compare YOLOv8n, of random weights, with Ultralytics' own `predict`: the same network, letterbox and frames."""
    folder.mkdir()
    with _ultralytics(path, folder, python) as answer, node(home) as running:
        model = resolve_model(answer()["made"], registry=ModelRegistry(home / "models"))
        running.wait_for_worker()
        (worker,) = running.store.workers()
        for sampling, step in SAMPLINGS.items():
            start, before = time.perf_counter(), tree_cpu_s(worker.pid)
            running.wait(_submit(running, path, model, folder / sampling, sampling))
            ours_s, cpu_s = time.perf_counter() - start, tree_cpu_s(worker.pid) - before
            theirs = answer(str(step))
            note = f"YOLOv8n: trtjob {ours_s:.1f} s, Ultralytics {theirs['seconds']:.1f} s"
            note += f"; of the CPU {cpu_s:.1f} s and {theirs['cpu_s']:.1f} s"
            yield Row(f"video 1080p, {sampling}, Ultralytics", theirs["seconds"] / ours_s, "x its predict", note=note)


@contextmanager
def _ultralytics(path: Path, folder: Path, python: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run Ultralytics beside. Yields what asks it, and returns its answer."""
    offline = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder)}
    command = [str(python), str(_RIVAL), str(folder), str(path)]
    rival = subprocess.Popen(
        command, env=os.environ | offline, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    questions, answers = rival.stdin, rival.stdout
    assert questions is not None
    assert answers is not None

    def answer(asked: str = "") -> dict[str, Any]:
        if asked:
            questions.write(f"{asked}\n")
        line = next((line for line in answers if line.startswith("{")), None)
        if line is None:
            raise RuntimeError("Ultralytics gave no answer; its errors are above")
        return dict(json.loads(line))

    try:
        yield answer
    finally:
        rival.kill()
        rival.wait()


def _bound(path: Path, model: RegisteredModel, loop_s: float) -> Row:
    """Return how many times as fast as the loop all cores are that do nothing but what each frame needs.

    They compute alone, and decode and resize alone: done one after the other, no pipeline takes less. loop_s: of the
    loop, for each frame.
    """
    with ThreadPoolExecutor(len(CORES)) as pool:
        engine_s = _each_s(pool, partial(_compute, open_session(model.path, [(CPU_PROVIDER, {})]), model.spec))
    with ProcessPoolExecutor(len(CORES), mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_decode, path, model.spec), [1] * len(CORES)))  # they have begun
        decode_s = _each_s(pool, partial(_decode, path, model.spec))
    note = f"the engine alone {1 / engine_s:,.0f} frames/s, decoding and resizing alone {1 / decode_s:,.0f}"
    return Row("video 1080p, every=1, bound", loop_s / (engine_s + decode_s), "x OpenCV loop", note=note)


def _each_s(pool: Executor, work: Callable[[int], None]) -> float:
    start = time.perf_counter()
    list(pool.map(work, [_BOUND_FRAMES] * len(CORES)))
    return (time.perf_counter() - start) / (_BOUND_FRAMES * len(CORES))


def _compute(session: Any, spec: ModelSpec, count: int) -> None:
    image = np.full((1, *spec.input_hw, spec.channels), 127, np.uint8)
    for _ in range(count):
        session.run(None, {INPUT_NAME: image})


def _decode(path: Path, spec: ModelSpec, count: int) -> None:
    cv2.setNumThreads(1)
    container, stream = opened(path.open("rb"))
    tensor = np.empty((*spec.input_hw, spec.channels), np.uint8)
    with container:
        for frame in islice(container.decode(stream), count):
            planes = Picture(frame).planes()
            assert planes is not None
            prepare_planes(planes, spec, spec.resize, tensor)


def _two_workers(path: Path, folder: Path, model: RegisteredModel) -> Row:
    """Share a video between two workers of one core each."""
    took_s = []
    for count in (1, 2):
        home = folder / f"home-of-{count}"
        with node(home, workers=0) as running, _workers(home, count, running):
            start = time.perf_counter()
            running.wait(_submit(running, path, model, folder / f"by-{count}", "fps=5"))
            took_s.append(time.perf_counter() - start)
    share = took_s[1] / took_s[0]
    apart = _share_of_two_strangers(next(path.parent.iterdir()), model)
    note = f"one {took_s[0]:.1f} s, two {took_s[1]:.1f} s; two processes that share nothing: {apart:.2f} x one's time"
    return Row(
        "video 360p, fps=5, two workers", share, "x one's time", f"<= {WORKERS_GOAL}", share <= WORKERS_GOAL, note
    )


def _share_of_two_strangers(path: Path, model: RegisteredModel) -> float:
    """Return what share of one process's time two take, each on a core of its own, for half of the same frames."""
    took_s = []
    for cores in (CORES[:1], CORES[:2]):
        with ProcessPoolExecutor(len(cores), mp_context=get_context("spawn")) as pool:
            work = partial(_decode_and_compute, path, model)
            list(pool.map(work, cores, [1] * len(cores)))  # they have begun
            start = time.perf_counter()
            list(pool.map(work, cores, [_BOUND_FRAMES // len(cores)] * len(cores)))
            took_s.append(time.perf_counter() - start)
    return took_s[1] / took_s[0]


def _decode_and_compute(path: Path, model: RegisteredModel, core: int, count: int) -> None:
    os.sched_setaffinity(0, {core})
    _decode(path, model.spec, count)
    _compute(open_session(model.path, [(CPU_PROVIDER, {})]), model.spec, count)


def _submit(running: Node, path: Path, model: RegisteredModel, output: Path, sampling: str) -> str:
    return running.submit(path.parent, model, output, annotate=Annotate.NONE, frames=sampling).job_id


@contextmanager
def _workers(home: Path, count: int, running: Node) -> Iterator[None]:
    """Run workers, each on a core of its own."""
    environment = os.environ | {"TRTJOB_HOME": str(home), "TRTJOB_LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "trtjob", "worker"]
    workers = []
    for core in CORES[:count]:
        workers.append(subprocess.Popen(command, env=environment | {"TRTJOB_HEALTH_PORT": "0"}))
        os.sched_setaffinity(workers[-1].pid, {core})
    try:
        while len(running.store.workers()) < count:
            time.sleep(0.02)
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
