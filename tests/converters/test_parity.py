import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from trtjob.converters.artefact import Reference
from trtjob.converters.calibration_images import GENERATED, Samples
from trtjob.converters.parity import LIMITS, Measured, check_parity, measure
from trtjob.engines.protocol import FloatArray, Outputs, UInt8Array
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, ModelSpec, NmsKind, Parity, Precision, Task
from trtjob.errors import ConversionError

HW = (100, 200)
DETECTOR = ModelSpec(task=Task.DETECT, labels=("cat", "dog"), input_hw=HW, min_score=0.05, conf=0.25, candidates=99)
CLASSIFIER = ModelSpec(task=Task.CLASSIFY, labels=tuple("abcdefgh"), input_hw=HW)

Found = tuple[float, float, float, float, int, float]  # x1, y1, x2, y2, class, score
CAT: Found = (10, 10, 50, 50, 0, 0.9)
DOG: Found = (100, 20, 180, 90, 1, 0.6)


def outputs(*found: Found) -> Outputs:
    """Return a detector's answer for one image."""
    boxes = np.zeros((1, 8, 4), np.float32)
    scores = np.zeros((1, 8, 2), np.float32)
    for row, (*box, class_id, score) in enumerate(found):
        boxes[0, row] = box
        scores[0, row, int(class_id)] = score
    return Outputs(boxes, scores)


def compared(spec: ModelSpec, expected: Outputs, found: Outputs) -> Measured:
    """Measure a model against a reference, which both give the same answer for every image."""
    return measure(spec, Samples((), spec), lambda _: found, Reference("the truth", lambda _: expected), lambda _: None)


def parity_of(expected: Outputs, found: Outputs) -> Parity:
    return compared(DETECTOR, expected, found).parity


# --- detectors


def test_equal_answers_differ_in_nothing() -> None:
    parity = parity_of(outputs(CAT, DOG), outputs(CAT, DOG))
    assert parity == Parity(
        reference="the truth",
        inputs="8 generated images",
        images=GENERATED,
        max_abs={BOXES_NAME: 0.0, SCORES_NAME: 0.0},
        matched=1.0,
    )


def test_differences_are_the_largest_of_all_matched_detections() -> None:
    found = outputs((10, 10, 52.5, 50, 0, 0.8), (101, 20, 180, 90, 1, 0.55))
    parity = parity_of(outputs(CAT, DOG), found)
    assert (parity.matched, parity.max_abs) == (1.0, {BOXES_NAME: 2.5, SCORES_NAME: 0.1})


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([CAT], id="one is missing"),
        pytest.param([CAT, (*DOG[:4], 0, 0.6)], id="one has another class"),
        pytest.param([CAT, (140, 20, 220, 90, 1, 0.6)], id="one lies elsewhere"),
        pytest.param([CAT, (*DOG[:5], 0.04)], id="one would not be stored"),
    ],
)
def test_what_is_not_found_again_lowers_the_share(found: list[Found]) -> None:
    assert parity_of(outputs(CAT, DOG), outputs(*found)).matched == 0.5


def test_what_the_reference_does_not_show_need_not_be_found() -> None:
    assert parity_of(outputs(CAT, (*DOG[:5], 0.2)), outputs(CAT)).matched == 1.0


def test_a_score_that_falls_below_the_display_threshold_is_a_difference_and_no_loss() -> None:
    parity = parity_of(outputs((*CAT[:5], 0.26)), outputs((*CAT[:5], 0.24)))
    assert (parity.matched, parity.max_abs[SCORES_NAME]) == (1.0, 0.02)


def test_overlapping_detections_are_compared_before_suppression_hides_them() -> None:
    twin: Found = (11, 10, 51, 50, 0, 0.85)
    assert parity_of(outputs(CAT, twin), outputs(CAT, twin)).matched == 1.0


def test_one_detection_is_not_found_twice() -> None:
    left, right = (10.0, 10.0, 50.0, 50.0, 0, 0.9), (22.0, 10.0, 62.0, 50.0, 0, 0.8)
    spec = DETECTOR.model_copy(update={"iou": 0.6})  # both stay
    expected, found = outputs(left, right), outputs((16, 10, 56, 50, 0, 0.9))
    assert compared(spec, expected, found).parity.matched == 0.5


@pytest.mark.slow
def test_keypoints_corners_and_masks_are_compared_too() -> None:
    def said(extras: list[float], **prototypes: FloatArray) -> Outputs:
        boxed = outputs(CAT)
        return replace(boxed, extras=np.tile(np.array(extras, np.float32), (1, 8, 1)), **prototypes)

    pose = DETECTOR.model_copy(update={"keypoints": ("head",)})
    assert compared(pose, said([20, 30]), said([20, 32])).parity.max_abs["keypoints"] == 2.0
    turned = DETECTOR.model_copy(update={"is_rotated": True, "nms_kind": NmsKind.PROBIOU})
    assert compared(turned, said([0.0]), said([0.0])).parity.max_abs["corners"] == 0.0
    assert compared(turned, said([0.0]), said([0.1])).parity.max_abs["corners"] > 1
    masks = DETECTOR.model_copy(update={"prototypes": (1, 25, 50)})
    whole, half = np.ones((1, 1, 25, 50), np.float32), np.ones((1, 1, 25, 50), np.float32)
    half[..., 8:, :] = -1
    far = compared(masks, said([1], prototypes=whole), said([1], prototypes=half)).parity
    assert far.max_abs["masks"] == pytest.approx(0.45)
    assert compared(masks, said([1], prototypes=whole), said([1], prototypes=whole)).parity.max_abs["masks"] == 0
    worse = far.model_copy(update={"max_abs": {**far.max_abs, "masks": 0.5}})
    assert any("masks differ by up to 0.5" in problem for problem in check_parity(masks, worse, strict=False))


def test_where_the_reference_detects_nothing_there_is_no_share() -> None:
    parity = parity_of(outputs(), outputs(CAT))
    assert (parity.matched, parity.max_abs) == (None, {})


# --- classifiers


def scores(*values: float) -> Outputs:
    return Outputs(None, np.array([values], np.float32))


@pytest.mark.parametrize(
    ("found", "top1", "top5", "difference"),
    [
        pytest.param([0.4, 0.2, 0.1, 0.08, 0.07, 0.06, 0.05, 0.04], 1.0, 1.0, 0.0, id="the same"),
        pytest.param([0.2, 0.4, 0.1, 0.08, 0.07, 0.06, 0.05, 0.04], 0.0, 1.0, 0.2, id="another best"),
        pytest.param([0.4, 0.2, 0.1, 0.08, 0.05, 0.06, 0.07, 0.04], 1.0, 0.0, 0.02, id="another among five"),
        pytest.param([0.4, 0.1, 0.2, 0.08, 0.07, 0.06, 0.05, 0.04], 1.0, 1.0, 0.1, id="another order of five"),
    ],
)
def test_a_classifiers_best_classes_are_compared(
    found: list[float], top1: float, top5: float, difference: float
) -> None:
    expected = scores(0.4, 0.2, 0.1, 0.08, 0.07, 0.06, 0.05, 0.04)
    parity = compared(CLASSIFIER, expected, scores(*found)).parity
    assert (parity.top1, parity.top5, parity.matched) == (top1, top5, None)
    assert parity.max_abs == {SCORES_NAME: pytest.approx(difference, abs=1e-3)}


def test_a_share_of_the_images_is_a_share() -> None:
    answers = iter([scores(1, 0, 0, 0, 0, 0, 0, 0)] * 3 + [scores(0, 1, 0, 0, 0, 0, 0, 0)] * (GENERATED - 3))
    reference = Reference("the truth", lambda _: scores(1, 0, 0, 0, 0, 0, 0, 0))
    measured = measure(CLASSIFIER, Samples((), CLASSIFIER), lambda _: next(answers), reference, lambda _: None)
    assert measured.parity.top1 == 3 / GENERATED


# --- the record


def test_numbers_are_rounded_so_that_the_record_is_the_same_on_every_machine() -> None:
    parity = parity_of(outputs(CAT), outputs((10, 10, 50, 50, 0, 0.9 - 0.0123456)))
    assert json.loads(parity.model_dump_json())["max_abs"][SCORES_NAME] == 0.0123


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("whose", ["reference", "model"])
def test_answers_that_are_no_numbers_are_refused(value: float, whose: str) -> None:
    good, bad = outputs(CAT), outputs((*CAT[:5], value))
    expected, found = (bad, good) if whose == "reference" else (good, bad)
    with pytest.raises(ConversionError, match="answers are not numbers"):
        parity_of(expected, found)


def test_each_image_is_run_by_both_and_is_a_step() -> None:
    seen: list[UInt8Array] = []
    steps: list[int] = []

    def run(images: UInt8Array) -> Outputs:
        seen.append(images)
        return outputs(CAT)

    measure(DETECTOR, Samples((), DETECTOR), run, Reference("the truth", run), steps.append)
    assert steps == list(range(1, GENERATED + 1))
    assert {images.shape for images in seen} == {(1, *HW, 3)}
    assert all(np.array_equal(a, b) for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_a_reference_that_takes_memory_is_closed_before_the_model_runs() -> None:
    steps: list[str] = []

    def noted(name: str) -> Callable[[UInt8Array], Outputs]:
        return lambda _images: steps.append(name) or outputs(CAT)  # type: ignore[func-returns-value]

    reference = Reference("the truth", noted("reference"), lambda: steps.append("closed"))
    measure(DETECTOR, Samples((), DETECTOR), noted("model"), reference, lambda _: None)
    assert steps == [*["reference"] * GENERATED, "closed", *["model"] * GENERATED]


def test_the_cpu_time_of_both_is_measured() -> None:
    def work(amount: int) -> FloatArray:
        values: NDArray[np.float64] = np.ones(amount)
        for _ in range(20):
            values = np.sqrt(values + 1)
        return values.astype(np.float32)

    def slow(_images: UInt8Array) -> Outputs:
        work(400_000)
        return outputs(CAT)

    def quick(_images: UInt8Array) -> Outputs:
        work(1000)
        return outputs(CAT)

    measured = measure(DETECTOR, Samples((), DETECTOR), quick, Reference("the truth", slow), lambda _: None)
    assert 0 <= measured.cpu_ms < measured.reference_cpu_ms


# --- what is too far


def record(**values: float | None) -> Parity:
    """Return a record that keeps every limit but for what is given."""
    max_abs = {name: values.pop(name) for name in (BOXES_NAME, SCORES_NAME) if name in values}
    fields = {"matched": 1.0, **values}
    return Parity(reference="the truth", inputs="8 images", images=8, max_abs=max_abs, **fields)


BAD = {
    "detections lost": (record(matched=0.5), "50.0% of its detections are found again, expected"),
    "scores": (record(scores=0.9), "scores differ by up to 0.9, expected"),
    "boxes": (record(boxes=99.0), "boxes differ by up to 99, expected"),
    "another best class": (record(matched=None, top1=0.5), "50.0% of the images have the same best class, expected"),
    "nothing to compare": (record(matched=None), "the reference detects nothing in them"),
}


def spec_for(parity: Parity, precision: Precision) -> ModelSpec:
    spec = DETECTOR if parity.top1 is None else CLASSIFIER
    return spec.model_copy(update={"precision": precision})


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(("parity", "message"), BAD.values(), ids=BAD)
def test_what_is_too_far_is_noted(parity: Parity, message: str, precision: Precision) -> None:
    (note,) = check_parity(spec_for(parity, precision), parity, strict=False)
    assert note.startswith(f"The {precision} model, compared with the truth on 8 images: {message}")


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(("parity", "message"), BAD.values(), ids=BAD)
def test_what_is_too_far_fails_where_strictness_is_asked_for(
    parity: Parity, message: str, precision: Precision
) -> None:
    with pytest.raises(ConversionError, match=f"{message}.*Without --strict this is a warning"):
        check_parity(spec_for(parity, precision), parity, strict=True)


def test_what_could_not_be_compared_is_no_reason_to_report_anything() -> None:
    parity = record(matched=None)
    (note,) = check_parity(spec_for(parity, "fp32"), parity, strict=False)
    assert note.endswith("name a folder of images in which there is something with --calibrate.")


@pytest.mark.parametrize("precision", LIMITS)
def test_what_keeps_the_limits_is_not_spoken_of(precision: Precision) -> None:
    limits = LIMITS[precision]
    good = record(matched=limits.agreeing, scores=limits.scores, boxes=limits.boxes)
    assert check_parity(spec_for(good, precision), good, strict=True) == ()


def test_all_that_is_too_far_is_told_at_once() -> None:
    parity = record(matched=0.1, scores=0.9)
    with pytest.raises(ConversionError, match=r"10.0% of its detections .*; scores differ by up to 0.9"):
        check_parity(spec_for(parity, "int8"), parity, strict=True)


def test_a_tiny_models_candidates_need_no_order() -> None:
    """The same candidates in another order are the same answer."""
    found = outputs(DOG, CAT)
    assert parity_of(outputs(CAT, DOG), found).max_abs == {BOXES_NAME: 0.0, SCORES_NAME: 0.0}
