"""Write cases for `scripts.detector_families`: python -m scripts.detector_cases CASES/ PHOTOGRAPHS/ [NAME ...].

Run it where the exporters are installed, one family's at a time; nothing is downloaded.
"""

import argparse
import sys
import traceback
from importlib import import_module
from pathlib import Path

from scripts.detector_cases.case import photographs, write

FAMILIES = ("torchvision", "transformers", "ultralytics", "rfdetr", "repositories")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("names", nargs="*", help="only those that begin so")
    wanted = parser.parse_args()
    images, failed = photographs(wanted.photographs), 0
    for family in FAMILIES:
        try:
            module = import_module(f"scripts.detector_cases.by_{family}")
        except ImportError as err:
            print(f"{family}: {err}", file=sys.stderr)
            continue
        for name, make in module.cases():
            if wanted.names and not name.startswith(tuple(wanted.names)):
                continue
            folder = wanted.cases / name
            folder.mkdir(parents=True, exist_ok=True)
            try:
                made = make(folder, images)
            except Exception:  # noqa: BLE001 - one exporter's trouble is no other's
                traceback.print_exc()
                failed += 1
                continue
            write(folder, made, images)
            print(f"{name}: {[len(found.scores) for found in made.found.values()]} found")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
