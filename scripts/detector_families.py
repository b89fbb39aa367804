"""Compare detectors with their owners' own predictions, and write the tables in docs/models.md: of other families, and
of what Ultralytics' exports say beyond boxes.

    python -m scripts.detector_families CASES/ ... PHOTOGRAPHS/ [--check]

CASES/ has a folder for each: model.onnx, and expected.json with the owner's labels, boxes and scores on photographs,
and masks, keypoints and corners where there are some. `python -m scripts.detector_cases` makes such folders.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trtjob.converters.onnx.families import FAMILIES
from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import answer_of
from trtjob.errors import ConversionError
from trtjob.imaging.boxes import clip, in_order
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import BOX_DECIMALS, Detection
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import prepare
from trtjob.imaging.rle import mask_from

TARGET = Path(__file__).parents[1] / "docs" / "models.md"
FAMILY_MARKS = "<!-- families -->", "<!-- end of families -->"
SHAPE_MARKS = "<!-- shapes -->", "<!-- end of shapes -->"
MAX_PIXELS = 200_000_000
FAR_PX = 20.0  # further apart are two detections
NEAR_CONF = 0.01  # so near to the threshold one may be found or not


@dataclass(frozen=True, slots=True)
class Agreement:
    """How ours compare with the owner's: those that are missing or too many, and the largest differences.

    shapes: what the boxes have beside them: the worst IoU of `masks` and `rotated` boxes, and how many pixels
    `keypoints` are off at most.
    """

    case: str
    family: str
    exporter: str
    wanted: int
    missing: int
    extra: int
    boxes_px: float
    scores: float
    shapes: dict[str, float] = field(default_factory=dict)
    is_told: bool = False

    @property
    def text(self) -> str:
        found = "all found" if not self.missing + self.extra else f"{self.missing} missing, {self.extra} too many"
        return f"{found} of {self.wanted}, {self.boxes_px:.2f} px, {self.scores:.4f}"

    @property
    def shapes_text(self) -> str:
        return ", ".join(
            f"{name} within {value:.3f} px" if name == "keypoints" else f"worst IoU of {name} {value:.4f}"
            for name, value in self.shapes.items()
        )


Pair = tuple[Detection, int]  # ours, and the number of the owner's


def compared(case: Path, photographs: Path) -> Agreement:
    """Convert a case's model and compare what it finds. Raises ConversionError."""
    expected = json.loads((case / "expected.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.names"
        labels.write_text("\n".join(expected["labels"]) + "\n")
        says_labels = (case / "config.json").exists() or ("imgsz" in expected and "ultralytics" in expected["family"])
        request: dict[str, Any] = {"model": case / "model.onnx", "name": "case", **expected.get("options", {})}
        if not says_labels:
            request["labels"] = labels
        first = next(iter(expected["images"].values()))["size"]
        try:
            model = convert_model(ConversionRequest(**request), registry=ModelRegistry(Path(folder) / "models"))
        except ConversionError as err:
            if "--size" not in str(err):
                raise
            request["size"] = expected.get("input_hw", (first[1], first[0]))
            model = convert_model(ConversionRequest(**request), registry=ModelRegistry(Path(folder) / "models"))
        notes = " ".join(note for note in (model.document()["facts"] or {}).get("notes", ()) if "--family" in note)
        note = next((family.name for family in FAMILIES if f"(--family {family.name})" in notes), "")
        boxes, scores, missing, extra, wanted = [0.0], [0.0], 0, 0, 0
        shapes: dict[str, list[float]] = {}
        with open_engine(model.path, threads=1) as engine:
            for name, told in expected["images"].items():
                if "size" in request and told["size"] != first:  # its graph resizes, and it would see another shape
                    continue
                image = decode_image((photographs / name).read_bytes(), max_pixels=MAX_PIXELS)
                tensor, placement = prepare(image, model.spec, model.spec.resize)
                found = detections_from(
                    answer_of(engine, tensor),
                    placement,
                    model.spec,
                    hw=(image.shape[0], image.shape[1]),
                    min_score=expected["conf"] - NEAR_CONF,
                    iou=expected.get("iou", model.spec.iou),
                    max_count=expected.get("max_det"),
                ).detections
                theirs = _boxes(told)
                pairs = _matched(found, told, theirs, expected["labels"], model.spec.labels)
                boxes += [_farthest(ours.box, theirs[number]) for ours, number in pairs]
                scores += [abs(ours.score - told["scores"][number]) for ours, number in pairs]
                wanted += len(theirs)
                missing += len(theirs) - len(pairs)
                extra += sum(item.score > expected["conf"] + NEAR_CONF for item in found) - len(pairs)
                for ours, number in pairs:
                    for name, value in _shapes(ours, told, number):
                        shapes.setdefault(name, []).append(value)
    worst = {name: (max if name == "keypoints" else min)(values) for name, values in shapes.items()}
    return Agreement(
        case.name,
        note,
        expected["family"],
        wanted,
        missing,
        max(0, extra),
        max(boxes),
        max(scores),
        worst,
        is_told="family" in request,
    )


def _boxes(told: dict[str, Any]) -> dict[int, NDArray[Any]]:
    """Return the owner's boxes by number, clipped to the image, with their edges in order as ours are."""
    width, height = told["size"]
    boxes = in_order(np.reshape(told["boxes"], (-1, 4)).astype(np.float32))
    clipped = dict(enumerate(clip(boxes, (height, width))))
    rounded = {number: np.round(box, BOX_DECIMALS) for number, box in clipped.items()}
    return {number: clipped[number] for number, box in rounded.items() if box[2] > box[0] and box[3] > box[1]}


def _matched(
    found: tuple[Detection, ...],
    told: dict[str, Any],
    boxes: dict[int, NDArray[Any]],
    their_labels: list[str],
    labels: tuple[str, ...],
) -> list[Pair]:
    """Return the owner's detections that are found."""
    left, pairs = list(found), []
    for number, box in boxes.items():
        label = their_labels[told["classes"][number]]
        same = [item for item in left if labels[item.class_id] == label]
        best = min(same, key=lambda item: _farthest(item.box, box), default=None)
        if best is not None and _farthest(best.box, box) < FAR_PX:
            left.remove(best)
            pairs.append((best, number))
    return pairs


def _farthest(ours: Any, theirs: Any) -> float:
    return float(np.abs(np.subtract(ours, theirs)).max())


def _shapes(ours: Detection, told: dict[str, Any], number: int) -> Iterator[tuple[str, float]]:
    """Yield how what a detection has beside its box agrees with the owner's."""
    masks = told.get("masks_in_the_image", {}).get("rle_of_the_first", [])
    if ours.mask is not None and number < len(masks):
        width, height = told["size"]
        pixels, theirs = ours.mask.decode(), mask_from(np.array(masks[number]), (height, width))
        yield "masks", float((pixels & theirs).sum() / (pixels | theirs).sum())
    if ours.keypoints is not None:
        yield (
            "keypoints",
            _farthest([point[:2] for point in ours.keypoints], np.array(told["keypoints"][number])[:, :2]),
        )
    if ours.rotated is not None:
        one, other = (np.array(c, np.float32).reshape(4, 2) for c in (ours.rotated.corners, told["corners"][number]))
        common, _ = cv2.intersectConvexConvex(one, other)
        yield "rotated boxes", common / (cv2.contourArea(one) + cv2.contourArea(other) - common)


def table(agreements: list[Agreement]) -> str:
    """Return the rows of all families, those that were compared with how."""
    lines = [
        "| family | whose | exported by | recognised | agreement on photographs |",
        "|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        ours = [item for item in agreements if item.family == family.name]
        if not ours:
            lines.append(f"| `{family.name}` | {family.title} | by hand, after its code | | as written down |")
        for item in ours:
            by_itself = "with `--family`" if item.is_told else "by itself"
            lines.append(f"| `{family.name}` | {family.title} | {item.exporter} | {by_itself} | {item.text} |")
    lines += [
        f"| | what its metadata says | {item.exporter} | by itself | {item.text} |"
        for item in agreements
        if not (item.family or item.shapes)
    ]
    return "\n".join(lines)


def shapes_table(agreements: list[Agreement]) -> str:
    """Return the rows of what was compared beyond boxes."""
    lines = ["| export | by | found, boxes, scores | beyond boxes |", "|---|---|---|---|"]
    for item in agreements:
        if item.shapes:
            name = item.case.removeprefix("ultralytics_").replace("_", "-")
            lines.append(f"| {name} | {item.exporter} | {item.text} | {item.shapes_text} |")
    return "\n".join(lines)


def written(document: str, rows: str, marks: tuple[str, str] = FAMILY_MARKS) -> str:
    begin, end = marks
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{rows}\n\n{end}{after}"


def agreements_of(cases: Path, photographs: Path) -> Iterator[Agreement]:
    for case in sorted(path.parent for path in cases.glob("*/expected.json")):
        if "boxes" not in next(iter(json.loads((case / "expected.json").read_text())["images"].values())):
            continue
        try:
            found = compared(case, photographs)
        except ConversionError as err:
            print(f"{case.name}: {err}", file=sys.stderr)
            continue
        print(f"{case.name}: {found.family or 'by its metadata'}: {found.text} {found.shapes_text}")
        yield found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--check", action="store_true", help="only say whether the table is as it was")
    wanted = parser.parse_args()
    agreements = [item for cases in wanted.cases for item in agreements_of(cases, wanted.photographs)]
    document = TARGET.read_text()
    found = written(written(document, table(agreements)), shapes_table(agreements), SHAPE_MARKS)
    if wanted.check:
        return int(found != document)
    TARGET.write_text(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
