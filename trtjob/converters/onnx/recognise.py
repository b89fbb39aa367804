"""Find out what a foreign model is: its size, what it wants of a pixel, what its output means, and its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtjob.converters.labels import expect_count, fitting_labels, numbered, read_labels
from trtjob.converters.onnx.detector import Detector, detector_from
from trtjob.converters.onnx.families.boxes import FAMILY as ANY_FAMILY
from trtjob.converters.onnx.families.family import Described
from trtjob.converters.onnx.files import NAMES_KEY, labels_file
from trtjob.converters.onnx.huggingface import (
    CONFIG,
    PREPROCESSOR,
    document,
    labels_of,
    pixels_of,
    resize_of,
    sampling_of,
    size_of,
)
from trtjob.converters.onnx.labels import labels_in
from trtjob.converters.onnx.outputs import Answer, Layout, layout_of
from trtjob.converters.onnx.pixels import pixels_from
from trtjob.converters.onnx.probabilities import ending_of
from trtjob.converters.onnx.reference import Original
from trtjob.converters.onnx.signature import HUGGING_FACES, MAX_SIDE, Foreign, foreign_from, shape_of
from trtjob.converters.onnx.ultralytics import CONF, IOU, PAD_VALUE, YOLOV5_IOU, Export, is_rtdetr
from trtjob.converters.pixels import Pixels, pixels_of_mode, torch_pixels, unit_pixels
from trtjob.converters.request import USUAL_CANDIDATES, ConversionRequest
from trtjob.converters.scores import classes_of
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.engines.spec import ModelSpec, NmsKind, ResizeMode, Sampling, Task
from trtjob.errors import ConversionError

_SEED = 0
_BACKGROUND = frozenset({"background", "bg"})


@dataclass(frozen=True, slots=True)
class Recognised:
    """A foreign model that is understood.

    images: two made-up ones, uint8 [2, H, W, channels]; raw: what the original says of each of them; spec: without its
    sources; notes: what was found or assumed; warnings: what may be wrong.
    """

    original: Original
    pixels: Pixels
    answer: Answer
    images: UInt8Array
    raw: NDArray[np.floating]
    spec: ModelSpec
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    detector: Detector | None = None  # where its family was recognised

    def reference(self, images: UInt8Array) -> Outputs:
        """Return what the original says of uint8 [N, H, W, channels], all its candidates."""
        if self.detector is None:
            return self.original.outputs(self.answer, images)
        return self.detector.answers(self.pixels, self.spec.labels, images)


def recognised(
    foreign: Foreign, export: Export | None, metadata: Mapping[str, str], request: ConversionRequest
) -> Recognised:
    """Return what a foreign model is, from what it says of itself, what it is seen to do, and what the user says.

    Raises ConversionError.
    """
    if export is None:
        return _plain_classifier(foreign, metadata, request)
    if export.task is Task.CLASSIFY or (export.is_yolov5 and len(shape_of(foreign.output) or ()) == 2):
        return _exported_classifier(foreign, export, metadata, request)
    return _detector(foreign, export, metadata, request)


def detector_of(
    model: ModelProto, metadata: Mapping[str, str], request: ConversionRequest, described: Described | None = None
) -> Detector | None:
    """Return a detector by its family: one that is asked for, or a graph that says nothing of itself and shows one.

    described: what a node that was cut off says of boxes and scores.

    Raises ConversionError.
    """
    for option, value in (("--boxes", request.boxes), ("--background", request.background)):
        if value is not None and request.family != ANY_FAMILY.name:
            raise ConversionError(f"{option} is for --family {ANY_FAMILY.name}, which is not asked for. Leave it out")
    says_what_it_is = NAMES_KEY in metadata and not is_rtdetr(metadata) and described is None
    if request.family is None and (says_what_it_is or request.output is not None):
        return None
    hw = request.size or size_of(document(request.model, PREPROCESSOR))
    labels = _known_labels(request.model, metadata, request)
    return detector_from(model, request, metadata, hw, len(labels), described)


def recognised_detector(
    detector: Detector, metadata: Mapping[str, str], request: ConversionRequest
) -> tuple[Foreign, Recognised]:
    """Return a detector of a known family with one output, and what it is. Raises ConversionError."""
    family, contract, path = detector.family, detector.contract, detector.path
    if request.scores is not None and family is not ANY_FAMILY:
        raise ConversionError(f"--scores is for classifiers, but '{path}' is a detector. Leave --scores out")
    labels = _known_labels(path, metadata, request) or _labels(path, metadata, request)
    if family.has_background and labels[0].strip("_ ").lower() in _BACKGROUND:
        labels = labels[1:]
    if (classes := family.classes(detector.seen)) and classes != len(labels):
        expect_count(labels, classes, path)
    pixels = pixels_from(request, detector.image) or contract.pixels
    warnings = () if contract.guess is None or pixels is not contract.pixels else (contract.guess,)
    if pixels is None:
        raise ConversionError(
            f"'{path}' is of {family.title}, whose models differ in what they expect of a pixel. It needs "
            f"{family.needs}: trtjob convert {path} --preprocess torch (or unit, none, ...), or --mean and --std"
        )
    model, rewired = detector.rewired(labels)
    foreign = foreign_from(model, path, request, first_output=True)
    pixels = pixels.ordered(request)
    original, images = Original(foreign, pixels), _made_up_images(detector.seen.hw, foreign.image.channels)
    raw = _numbers(original, images, foreign)
    spec = ModelSpec(
        task=Task.DETECT,
        labels=labels,
        input_hw=detector.seen.hw,
        channels=1 if foreign.image.channels == 1 else 3,
        color=pixels.color,
        resize=request.resize or contract.resize,
        sampling=contract.sampling,
        pad_value=contract.pad_value,
        multi_label=contract.multi_label,
        conf=CONF,
        iou=contract.iou,
        nms_kind=contract.nms_kind,
        candidates=request.candidates or USUAL_CANDIDATES,
    )
    answer = Answer(foreign.output.name, rewired.layout, (1, *raw.shape[1:]), len(labels), most=spec.candidates)
    notes = (f"It was taken for {family.title} (--family {family.name}).",)
    return foreign, Recognised(original, pixels, answer, images, raw, spec, notes, warnings, detector=detector)


def _known_labels(path: Path, metadata: Mapping[str, str], request: ConversionRequest) -> tuple[str, ...]:
    """Return the labels that were named, or lie beside a model or in it; none where there are none."""
    file = labels_file(request, metadata)
    if file is not None:
        return read_labels(file)
    return labels_in(metadata[NAMES_KEY], path) if NAMES_KEY in metadata else labels_of(document(path, CONFIG))


def _plain_classifier(foreign: Foreign, metadata: Mapping[str, str], request: ConversionRequest) -> Recognised:
    rank = len(shape_of(foreign.output) or ())
    if rank == 3:
        raise foreign.error(
            "its output looks like a detector's, but the file does not say which: it has no metadata of Ultralytics' "
            "(names, task, stride). Export it with Ultralytics' own tools"
        )
    path, image = foreign.path, foreign.image
    preprocessor = document(path, PREPROCESSOR)
    pixels = pixels_from(request, image) or pixels_of(preprocessor, image.channels)
    warnings = []
    if pixels is None and image.name == HUGGING_FACES:
        pixels = pixels_of_mode("tf", image.channels)
        warnings.append(
            f"It is Hugging Face's, but {PREPROCESSOR} is not beside it: pixels are taken from -1 to 1, as most of "
            "their classifiers want them. That is a guess: say it with --preprocess, or lay the file beside the model."
        )
    if pixels is None:
        raise ConversionError(
            f"'{path}' does not say what it expects of a pixel. Say it: trtjob convert {path} "
            "--preprocess unit (0 to 1; none: 0 to 255; or torch, tf, caffe), or --mean and --std"
        )
    if preprocessor:
        resize, notes = resize_of(preprocessor), [f"Images are brought to it as {PREPROCESSOR} says."]
        return _classifier(foreign, pixels, None, resize, metadata, request, notes, warnings)
    notes = (
        [] if request.resize else ["Images are stretched to its input. Were they cut in training, use --resize crop."]
    )
    return _classifier(foreign, pixels, None, ResizeMode.STRETCH, metadata, request, notes, warnings)


def _exported_classifier(
    foreign: Foreign, export: Export, metadata: Mapping[str, str], request: ConversionRequest
) -> Recognised:
    """Bring images to it as its own tools do.

    Cut, unless the input is not square, from 0 to 1 (classify_transforms in ultralytics/data/augment.py), or less
    ImageNet's mean, by its deviation (yolov5/utils/augmentations.py).
    """
    channels = foreign.image.channels
    usual = torch_pixels() if export.is_yolov5 and channels == 3 else unit_pixels(channels)
    pixels = pixels_from(request, foreign.image) or usual
    height, width = _input_hw(foreign, export, request)
    resize = ResizeMode.CROP if height == width else ResizeMode.STRETCH
    return _classifier(foreign, pixels, export, resize, metadata, request, [])


def _classifier(
    foreign: Foreign,
    pixels: Pixels,
    export: Export | None,
    resize: ResizeMode,
    metadata: Mapping[str, str],
    request: ConversionRequest,
    notes: list[str],
    warnings: Sequence[str] = (),
) -> Recognised:
    hw = _input_hw(foreign, export, request)
    pixels = pixels.ordered(request)
    original, images = Original(foreign, pixels), _made_up_images(hw, foreign.image.channels)
    raw = _numbers(original, images, foreign)
    shape = (1, *raw.shape[1:])
    outputs = raw[0].size
    if raw.ndim < 2 or max(shape[1:], default=0) != outputs or not outputs:
        raise foreign.error(f"its output is {list(shape)} for one image: expected scores [1, classes]")
    config = document(foreign.path, CONFIG)
    found = ending_of(foreign, raw, request, gives_logits=export is not None or bool(config), config=config)
    classes = classes_of(found.ending, outputs)
    is_hugging_faces = foreign.image.name == HUGGING_FACES
    labels, warning = _fitting_labels(foreign.path, metadata, request, classes, is_hugging_faces=is_hugging_faces)
    spec = ModelSpec(
        task=Task.CLASSIFY,
        labels=labels,
        input_hw=hw,
        channels=1 if foreign.image.channels == 1 else 3,
        color=pixels.color,
        resize=request.resize or resize,
        sampling=sampling_of(document(foreign.path, PREPROCESSOR)),
    )
    answer = Answer(foreign.output.name, Layout.CLASSES, shape, classes, found.ending)
    notes, warned = [*notes], [*warnings, *filter(None, [warning])]
    (warned if found.is_guess else notes).append(found.note)
    return Recognised(original, pixels, answer, images, raw, spec, tuple(notes), tuple(warned))


def _detector(foreign: Foreign, export: Export, metadata: Mapping[str, str], request: ConversionRequest) -> Recognised:
    if request.scores is not None:
        raise ConversionError(f"--scores is for classifiers, but '{foreign.path}' is a detector. Leave --scores out")
    hw = _input_hw(foreign, export, request)
    labels = _labels(foreign.path, metadata, request)
    pixels = (pixels_from(request, foreign.image) or unit_pixels(foreign.image.channels)).ordered(request)
    original, images = Original(foreign, pixels), _made_up_images(hw, foreign.image.channels)
    raw = _numbers(original, images, foreign)
    shape = (1, *raw.shape[1:])
    layout = layout_of(shape, len(labels), is_yolov5=export.is_yolov5, is_final=export.is_final)
    if layout is None:
        raise foreign.error(_unknown_output(shape, len(labels), export))
    spec = ModelSpec(
        task=Task.DETECT,
        labels=labels,
        input_hw=hw,
        channels=1 if foreign.image.channels == 1 else 3,
        color=pixels.color,
        resize=request.resize or ResizeMode.LETTERBOX,
        sampling=Sampling.HALF_PIXEL,
        pad_value=PAD_VALUE,
        conf=CONF,
        iou=YOLOV5_IOU if export.is_yolov5 else IOU,
        nms_kind=NmsKind.NONE if layout is Layout.FINAL else NmsKind.DEFAULT,
        candidates=request.candidates or USUAL_CANDIDATES,
    )
    answer = Answer(foreign.output.name, layout, shape, len(labels), most=spec.candidates)
    notes = (f"Its output is {layout.value}.",)
    if layout is Layout.FINAL:
        notes = ("Its boxes are final: the graph does without NMS, or holds it with thresholds of its own.",)
    return Recognised(original, pixels, answer, images, raw, spec, notes)


def _unknown_output(shape: tuple[int, ...], classes: int, export: Export) -> str:
    known = (Layout.OBJECTNESS,) if export.is_yolov5 else (Layout.COLUMNS, Layout.FINAL)
    expected = " or ".join(layout.value for layout in known)
    hint = ". YOLOv5 for segmentation is not supported yet" if export.is_yolov5 and shape[2:] > (5 + classes,) else ""
    return f"its output is {list(shape)} for one image and {classes} classes: expected {expected}{hint}"


def _labels(path: Path, metadata: Mapping[str, str], request: ConversionRequest) -> tuple[str, ...]:
    file = labels_file(request, metadata)
    if file is not None:
        return read_labels(file)
    if NAMES_KEY in metadata:
        return labels_in(metadata[NAMES_KEY], path)
    if labels := labels_of(document(path, CONFIG)):
        return labels
    raise ConversionError(
        f"'{path}' does not name its classes. Name a file of them, one a line, with --labels FILE, or lay it beside "
        f"the model as '{path.stem}.names'"
    )


def _fitting_labels(
    path: Path, metadata: Mapping[str, str], request: ConversionRequest, classes: int, *, is_hugging_faces: bool
) -> tuple[tuple[str, ...], str]:
    """Return a label for each class, and what the user has to know of them."""
    file = labels_file(request, metadata)
    if file is not None:
        return fitting_labels(file, classes, path, is_asked=request.labels is not None)
    if is_hugging_faces and not _known_labels(path, metadata, request):
        return numbered(classes), (
            f"{CONFIG} is not beside it: its classes are called class_0 and so on. Lay it there, or name them with "
            "--labels FILE."
        )
    labels = _labels(path, metadata, request)
    expect_count(labels, classes, path)
    return labels, ""


def _input_hw(foreign: Foreign, export: Export | None, request: ConversionRequest) -> tuple[int, int]:
    """Return the input's size: the graph's where it is fixed, else the one that is asked for, or was exported with."""
    image, path = foreign.image, foreign.path
    beside = None if image.height and image.width else size_of(document(path, PREPROCESSOR))
    wanted = request.size or (export.hw if export else None) or beside or (image.height, image.width)
    if wanted[0] is None or wanted[1] is None:
        raise ConversionError(f"'{path}' takes images of any size. Choose one with --size WIDTHxHEIGHT")
    fixed = (image.height or wanted[0], image.width or wanted[1])
    if request.size is not None and request.size != fixed:
        raise ConversionError(
            f"'{path}' takes images of {fixed[1]}x{fixed[0]} pixels and no others, but --size is "
            f"{request.size[1]}x{request.size[0]}. Leave --size out, or export the model again for that size"
        )
    stride = export.stride if export and None in (image.height, image.width) else 1
    if any(not 0 < side <= MAX_SIDE or side % stride for side in fixed):
        rule = f"multiples of {stride}, up to {MAX_SIDE}" if stride > 1 else f"1 to {MAX_SIDE}"
        raise ConversionError(
            f"'{path}': an input of {fixed[1]}x{fixed[0]} pixels cannot be: expected {rule}. Choose --size WIDTHxHEIGHT"
        )
    return fixed


def _made_up_images(hw: tuple[int, int], channels: int) -> UInt8Array:
    return np.random.default_rng(_SEED).integers(0, 256, (2, *hw, channels), np.uint8)


def _numbers(original: Original, images: UInt8Array, foreign: Foreign) -> NDArray[np.floating]:
    """Return what the original says. Raises ConversionError where it is no numbers."""
    raw = original.raw(images)
    if not np.issubdtype(raw.dtype, np.floating):
        raise foreign.error(f"its output is {raw.dtype}: expected scores, float")
    if not np.isfinite(raw).all():
        raise ConversionError(
            f"'{foreign.path}' answers a made-up image with infinite values or none at all: its weights are damaged, "
            "or too large for float16. Copy or export it again"
        )
    return raw
