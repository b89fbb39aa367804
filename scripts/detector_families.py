"""Compare detectors of other families with their owners' own predictions, and write the table in docs/models.md.

    python -m scripts.detector_families CASES/ PHOTOGRAPHS/ [--check]

CASES/ has a folder for each: model.onnx, and expected.json with the owner's labels, boxes and scores on photographs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trtjob.converters.onnx.families import FAMILIES
from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import answer_of
from trtjob.errors import ConversionError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import Detection
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import prepare

TARGET = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- families -->", "<!-- end of families -->"
MAX_PIXELS = 200_000_000
FAR_PX = 20.0  # further apart are two detections
NEAR_CONF = 0.01  # so near to the threshold one may be found or not


@dataclass(frozen=True, slots=True)
class Agreement:
    """How ours compare with the owner's: those that are missing or too many, and the largest differences."""

    family: str
    exporter: str
    wanted: int
    missing: int
    extra: int
    boxes_px: float
    scores: float

    @property
    def text(self) -> str:
        found = "all found" if not self.missing + self.extra else f"{self.missing} missing, {self.extra} too many"
        return f"{found} of {self.wanted}, {self.boxes_px:.2f} px, {self.scores:.4f}"


def compared(case: Path, photographs: Path) -> Agreement:
    """Convert a case's model and compare what it finds. Raises ConversionError."""
    expected = json.loads((case / "expected.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.names"
        labels.write_text("\n".join(expected["labels"]) + "\n")
        says_labels = (case / "config.json").exists() or ("imgsz" in expected and "ultralytics" in expected["family"])
        request: dict[str, Any] = {"model": case / "model.onnx", "name": "case"}
        if not says_labels:
            request["labels"] = labels
        first = next(iter(expected["images"].values()))["size"]
        try:
            model = convert_model(ConversionRequest(**request), registry=ModelRegistry(Path(folder) / "models"))
        except ConversionError as err:
            if "--size" not in str(err):
                raise
            request["size"] = (first[1], first[0])
            model = convert_model(ConversionRequest(**request), registry=ModelRegistry(Path(folder) / "models"))
        note = next((word for family in FAMILIES if (word := family.name) in " ".join(_notes(case, request))), "")
        pairs, missing, extra, wanted = [], 0, 0, 0
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
                ).detections
                ours = _matched(found, told, expected["labels"], model.spec.labels, image.shape[:2])
                pairs += ours
                wanted += len(told["boxes"])
                missing += len(told["boxes"]) - len(ours)
                extra += sum(item.score > expected["conf"] + NEAR_CONF for item in found) - len(ours)
    boxes, scores = zip(*pairs, strict=True) if pairs else ((0.0,), (0.0,))
    return Agreement(note, expected["family"], wanted, missing, max(0, extra), max(boxes), max(scores))


def _notes(case: Path, request: dict[str, Any]) -> tuple[str, ...]:
    from trtjob.converters.onnx.convert import convert

    return tuple(note for note in convert(ConversionRequest(**request)).notes if "--family" in note)


def _matched(
    found: tuple[Detection, ...],
    told: dict[str, Any],
    their_labels: list[str],
    labels: tuple[str, ...],
    hw: tuple[int, ...],
) -> list[tuple[float, float]]:
    """Return the distances, in pixels and in scores, of the owner's detections that are found."""
    height, width = hw
    left, pairs = list(found), []
    for box, score, number in zip(told["boxes"], told["scores"], told["classes"], strict=True):
        clipped = np.clip(box, 0, [width, height, width, height])
        same = [item for item in left if labels[item.class_id] == their_labels[number]]
        best = min(same, key=lambda item: float(np.abs(item.box - clipped).max()), default=None)
        if best is not None and (off := float(np.abs(np.array(best.box) - clipped).max())) < FAR_PX:
            left.remove(best)
            pairs.append((off, abs(best.score - score)))
    return pairs


def table(agreements: list[Agreement]) -> str:
    """Return the rows of all families, those that were compared with how."""
    lines = ["| family | whose | compared with the owner's own predictions |", "|---|---|---|"]
    for family in FAMILIES:
        ours = [f"{item.exporter}: {item.text}" for item in agreements if item.family == family.name]
        lines.append(f"| `{family.name}` | {family.title} | {'; '.join(ours) or 'not yet: graphs by hand'} |")
    return "\n".join(lines)


def written(document: str, rows: str) -> str:
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{rows}\n\n{END}{after}"


def agreements_of(cases: Path, photographs: Path) -> Iterator[Agreement]:
    for case in sorted(path.parent for path in cases.glob("*/expected.json")):
        if "boxes" not in next(iter(json.loads((case / "expected.json").read_text())["images"].values())):
            continue
        try:
            found = compared(case, photographs)
        except ConversionError as err:
            print(f"{case.name}: {err}", file=sys.stderr)
            continue
        print(f"{case.name}: {found.family or 'by its metadata'}: {found.text}")
        if found.family:
            yield found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--check", action="store_true", help="only say whether the table is as it was")
    wanted = parser.parse_args()
    document = TARGET.read_text()
    found = written(document, table(list(agreements_of(wanted.cases, wanted.photographs))))
    if wanted.check:
        return int(found != document)
    TARGET.write_text(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
