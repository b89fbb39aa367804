"""`python -m benchmarks`: measure, and print a table with the goals."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.end_to_end import end_to_end
from benchmarks.feeding import feeding
from benchmarks.growth import memory, submission
from benchmarks.host import host_cost
from benchmarks.imaging import imaging
from benchmarks.known_jobs import known_jobs
from benchmarks.listing import listing
from benchmarks.overhead import overhead
from benchmarks.precision import precision
from benchmarks.shard_boundary import shard_boundary
from benchmarks.startup import startup
from benchmarks.table import Row, render
from benchmarks.videos import videos
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model, resolve_model

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "examples" / "digits" / "digits.weights"
SCENES = SAMPLE.parent / "scenes"
PHOTOS = ROOT.parent / "shared" / "images"
YOLO = ROOT.parent / "shared" / "models" / "yolov3-tiny.weights"


def main() -> int:
    """Run the benchmarks that are asked for. Returns 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parts = (
        "host",
        "feeding",
        "imaging",
        "overhead",
        "start",
        "submit",
        "known",
        "listing",
        "e2e",
        "memory",
        "shard-boundary",
        "precision",
        "videos",
    )
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="which benchmarks (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer images: the figures are rougher")
    parser.add_argument(
        "--weights", type=Path, default=YOLO if YOLO.exists() else SAMPLE, help="Darknet model for e2e and precision"
    )
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="images to calibrate that model on, for precision")
    parser.add_argument(
        "--scenes", type=Path, default=SCENES, help="scenes by examples/digits/scenes.py, for precision"
    )
    parser.add_argument(
        "--video-s", type=int, help="seconds of the video, for videos (default: an hour, with --quick 225 s)"
    )
    parser.add_argument("--video-turns", type=int, default=1, help="how often, for videos; the median counts")
    parser.add_argument(
        "--ultralytics-python", type=Path, help="a Python that has Ultralytics, for videos (default: without it)"
    )
    arguments = parser.parse_args()
    scale = 4 if arguments.quick else 1
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="trtjob-bench-") as temporary:
        folder, home = Path(temporary), Path(temporary) / "home"
        registry = ModelRegistry(home / "models")

        def model(path: Path) -> RegisteredModel:
            return resolve_model(str(path), registry=registry)

        def named(path: Path) -> str:
            return convert_model(ConversionRequest(model=path), registry=registry).name

        benchmarks: dict[str, Callable[[], list[Row]]] = {
            "host": lambda: host_cost(folder / "host", 96 // scale),
            "imaging": lambda: imaging(48 // scale),
            "feeding": lambda: feeding(folder, 512 // scale),
            "overhead": lambda: overhead(folder, folder / "overhead-home", 2560 // scale),
            "start": lambda: startup(folder, home, named(arguments.weights)),
            "submit": lambda: submission(folder, home, model(SAMPLE), 100_000 // scale),
            "known": lambda: known_jobs(folder / "known-home", 10_000 // scale),
            "listing": lambda: listing(folder, 1_000_000 // scale),
            "e2e": lambda: end_to_end(folder, home, model(arguments.weights), 192 // scale),
            "memory": lambda: memory(folder, home, model(SAMPLE), 5000 // scale),
            "shard-boundary": lambda: shard_boundary(folder, home, model(SAMPLE), 4096 // scale),
            "precision": lambda: precision(
                registry, arguments.weights, SAMPLE, arguments.scenes, arguments.photos, 80 // scale
            ),
        }
        seconds = arguments.video_s or 3600 // scale**2
        turns, rival = arguments.video_turns, arguments.ultralytics_python
        benchmarks["videos"] = lambda: videos(folder, home, model(SAMPLE), seconds, turns, rival)
        for name in parts:
            if name in arguments.only:
                print(f"measuring: {name}", flush=True)
                rows += benchmarks[name]()
    print(f"\nmodel: {arguments.weights.name}\n")
    print(render(rows))
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
