"""The families of detectors that say nothing of themselves: each known by its graph, described, and rewired."""

from collections.abc import Sequence
from dataclasses import replace

from trtjob.converters.onnx.families import (
    anchored,
    azure,
    boxes,
    huggingface,
    mmdeploy,
    paddle,
    rfdetr,
    rtdetr,
    supergradients,
    tensorflow,
    torchvision,
    ultralytics_rtdetr,
    yolo,
    yolov3,
    yolox,
)
from trtjob.converters.onnx.families.family import Family, Seen
from trtjob.converters.request import ConversionRequest
from trtjob.errors import ConversionError

# The first that recognises a graph has it: those with telling names come before those that go by shapes.
FAMILIES: tuple[Family, ...] = (
    ultralytics_rtdetr.FAMILY,
    rtdetr.FAMILY,
    huggingface.FAMILY,
    rfdetr.FAMILY,
    mmdeploy.FAMILY,
    supergradients.BATCH,
    supergradients.FLAT,
    tensorflow.FAMILY,
    azure.FAMILY,
    azure.COMPACT,
    yolov3.FAMILY,
    paddle.FAMILY,
    torchvision.FAMILY,
    yolo.END2END,
    yolo.YOLOV6_END2END,
    yolo.YOLOV6,
    yolox.FAMILY,
    yolo.GRID,
    yolo.COLUMNS,
    yolo.FINAL,
    anchored.YOLOV5_HEADS,
    anchored.YOLOV7_HEADS,
    anchored.YOLOV4,
    anchored.YOLOV2,
    anchored.TINY_YOLOV2,
    boxes.FAMILY,
)


def family_of(seen: Seen, request: ConversionRequest) -> Family | None:
    """Return the family that is asked for, or that a graph shows; None where it shows none. Raises ConversionError."""
    if request.family is None:
        _expect_anchors(FAMILIES, seen, request)
        found = next((family for family in FAMILIES if family.recognises(seen)), None)
        fitting = [family for family in FAMILIES if family.fits(seen)]
        if found is None and (seen.is_no_classifier or (fitting and len(seen.outputs) > 1)):
            if not fitting:
                _expect_labels(FAMILIES, seen, request)
                return None
            raise ConversionError(
                f"'{request.model}' looks like a detector, but does not say which. Its outputs: {seen.outputs_shown}. "
                f"It may be {' or '.join(f'--family {family.name} ({family.title})' for family in fitting)}. Say it, "
                f"with --labels FILE; --families lists what each needs{_and_anchors(fitting)}"
            )
        return found
    for family in FAMILIES:
        if family.name == request.family:
            _expect_anchors([family], seen, request)
            if not family.fits(seen):
                _expect_labels([family], seen, request)
                raise ConversionError(
                    f"--family {family.name}: '{request.model}' does not fit: expected {family.gives}. "
                    f"Its outputs: {seen.outputs_shown}. Name another (--families lists them), or leave --family out"
                )
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise ConversionError(f"--family {request.family}: there is no such family. Known are {known}")


def _and_anchors(families: Sequence[Family]) -> str:
    """Return what else to say of families that differ in their anchors alone."""
    if any(family.anchors is None for family in families):
        return ""
    return ". Where training has chosen the anchors, give them with --anchors, and no family"


def _expect_anchors(families: Sequence[Family], seen: Seen, request: ConversionRequest) -> None:
    """Raise ConversionError where anchors are given, and none of these families has so many."""
    if request.anchors is None:
        return
    counts = [family.anchors(seen) for family in families if family.anchors is not None]
    if not counts:
        raise ConversionError(
            f"--anchors is for families whose heads are not decoded, but {families[0].title} has none. Leave it out"
        )
    given, wanted, heads = len(request.anchors), max(counts), len(seen.outputs)
    if not wanted:
        raise ConversionError(
            f"--anchors is for heads that are not decoded, and '{request.model}' has none that are known. Its outputs: "
            f"{seen.outputs_shown}. Leave --anchors out; are its labels as many as its classes?"
        )
    if given != 2 * wanted:
        raise ConversionError(
            f"--anchors: {given} numbers, but in '{request.model}' {heads} {'heads have' if heads > 1 else 'head has'} "
            f"{wanted} anchors: expected {2 * wanted}, a width and a height of each, those of the finest head first"
        )


def _expect_labels(families: Sequence[Family], seen: Seen, request: ConversionRequest) -> None:
    """Raise ConversionError where a graph is of one of these families, but for the number of its labels."""
    unlabelled = replace(seen, classes=0)
    for family in families:
        is_its_own = family.recognises if request.family is None else family.fits
        classes = family.classes(unlabelled) if is_its_own(unlabelled) else seen.classes
        if classes != seen.classes:
            raise ConversionError(
                f"'{request.model}', taken for {family.title} (--family {family.name}), gives scores of {classes} "
                f"classes, but there are {seen.classes} labels. Name a file with as many of them with --labels FILE"
            )
