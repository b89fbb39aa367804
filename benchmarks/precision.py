"""What lower precisions gain on this CPU, and what they cost: int8 against float32 by turns, and mAP on the digits."""

import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from benchmarks.table import Row
from trtjob.bench.synthetic_images import write_pictures
from trtjob.converters.calibration_images import Samples, chosen_images
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.engines.onnxruntime.cpu import CpuEngine, open_engine
from trtjob.engines.protocol import answer_of
from trtjob.engines.spec import Precision
from trtjob.imaging.decode import decode_image
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import prepare

GOAL_SPEED = 1.3
GOAL_LOSS = {"fp16": 0.2, "int8": 1.0}  # points of mAP
_DIGITS = Path(__file__).parents[1] / "examples" / "digits"
_SCENES = _DIGITS / "scenes"


def precision(
    registry: ModelRegistry, weights: Path, digits: Path, scenes: Path, photos: Path, count: int
) -> list[Row]:
    """Return the rows of int8's speed, of a model calibrated on photos, and of the digits' accuracy on scenes.

    scenes: a folder that examples/digits/scenes.py wrote; the calibration has only the sample's own scenes.
    photos: a folder of images like those that the model was trained for; generated pictures are added.
    """
    return [*_speed(registry, weights, photos, count), *_accuracy(registry, digits, scenes)]


def _lowered(registry: ModelRegistry, model: Path, kind: Precision, images: Path) -> RegisteredModel:
    request = ConversionRequest(model=model, precision=kind, calibrate=images, name=f"{model.stem}-{kind}")
    return convert_model(request, registry=registry)


def _speed(registry: ModelRegistry, weights: Path, photos: Path, count: int) -> list[Row]:
    plain = convert_model(ConversionRequest(model=weights), registry=registry)
    with tempfile.TemporaryDirectory() as temporary:
        images = photos if photos.is_dir() else write_pictures(Path(temporary) / "pictures", "640x480", 12)
        low = _lowered(registry, weights, "int8", images)
        samples = list(Samples(chosen_images(images, 12), plain.spec))
    with open_engine(plain.path, threads=1) as engine, open_engine(low.path, threads=1) as int8:
        times: dict[CpuEngine, list[float]] = {engine: [], int8: []}
        for index in range(count):
            for each in times:
                started = time.thread_time()
                answer_of(each, samples[index % len(samples)])
                times[each].append(time.thread_time() - started)
    # The best of many: whatever else the machine does can only add to it.
    before, after = (min(values) * 1000 for values in times.values())
    parity = low.spec.parity
    assert parity is not None  # of every lowered model
    note = f"{before:.1f} to {after:.1f} CPU-ms; found again {parity.matched}, apart by {parity.max_abs}"
    ratio = before / after
    return [Row(f"int8 against float32, {weights.stem}", ratio, "x", f">= {GOAL_SPEED:g}", ratio >= GOAL_SPEED, note)]


def _accuracy(registry: ModelRegistry, digits: Path, scenes: Path) -> list[Row]:
    evaluate = _evaluate()
    plain = _points(evaluate, convert_model(ConversionRequest(model=digits), registry=registry), scenes)
    rows = [Row("mAP of the digits, float32", plain, "points")]
    for kind in ("fp16", "int8"):
        points = _points(evaluate, _lowered(registry, digits, kind, _SCENES), scenes)
        goal = GOAL_LOSS[kind]
        row = Row(
            f"mAP lost, {kind}", plain - points, "points", f"<= {goal:g}", plain - points <= goal, f"{points:.2f}"
        )
        rows.append(row)
    return rows


def _points(evaluate: ModuleType, model: RegisteredModel, scenes: Path) -> float:
    """Return the mAP of a model on scenes, in points of 100."""
    names, wanted = evaluate.read_truth(scenes / "truth.json")
    found = []
    with open_engine(model.path, threads=1) as engine:
        spec = engine.spec
        for name in sorted(names):
            image = decode_image((scenes / name).read_bytes(), max_pixels=10_000_000)
            tensor, placement = prepare(image, spec, spec.resize)
            hw = (image.shape[0], image.shape[1])
            detections, _ = detections_from(
                answer_of(engine, tensor), placement, spec, hw=hw, min_score=spec.min_score, iou=spec.iou
            )
            found += [evaluate.Found(name, item.label, item.score, item.box) for item in detections]
    return 100 * float(evaluate.mean_average_precision(found, wanted))


def _evaluate() -> ModuleType:
    """Return the sample's own measure of accuracy, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("digits_evaluate", _DIGITS / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
