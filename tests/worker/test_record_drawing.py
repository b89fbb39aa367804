"""What is drawn of an image's record, be it a picture or a frame of a video."""

import dataclasses

import numpy as np
import pytest

from trtjob.imaging.detections import Classification, Detection
from trtjob.imaging.draw import color_of
from trtjob.jobs.records import Record
from trtjob.jobs.spec import Options
from trtjob.worker.record_drawing import RecordDrawing

SCORES = (0.9, 0.5, 0.02)
CLASSES = tuple(Classification(f"class {number}", number, score) for number, score in enumerate(SCORES))
UNSURE = tuple(dataclasses.replace(each, score=each.score / 10) for each in CLASSES)
BOXES = tuple(
    Detection(each.label, each.class_id, each.score, (20.0 + 90 * number, 60.0, 90.0 + 90 * number, 180.0))
    for number, each in enumerate(CLASSES)
)


@pytest.mark.parametrize(
    ("record", "drawn"),
    [
        (Record("a.jpg", classes=CLASSES), [0, 1]),
        (Record("a.jpg", classes=UNSURE), [0]),
        (Record("a.jpg", classes=()), []),
        (Record("a.jpg", labels=CLASSES), [0, 1]),
        (Record("a.jpg", labels=UNSURE), []),
        (Record("a.jpg", detections=BOXES), [0, 1]),
    ],
    ids=["sure", "the best", "no class", "labels", "unsure labels", "boxes"],
)
def test_what_counts_is_drawn_and_the_best_class(record: Record, drawn: list[int]) -> None:
    options = Options(conf=0.25, min_score=0.01, iou=0.45, resize="stretch")
    image = RecordDrawing(options, ()).draw(np.zeros((240, 320, 3), np.uint8), record)
    assert [number for number in range(3) if (image == color_of(number)).all(2).sum() > 50] == drawn
