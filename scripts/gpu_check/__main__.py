"""Check what only a machine with a GPU can show, and print one table.

Run it from the top of a checkout, in an environment where trtjob is installed with its GPU engines:

    python -m scripts.gpu_check --yolov3-tiny yolov3-tiny.weights --markdown docs/gpu-results.md

Models are made from seeds; what cannot be made here is named by an option. What cannot run on this machine is a row
that says why. Exit code 1 where a check failed, 0 also where some could not run.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import NoReturn

from scripts.gpu_check.options import OPTIONS, CheckOptions
from scripts.gpu_check.parts import DEFAULT, PARTS, end_children, groups, run_here, run_part
from scripts.gpu_check.rows import Row, as_markdown, as_text, failures, merged

_one_document = threading.Lock()


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are asked for. Returns the exit code."""
    wanted = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trtjob-gpu-check-") as temporary:
        options = options_of(wanted, Path(temporary))
        if wanted.child:
            name, found = wanted.child
            run_here(name, options, Path(found))
            return 0
        signal.signal(signal.SIGTERM, _leave)
        parts, end = {}, time.perf_counter() + 60 * wanted.minutes
        for names in groups(wanted.only):
            with ThreadPoolExecutor(len(names)) as pool:
                running = [pool.submit(_timed, name, options, end, wanted.markdown) for name in names]
                found = [part.result() for part in running]
            for name, rows in zip(names, found, strict=True):
                parts[PARTS[name].title] = rows
            if "plans" in names:  # what was not built in its time is not built in another part's
                options = replace(options, is_built=True)
    print(as_text(parts))
    failed = failures(parts)
    print(f"\n{failed} failed" if failed else "\nnothing failed")
    return 1 if failed else 0


def _leave(number: int, _frame: object) -> NoReturn:
    end_children()
    os._exit(128 + number)  # the threads that wait for them need not be waited for


def _timed(name: str, options: CheckOptions, end: float, markdown: Path | None) -> list[Row]:
    """Run a part; what it finds is kept at once, whatever becomes of the rest."""

    def keep_so_far(rows: list[Row]) -> None:
        if markdown is not None:
            with _one_document:
                keep(markdown, name, rows)

    started = time.perf_counter()
    rows = run_part(name, options, left_s=end - started, on_rows=keep_so_far)
    keep_so_far(rows)
    print(f"{name}: {time.perf_counter() - started:.0f} s, {len(rows)} rows", file=sys.stderr, flush=True)
    return rows


def keep(document: Path, name: str, rows: list[Row]) -> None:
    part = PARTS[name]
    before = document.read_text() if document.exists() else ""
    kept = part.kept(rows)
    tables = as_markdown({part.title: kept}) if kept else ""
    titles = [other.title for other in PARTS.values() if other is not part or kept]
    document.write_text(merged(before, tables, titles))


def options_of(wanted: argparse.Namespace, temporary: Path) -> CheckOptions:
    values = {field.name: getattr(wanted, field.name) for field in fields(CheckOptions)}
    values["home"] = (values["home"] or temporary).resolve()
    values["levels"], values["variants"] = tuple(values["levels"]), tuple(values["variants"])
    if wanted.is_quick:
        values["seconds"] /= 2
    for name in ("official", "models", "images", "darknet", "keras_path", "ultralytics_path"):  # children run elsewhere
        values[name] = values[name] and values[name].resolve()
    for name in ("keras_python", "ultralytics_python"):
        if values[name]:  # not resolved: an environment's Python is a link, and knows where it lies by its name
            values[name] = Path(os.path.abspath(values[name]))  # noqa: PTH100
    return CheckOptions(**values)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(DEFAULT), help=f"which parts (default: {' '.join(DEFAULT)})"
    )
    parser.add_argument(
        "--markdown", type=Path, help="also write these parts' tables into this file, in place of their old ones"
    )

    def add(name: str, what: str, **more: object) -> None:
        parser.add_argument(OPTIONS[name], dest=name, help=what, **more)  # type: ignore[arg-type]

    parser.add_argument(
        "--minutes", type=float, default=1000.0, help="what is not done by then is ended, and kept as far as it is"
    )
    add("home", "where models and plans are kept (default: removed at the end)", type=Path)
    add("seconds", "seconds for each figure (default: 2)", type=float, default=2.0)
    add("is_quick", "half of the seconds, and the small models only", action="store_true")
    add("is_built", "take what the parts `models` and `plans` have left, and no more", action="store_true")
    add(
        "builders",
        "plans that are built at once: each takes a core, and all share the GPU (default: 4)",
        type=int,
        default=4,
    )
    add("levels", "TensorRT's optimization levels to try (default: 0 to 5)", type=int, nargs="+", default=range(6))
    add(
        "variants",
        "models and precisions whose plans are built, and that are timed, such as yolov8n@fp16 or yolov3-608@TF32 "
        "(default: all)",
        nargs="+",
        default=(),
    )
    add("official", "YOLOv3-tiny's official weights; its .cfg and .names lie beside them", type=Path)
    add("models", "the folder that scripts/gpu_models/ahead.py has written", type=Path)
    add("images", "a folder of photographs (default: made-up pictures)", type=Path)
    add("darknet", "a folder of Darknet's own results", type=Path)
    add("keras_python", "a Python that has Keras, and PyTorch or JAX with CUDA", type=Path)
    add("ultralytics_python", "a Python that has Ultralytics, and PyTorch with CUDA (default: this one)", type=Path)
    add("ultralytics_path", "a folder of packages that this Python lacks", type=Path)
    add("keras_path", "a folder of packages, or of wheels, that this Python lacks", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
