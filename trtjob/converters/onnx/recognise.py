"""Find out what a foreign model is: its size, what it wants of a pixel, what its output means, and its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtjob.converters.cropping import crop_ratio
from trtjob.converters.labels import expect_count
from trtjob.converters.onnx.classifier import exported_classifier, plain_classifier
from trtjob.converters.onnx.detector import Detector, detector_from
from trtjob.converters.onnx.facts import (
    Recognised,
    input_hw,
    known_hw,
    known_labels,
    made_up_images,
    named_labels,
    raw_outputs,
)
from trtjob.converters.onnx.families.boxes import FAMILY as ANY_FAMILY
from trtjob.converters.onnx.families.family import Described
from trtjob.converters.onnx.files import NAMES_KEY
from trtjob.converters.onnx.keypoints import keypoint_names, skeleton_of
from trtjob.converters.onnx.outputs import Answer, Layout, layout_of
from trtjob.converters.onnx.pixels import pixels_from
from trtjob.converters.onnx.reference import Original
from trtjob.converters.onnx.signature import Foreign, foreign_from, image_input, shape_of
from trtjob.converters.onnx.ultralytics import CONF, IOU, PAD_VALUE, YOLOV5_IOU, Export, is_rtdetr
from trtjob.converters.pixels import unit_pixels
from trtjob.converters.request import USUAL_CANDIDATES, ConversionRequest
from trtjob.converters.texts import shown
from trtjob.engines.spec import ModelSpec, NmsKind, ResizeMode, Sampling, Task
from trtjob.errors import ConversionError

_BACKGROUND = frozenset({"background", "bg"})


def recognised(
    foreign: Foreign, export: Export | None, metadata: Mapping[str, str], request: ConversionRequest
) -> Recognised:
    """Return what a foreign model is, from what it says of itself, what it is seen to do, and what the user says.

    Raises ConversionError.
    """
    if export is None:
        return plain_classifier(foreign, metadata, request)
    if export.task is Task.CLASSIFY or (export.is_yolov5 and len(shape_of(foreign.output) or ()) == 2):
        return exported_classifier(foreign, export, metadata, request)
    return _detector(foreign, export, metadata, request)


def detector_of(
    model: ModelProto, metadata: Mapping[str, str], request: ConversionRequest, described: Described | None = None
) -> Detector | None:
    """Return a detector by its family: one that is asked for, or a graph that says nothing of itself and shows one.

    described: what a node that was cut off says of boxes and scores. Raises ConversionError.
    """
    for option, value in (("--boxes", request.boxes), ("--background", request.background)):
        if value is not None and request.family != ANY_FAMILY.name:
            raise ConversionError(f"{option} is for --family {ANY_FAMILY.name}, which is not asked for. Leave it out")
    says_what_it_is = NAMES_KEY in metadata and not is_rtdetr(metadata) and described is None
    if request.family is None and (says_what_it_is or request.output is not None):
        return None
    image = image_input(model, request.model, request.input)
    hw = known_hw(image, request.model, request)
    labels = known_labels(request.model, metadata, request)
    return detector_from(model, image, request, metadata, hw, len(labels), described)


def recognised_detector(
    detector: Detector, metadata: Mapping[str, str], request: ConversionRequest
) -> tuple[Foreign, Recognised]:
    """Return a detector of a known family with one output, and what it is. Raises ConversionError."""
    family, contract, path = detector.family, detector.contract, detector.path
    if request.scores is not None and family is not ANY_FAMILY:
        raise ConversionError(f"--scores is for classifiers, but '{path}' is a detector. Leave --scores out")
    labels = named_labels(path, metadata, request)
    if family.has_background and labels[0].strip("_ ").lower() in _BACKGROUND:
        labels = labels[1:]
    if (classes := family.classes(detector.seen)) and classes != len(labels):
        expect_count(labels, classes, path)
    pixels = pixels_from(request, detector.image) or contract.pixels
    guess = contract.guess if pixels is contract.pixels else None
    warnings = tuple(sentence for sentence in (guess, contract.assumed) if sentence is not None)
    if pixels is None:
        raise ConversionError(
            f"'{path}' is of {family.title}, whose models differ in what they expect of a pixel. It needs "
            f"{family.needs}: trtjob convert {path} --preprocess torch (or unit, none, ...), or --mean and --std"
        )
    model, rewired = detector.rewired(labels)
    foreign = foreign_from(model, path, request, first_output=True)
    pixels = pixels.ordered(request)
    original, images = Original(foreign, pixels), made_up_images(detector.seen.hw, foreign.image.channels)
    (raw,) = raw_outputs(original, images, foreign)
    resize = request.resize or contract.resize
    spec = ModelSpec(
        task=Task.DETECT,
        labels=labels,
        input_hw=detector.seen.hw,
        channels=1 if foreign.image.channels == 1 else 3,
        color=pixels.color,
        resize=resize,
        crop_ratio=crop_ratio(request, resize),
        sampling=contract.sampling,
        pad_value=contract.pad_value,
        multi_label=contract.multi_label,
        conf=CONF,
        iou=contract.iou,
        nms_kind=contract.nms_kind,
        candidates=request.candidates or USUAL_CANDIDATES,
    )
    answer = Answer(foreign.output.name, rewired.layout, (1, *raw.shape[1:]), len(labels), most=spec.candidates)
    notes = [f"It was taken for {family.title} (--family {family.name})."]
    if detector.seen.described.is_told:
        notes.append("TensorRT's EfficientNMS_TRT at its end is taken off: ours suppresses, with its threshold.")
    if beyond := detector.seen.beyond_boxes:
        notes.append(f"It says more of each box, which is left out: {', '.join(map(shown, beyond))}.")
    return foreign, Recognised(original, pixels, answer, images, [raw], spec, tuple(notes), warnings, detector=detector)


def _detector(foreign: Foreign, export: Export, metadata: Mapping[str, str], request: ConversionRequest) -> Recognised:
    if request.scores is not None:
        raise ConversionError(f"--scores is for classifiers, but '{foreign.path}' is a detector. Leave --scores out")
    hw = input_hw(foreign.image, foreign.path, request, export)
    labels = named_labels(foreign.path, metadata, request)
    pixels = (pixels_from(request, foreign.image) or unit_pixels(foreign.image.channels)).ordered(request)
    original, images = Original(foreign, pixels), made_up_images(hw, foreign.image.channels)
    raw = raw_outputs(original, images, foreign)
    more = _more_than_boxes(foreign, export, raw, hw, metadata)
    shape = (1, *raw[0].shape[1:])
    layout = layout_of(shape, len(labels), is_yolov5=export.is_yolov5, is_final=export.is_final, extras=more.extras)
    if layout is None:
        raise foreign.error(_unknown_output(shape, len(labels), export, more.extras))
    is_final = layout is Layout.FINAL
    resize = request.resize or ResizeMode.LETTERBOX
    spec = ModelSpec(
        task=Task.DETECT,
        labels=labels,
        input_hw=hw,
        channels=1 if foreign.image.channels == 1 else 3,
        color=pixels.color,
        resize=resize,
        crop_ratio=crop_ratio(request, resize),
        sampling=Sampling.HALF_PIXEL,
        pad_value=PAD_VALUE,
        conf=CONF,
        iou=YOLOV5_IOU if export.is_yolov5 else IOU,
        nms_kind=NmsKind.NONE if is_final else NmsKind.PROBIOU if more.is_rotated else NmsKind.DEFAULT,
        candidates=request.candidates or USUAL_CANDIDATES,
        prototypes=more.prototypes,
        keypoints=more.keypoints,
        has_visibility=more.has_visibility,
        skeleton=skeleton_of(more.keypoints),
        is_rotated=more.is_rotated,
    )
    answer = Answer(
        foreign.output.name,
        layout,
        shape,
        len(labels),
        most=spec.candidates,
        extras=spec.extras,
        is_rotated=spec.is_rotated,
        prototypes=None if foreign.prototypes is None else foreign.prototypes.name,
    )
    notes = (f"Its output is {layout.value}{more.shown}.",)
    if is_final:
        notes = ("Its boxes are final: the graph does without NMS, or holds it with thresholds of its own.",)
    return Recognised(original, pixels, answer, images, raw, spec, notes)


@dataclass(frozen=True, slots=True)
class _More:
    """What a detector says of a box beside its corners and scores; the fields are those of `ModelSpec`."""

    prototypes: tuple[int, int, int] | None = None
    keypoints: tuple[str, ...] = ()
    has_visibility: bool = False
    is_rotated: bool = False

    @property
    def extras(self) -> int:
        coefficients = self.prototypes[0] if self.prototypes else 0
        return coefficients + len(self.keypoints) * (3 if self.has_visibility else 2) + self.is_rotated

    @property
    def shown(self) -> str:
        if self.prototypes:
            return f", with {self.prototypes[0]} coefficients of a mask behind each box"
        if self.keypoints:
            return f", with {len(self.keypoints)} keypoints behind each box"
        return ", with its angle behind each box" if self.is_rotated else ""


def _more_than_boxes(
    foreign: Foreign,
    export: Export,
    raw: Sequence[NDArray[np.floating]],
    hw: tuple[int, int],
    metadata: Mapping[str, str],
) -> _More:
    """Return what is behind each box. Raises ConversionError where it is not what the export says."""
    if export.keypoints:
        count, values = export.keypoints
        return _More(keypoints=keypoint_names(count, metadata), has_visibility=values == 3)
    if export.is_rotated:
        return _More(is_rotated=True)
    if foreign.prototypes is None:
        if export.has_masks:
            raise foreign.error(
                "it was exported for segmentation, but no second output holds prototypes of masks. Export it again"
            )
        return _More()
    count, height, width = raw[1].shape[1:]
    if hw[0] % height or hw[1] % width:
        raise foreign.error(
            f"its prototypes of masks are {width}x{height}, which does not divide {hw[1]}x{hw[0]}. Export it again"
        )
    return _More((count, height, width))


def _unknown_output(shape: tuple[int, ...], classes: int, export: Export, extras: int) -> str:
    known = (Layout.OBJECTNESS,) if export.is_yolov5 else (Layout.COLUMNS, Layout.FINAL)
    expected = " or ".join(layout.value for layout in known)
    behind = f", with {extras} numbers behind each box" if extras else ""
    return (
        f"its output is {list(shape)} for one image and {classes} classes: expected {expected}{behind}. Are its labels "
        "others? Name them with --labels FILE; else export it again"
    )
