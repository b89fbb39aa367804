"""Check what only a machine with a GPU can show, and print one table.

Run it from the top of a checkout, in an environment where trtjob is installed:

    python -m scripts.gpu_check --model yolov3-tiny.weights --markdown docs/gpu-results.md

What cannot run on this machine is a row that says why. Exit code 1 where a check failed, 0 also where some could not
run.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from scripts.gpu_check.parts import PARTS, run_here, run_part
from scripts.gpu_check.rows import as_markdown, as_text, below_marker, failures
from scripts.gpu_check.wishes import SAMPLE, Wishes


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are asked for. Returns the exit code."""
    wanted = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trtjob-gpu-check-") as temporary:
        models = tuple(path.resolve() for path in wanted.model) or (SAMPLE,)
        wishes = Wishes(models, wanted.images, wanted.seconds, wanted.home or Path(temporary))
        if wanted.child:
            name, found = wanted.child
            run_here(name, wishes, Path(found))
            return 0
        parts = {}
        for name in wanted.only:
            started = time.perf_counter()
            parts[PARTS[name].title] = run_part(name, wishes)
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            if wanted.markdown:  # after each part: what was found is kept, whatever becomes of the next
                before = wanted.markdown.read_text() if wanted.markdown.exists() else ""
                wanted.markdown.write_text(below_marker(before, as_markdown(parts)))
    print(as_text(parts))
    failed = failures(parts)
    print(f"\n{failed} failed" if failed else "\nnothing failed")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="which parts (default: all)")
    parser.add_argument(
        "--model", type=Path, action="append", default=[], help="a model's file; may be repeated (default: the sample)"
    )
    parser.add_argument("--images", type=Path, help="images that the models find something in (default: generated)")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for each figure (default: 5)")
    parser.add_argument(
        "--markdown", type=Path, help="also write these parts' tables into this file, instead of those there"
    )
    parser.add_argument("--home", type=Path, help="where models and plans are kept (default: removed at the end)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
