"""Whether the GPU finds in photographs what Darknet itself finds with the official YOLOv3-tiny, box by box."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scripts.gpu_check import need, zoo
from scripts.gpu_check.answers import joined
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from trtjob.engines.choice import EngineKind
from trtjob.engines.protocol import Engine, UInt8Array, answer_of
from trtjob.engines.spec import ResizeMode
from trtjob.errors import TrtjobError
from trtjob.imaging.boxes import clip, iou_matrix
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import Detection
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import prepare

MODEL = "yolov3-tiny"
DOCUMENT = "yolov3-tiny-coco.json"
ENGINES: tuple[EngineKind, ...] = ("cpu", *need.ON_GPU)
MODES = (ResizeMode.STRETCH, ResizeMode.LETTERBOX)
LEAST_SCORE = 0.15  # Darknet's own list begins at 0.1: what is beside its end may be missing
# As tests/converters/darknet has them for the CPU; half precision and int8 move more.
TOLERANCES = {"fp32": (0.95, 0.03), "fp16": (0.95, 0.03), "int8": (0.7, 0.25)}
LEAST_FOUND = {"fp32": 1.0, "fp16": 1.0, "int8": 0.8}
MAX_PIXELS = 1_000_000_000


def check(options: CheckOptions) -> Iterator[Row]:
    if options.darknet is None or options.images is None:
        raise NotRun("Darknet's results and their photographs are not here: name them with --darknet and --images")
    document = json.loads((options.darknet / DOCUMENT).read_text())
    for kind in ENGINES:
        name = f"{MODEL}, {kind}"
        try:
            need.engine(kind)
            rows = [_row(kind, precision, document, options.images, options) for precision in zoo.PRECISIONS]
        except NotRun as err:
            yield Row(name, State.NOT_RUN, note=str(err))
        except TrtjobError as err:
            yield Row(name, State.FAILED, note=str(err))
        else:
            yield joined(name, rows)


def _row(kind: EngineKind, precision: str, document: dict[str, Any], images: Path, options: CheckOptions) -> Row:
    """Return how many of Darknet's detections an engine finds. Raises NotRun, EngineError."""
    wanted = found = 0
    iou, score = TOLERANCES[precision]
    with need.opened(zoo.converted(MODEL, precision, options), options, kind) as engine:
        for photograph, by_mode in document.items():
            image = decode_image((images / photograph).read_bytes(), max_pixels=MAX_PIXELS)
            for mode in MODES:
                expected = [item for item in by_mode[mode.value] if item["score"] >= LEAST_SCORE]
                wanted += len(expected)
                found += _found(expected, detections(engine, image, mode), image.shape[:2], iou=iou, score=score)
    is_enough = found >= LEAST_FOUND[precision] * wanted
    return Row(precision, State.OK if is_enough else State.FAILED, f"{found} of {wanted}")


def detections(engine: Engine, image: UInt8Array, mode: ResizeMode) -> tuple[Detection, ...]:
    """Return an image's detections as a worker makes them."""
    spec = engine.spec
    tensor, placement = prepare(image, spec, mode)
    hw = (image.shape[0], image.shape[1])
    return detections_from(
        answer_of(engine, tensor), placement, spec, hw=hw, min_score=spec.min_score, iou=spec.iou
    ).detections


def _found(
    expected: list[dict[str, Any]], there: tuple[Detection, ...], hw: tuple[int, ...], *, iou: float, score: float
) -> int:
    """Return how many of Darknet's detections, clipped to the image as ours are, are among ours."""
    if not expected or not there:
        return 0
    boxes = clip(np.array([item["box"] for item in expected], np.float32), (hw[0], hw[1]))
    overlaps = iou_matrix(boxes, np.array([item.box for item in there], np.float32))
    classes = np.array([[item["class_id"] == other.class_id for other in there] for item in expected])
    scores = np.array([[abs(item["score"] - other.score) <= score for other in there] for item in expected])
    return int(((overlaps >= iou) & classes & scores).any(1).sum())
