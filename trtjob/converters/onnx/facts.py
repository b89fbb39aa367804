"""What is found out of a foreign model, and how: its labels, its size, and what it says of made-up images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.labels import read_labels
from trtjob.converters.onnx.detector import Detector
from trtjob.converters.onnx.files import NAMES_KEY, labels_file
from trtjob.converters.onnx.huggingface import CONFIG, document, hw_of, labels_of, preprocessor_beside
from trtjob.converters.onnx.labels import labels_in
from trtjob.converters.onnx.outputs import Answer
from trtjob.converters.onnx.reference import Original
from trtjob.converters.onnx.signature import Foreign, ImageInput
from trtjob.converters.onnx.ultralytics import Export
from trtjob.converters.pixels import Pixels
from trtjob.converters.request import MAX_SIDE, ConversionRequest
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.engines.spec import ModelSpec
from trtjob.errors import ConversionError

_SEED = 0


@dataclass(frozen=True, slots=True)
class Recognised:
    """A foreign model that is understood.

    images: two made-up ones, uint8 [2, H, W, channels]; raw: the original's outputs for both of them; spec: without its
    sources; notes: what was found or assumed; warnings: what may be wrong.
    """

    original: Original
    pixels: Pixels
    answer: Answer
    images: UInt8Array
    raw: list[NDArray[np.floating]]
    spec: ModelSpec
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    detector: Detector | None = None  # where its family was recognised

    def reference(self, images: UInt8Array) -> Outputs:
        """Return what the original says of uint8 [N, H, W, channels], all its candidates."""
        if self.detector is None:
            return self.original.outputs(self.answer, images)
        return self.detector.answers(self.pixels, self.spec.labels, images)


def known_labels(path: Path, metadata: Mapping[str, str], request: ConversionRequest) -> tuple[str, ...]:
    """Return the labels that were named, or lie beside a model or in it; none where there are none.

    Raises ConversionError where they cannot be read.
    """
    file = labels_file(request, metadata)
    if file is not None:
        return read_labels(file)
    return labels_in(metadata[NAMES_KEY], path) if NAMES_KEY in metadata else labels_of(document(path, CONFIG))


def named_labels(path: Path, metadata: Mapping[str, str], request: ConversionRequest) -> tuple[str, ...]:
    """Return a model's labels, as `known_labels` finds them. Raises ConversionError where there are none."""
    if labels := known_labels(path, metadata, request):
        return labels
    raise ConversionError(
        f"'{path}' does not name its classes. Name a file of them, one a line, with --labels FILE, or lay it beside "
        f"the model as '{path.stem}.names'"
    )


def input_hw(
    image: ImageInput, path: Path, request: ConversionRequest, export: Export | None = None
) -> tuple[int, int]:
    """Return the input's size: the graph's where it is fixed, else the one that is asked for, or was exported with.

    Raises ConversionError.
    """
    found = known_hw(image, path, request, export)
    if found is None:
        raise ConversionError(f"'{path}' takes images of any size. Choose one with --size WIDTHxHEIGHT")
    return found


def known_hw(
    image: ImageInput, path: Path, request: ConversionRequest, export: Export | None = None
) -> tuple[int, int] | None:
    """Return the input's size, as `input_hw` has it, None where nothing says it.

    Raises ConversionError for one that cannot be.
    """
    beside = None if image.height and image.width else hw_of(preprocessor_beside(path))
    wanted = request.size or (export.hw if export else None) or beside or (image.height, image.width)
    if wanted[0] is None or wanted[1] is None:
        return None
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


def made_up_images(hw: tuple[int, int], channels: int) -> UInt8Array:
    """Return two different images, the same ones each time."""
    return np.random.default_rng(_SEED).integers(0, 256, (2, *hw, channels), np.uint8)


def raw_outputs(original: Original, images: UInt8Array, foreign: Foreign) -> list[NDArray[np.floating]]:
    """Return the original's outputs. Raises ConversionError where they are no numbers."""
    raw = original.raw(images)
    if not np.issubdtype(raw[0].dtype, np.floating):
        raise foreign.error(f"its output is {raw[0].dtype}: expected scores, float. Name them with --output NAME")
    if not all(np.isfinite(output).all() for output in raw):
        raise ConversionError(
            f"'{foreign.path}' answers a made-up image with infinite values or none at all: its weights are damaged, "
            "or too large for float16. Copy or export it again"
        )
    return raw
