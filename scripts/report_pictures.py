"""Take pictures of a report as a phone, a tablet and a desktop show it: `python -m scripts.report_pictures --out DIR`.

Without a folder of one's own it runs the sample model over the sample scenes, all of which scripts of this repository
have drawn, and holds the job against their truth. A real Chromium is needed. `desktop-light.png` becomes
docs/images/report.jpg.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from browser import Tab, browser, find_chromium  # noqa: E402

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}
VIEWS = {"": "", "truth": "#tab=extra", "missed": "#tab=missing", "image": "#image=1", "failed": "#tab=failed"}
DIGITS = REPOSITORY / "examples" / "digits"


def make_report(folder: Path, scenes: Path) -> Path:
    """Run the sample model over scenes and return the report, which says how good it is."""
    scenes = Path(shutil.copytree(scenes, folder / "scenes"))
    truth = folder / "truth.json"
    truth.write_text(json.dumps(coco_of(json.loads((scenes / "truth.json").read_text()))))
    trtjob = [sys.executable, "-m", "trtjob"]
    job = [*trtjob, "run", str(scenes), "--model", str(DIGITS / "digits.weights"), "-o", str(folder / "out")]
    subprocess.run([*job, "--min-score", "0.02"], check=True, stdout=subprocess.DEVNULL)
    (page,) = (folder / "out").glob("*/report.html")
    subprocess.run([*trtjob, "report", str(page.parent), "--truth", str(truth)], check=True)
    return page


def coco_of(truth: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what `scenes.py` wrote as COCO has it."""
    annotations = []
    for image, objects in enumerate(truth.values()):
        for each in objects:
            x1, y1, x2, y2 = each["box"]
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"image_id": image, "category_id": each["label"], "bbox": box, "iscrowd": 0})
    images = [{"id": number, "file_name": name} for number, name in enumerate(truth)]
    categories = [{"id": str(digit), "name": str(digit)} for digit in range(10)]
    return {"images": images, "annotations": annotations, "categories": categories}


def take_pictures(tab: Tab, page: Path, out: Path) -> None:
    """Take a picture of each view, size and colour scheme."""
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            tab.look(width, height, dark=scheme == "dark")
            for view, address in VIEWS.items():
                tab.open(page, address)
                tab.wait_for(
                    "[...document.querySelectorAll('img')].every(image => image.complete || image.loading === 'lazy')"
                )
                tab.evaluate("new Promise(resolve => setTimeout(resolve, 300))")
                tab.screenshot(out / f"{'-'.join(filter(None, (size, scheme, view)))}.png")


def main() -> int:
    """Make the report and its pictures."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report_pictures", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--page", type=Path, help="a report.html that is there already")
    parser.add_argument("--scenes", type=Path, default=DIGITS / "scenes", help="scenes by examples/digits/scenes.py")
    parser.add_argument("--readme", action="store_true", help="write docs/images/report.jpg, too")
    arguments = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print("there is no Chromium on the PATH", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.gettempdir(), "trtjob-demo")  # whose name is in the pictures
    folder.mkdir()
    try:
        page = arguments.page or make_report(folder, arguments.scenes)
        with browser(chromium, folder / "profile") as tab:
            take_pictures(tab, page.resolve(), arguments.out)
    finally:
        shutil.rmtree(folder)
    if arguments.readme:
        picture = cv2.imread(str(arguments.out / "desktop-light.png"))
        assert picture is not None
        cv2.imwrite(str(REPOSITORY / "docs" / "images" / "report.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return 0


if __name__ == "__main__":
    sys.exit(main())
