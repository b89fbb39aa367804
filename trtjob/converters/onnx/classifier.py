"""Classifiers: of Ultralytics, of Hugging Face, and plain ones of which the user has to say more."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trtjob.converters.cropping import crop_ratio
from trtjob.converters.labels import expect_count, fitting_labels, numbered
from trtjob.converters.onnx.facts import Recognised, input_hw, known_labels, made_up_images, named_labels, raw_outputs
from trtjob.converters.onnx.files import labels_file
from trtjob.converters.onnx.huggingface import (
    CONFIG,
    PREPROCESSOR,
    crop_ratio_of,
    document,
    pixels_of,
    preprocessor_beside,
    resize_of,
    sampling_of,
)
from trtjob.converters.onnx.outputs import Answer, Layout
from trtjob.converters.onnx.pixels import pixels_from
from trtjob.converters.onnx.probabilities import ending_of
from trtjob.converters.onnx.reference import Original
from trtjob.converters.onnx.signature import HUGGING_FACE_INPUT, Foreign, shape_of
from trtjob.converters.onnx.ultralytics import Export
from trtjob.converters.pixels import Pixels, pixels_of_mode, torch_pixels, unit_pixels
from trtjob.converters.request import ConversionRequest
from trtjob.converters.scores import classes_of, is_multi_label, last_operator
from trtjob.engines.spec import ModelSpec, ResizeMode, Task
from trtjob.errors import ConversionError


def plain_classifier(foreign: Foreign, metadata: Mapping[str, str], request: ConversionRequest) -> Recognised:
    """Return what a classifier is that says nothing of itself. Raises ConversionError."""
    rank = len(shape_of(foreign.output) or ())
    if rank == 3:
        raise foreign.error(
            "its output looks like a detector's, but is that of no family that is known (--families). Boxes beside "
            "scores, [N, K, 4] and [N, K, classes], are read with --family boxes: export it so, before NMS"
        )
    path, image = foreign.path, foreign.image
    preprocessor = preprocessor_beside(path)
    pixels = pixels_from(request, image) or pixels_of(preprocessor, image.channels)
    warnings = []
    if pixels is None and image.name == HUGGING_FACE_INPUT:
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
        resize, notes = resize_of(preprocessor), ["Images are brought to it as the documents beside it say."]
        return _classifier(foreign, pixels, None, resize, metadata, request, notes, warnings)
    notes = (
        [] if request.resize else ["Images are stretched to its input. Were they cut in training, use --resize crop."]
    )
    return _classifier(foreign, pixels, None, ResizeMode.STRETCH, metadata, request, notes, warnings)


def exported_classifier(
    foreign: Foreign, export: Export, metadata: Mapping[str, str], request: ConversionRequest
) -> Recognised:
    """Return what a classifier by Ultralytics is; images are brought to it as its own tools do. Raises ConversionError.

    Cut, unless the input is not square, from 0 to 1 (classify_transforms in ultralytics/data/augment.py), or less
    ImageNet's mean, by its deviation (yolov5/utils/augmentations.py).
    """
    channels = foreign.image.channels
    usual = torch_pixels() if export.is_yolov5 and channels == 3 else unit_pixels(channels)
    pixels = pixels_from(request, foreign.image) or usual
    height, width = input_hw(foreign.image, foreign.path, request, export)
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
    hw = input_hw(foreign.image, foreign.path, request, export)
    pixels = pixels.ordered(request)
    original, images = Original(foreign, pixels), made_up_images(hw, foreign.image.channels)
    (raw,) = raw_outputs(original, images, foreign)
    shape = (1, *raw.shape[1:])
    outputs = raw[0].size
    if raw.ndim < 2 or max(shape[1:], default=0) != outputs or not outputs:
        raise foreign.error(
            f"its output is {list(shape)} for one image: expected scores [1, classes]. Name them with --output NAME"
        )
    config, preprocessor = document(foreign.path, CONFIG), preprocessor_beside(foreign.path)
    found = ending_of(foreign, raw, request, gives_logits=export is not None or bool(config), config=config)
    classes = classes_of(found.ending, outputs)
    is_hugging_faces = foreign.image.name == HUGGING_FACE_INPUT
    labels, warning = _fitting_labels(foreign.path, metadata, request, classes, is_hugging_faces=is_hugging_faces)
    spec = ModelSpec(
        task=Task.CLASSIFY,
        labels=labels,
        input_hw=hw,
        channels=1 if foreign.image.channels == 1 else 3,
        color=pixels.color,
        resize=request.resize or resize,
        crop_ratio=crop_ratio(request, request.resize or resize, crop_ratio_of(preprocessor)),
        sampling=sampling_of(preprocessor),
        multi_label=is_multi_label(found.ending, last_operator(foreign.model.graph.node, foreign.output.name)),
    )
    answer = Answer(foreign.output.name, Layout.CLASSES, shape, classes, found.ending)
    notes, warned = [*notes], [*warnings, *filter(None, [warning])]
    (warned if found.is_guess else notes).append(found.note)
    return Recognised(original, pixels, answer, images, [raw], spec, tuple(notes), tuple(warned))


def _fitting_labels(
    path: Path, metadata: Mapping[str, str], request: ConversionRequest, classes: int, *, is_hugging_faces: bool
) -> tuple[tuple[str, ...], str]:
    """Return a label for each class, and what the user has to know of them."""
    file = labels_file(request, metadata)
    if file is not None:
        return fitting_labels(file, classes, path, is_asked=request.labels is not None)
    if is_hugging_faces and not known_labels(path, metadata, request):
        return numbered(classes), (
            f"{CONFIG} is not beside it: its classes are called class_0 and so on. Lay it there, or name them with "
            "--labels FILE."
        )
    labels = named_labels(path, metadata, request)
    expect_count(labels, classes, path)
    return labels, ""
