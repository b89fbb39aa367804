"""Measure mAP of trtjob's results against the truth of the scenes.

    python examples/digits/evaluate.py RESULTS.jsonl TRUTH.json

Average precision of a label is the area under its precision-recall curve, the precision at each recall being the best
one at that recall or a higher one, summed over every point where the recall changes (the rule of PASCAL VOC from 2010
on). Detections are taken from the highest score down, over all scenes; one is right where the truth of its label that
it overlaps most, IoU >= 0.5, has not been found before. mAP is the mean over the labels that occur in the truth.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Found:
    """A detection; box: xyxy in pixels of the image."""

    image: str
    label: str
    score: float
    box: Box


@dataclass(frozen=True, slots=True)
class Wanted:
    """A digit that is there; box: xyxy in pixels of the image."""

    image: str
    label: str
    box: Box


def read_results(path: Path) -> tuple[set[str], list[Found]]:
    """Return the images of a results.jsonl and their detections; raises ValueError at any other record."""
    images: set[str] = set()
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "detections" not in record:
            raise ValueError(f"{path}: '{record['image']}' has no detections: {record.get('error', 'a classifier?')}")
        images.add(record["image"])
        found += [
            Found(record["image"], item["label"], item["score"], tuple(item["box"])) for item in record["detections"]
        ]
    return images, found


def read_truth(path: Path) -> tuple[set[str], list[Wanted]]:
    """Return the images of a truth.json and what is in them."""
    truth = json.loads(path.read_text(encoding="utf-8"))
    return set(truth), [
        Wanted(image, item["label"], tuple(item["box"])) for image, items in truth.items() for item in items
    ]


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes; 0 where the union is empty."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def average_precision(found: list[Found], wanted: list[Wanted], *, min_iou: float = 0.5) -> float:
    """Return the average precision of one label's detections; NaN where there is nothing to find."""
    if not wanted:
        return math.nan
    by_image: dict[str, list[Box]] = {}
    for truth in wanted:
        by_image.setdefault(truth.image, []).append(truth.box)
    taken: set[tuple[str, int]] = set()
    precisions, recalls = [], []
    right = 0
    for rank, detection in enumerate(sorted(found, key=lambda item: -item.score), start=1):
        overlaps = [iou(detection.box, box) for box in by_image.get(detection.image, [])]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=-1)
        if best >= 0 and overlaps[best] >= min_iou and (detection.image, best) not in taken:
            taken.add((detection.image, best))
            right += 1
        precisions.append(right / rank)
        recalls.append(right / len(wanted))
    return _area(precisions, recalls)


def _area(precisions: list[float], recalls: list[float]) -> float:
    """Return the area under the falling envelope of a precision-recall curve."""
    area = best_so_far = 0.0
    for index in range(len(recalls) - 1, -1, -1):
        best_so_far = max(best_so_far, precisions[index])
        area += best_so_far * (recalls[index] - (recalls[index - 1] if index else 0.0))
    return area


def average_precisions(found: list[Found], wanted: list[Wanted], *, min_iou: float = 0.5) -> dict[str, float]:
    """Return the average precision of each label that occurs in the truth."""
    labels = sorted({truth.label for truth in wanted})
    return {
        label: average_precision(
            [item for item in found if item.label == label],
            [item for item in wanted if item.label == label],
            min_iou=min_iou,
        )
        for label in labels
    }


def mean_average_precision(found: list[Found], wanted: list[Wanted], *, min_iou: float = 0.5) -> float:
    """Return the mean of `average_precisions`; NaN where the truth is empty."""
    each = average_precisions(found, wanted, min_iou=min_iou)
    return sum(each.values()) / len(each) if each else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure mAP of a results.jsonl against a truth.json.")
    parser.add_argument("results", type=Path, help="results.jsonl of a job over the scenes' folder")
    parser.add_argument("truth", type=Path, help="truth.json of the scenes")
    parser.add_argument("--iou", type=float, default=0.5, help="overlap from which a box is right (default: 0.5)")
    arguments = parser.parse_args()
    images, found = read_results(arguments.results)
    expected, wanted = read_truth(arguments.truth)
    if images != expected:
        differing = sorted(images ^ expected)
        raise SystemExit(
            f"results and truth are of different images: {len(differing)} differ, such as '{differing[0]}'"
        )
    for label, value in average_precisions(found, wanted, min_iou=arguments.iou).items():
        print(f"{label}  AP {value:.4f}  of {sum(item.label == label for item in wanted)}")
    mean = mean_average_precision(found, wanted, min_iou=arguments.iou)
    print(f"mAP@{arguments.iou} {mean:.4f} on {len(images)} scenes")


if __name__ == "__main__":
    main()
