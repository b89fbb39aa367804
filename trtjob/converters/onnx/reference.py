"""The original model as the measure of its conversion: the file's own graph, with plain NumPy at both of its ends."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.onnx.outputs import Answer, Layout
from trtjob.converters.onnx.pixels import feed
from trtjob.converters.onnx.session import Session
from trtjob.converters.onnx.signature import Foreign
from trtjob.converters.pixels import Pixels
from trtjob.converters.scores import scores_from
from trtjob.engines.protocol import FloatArray, Outputs, UInt8Array
from trtjob.imaging.boxes import xyxy_from_cxcywh


class Original:
    """A foreign model in ONNX Runtime. It is loaded when it is first run."""

    def __init__(self, foreign: Foreign, pixels: Pixels) -> None:
        self._foreign, self._pixels = foreign, pixels

    @cached_property
    def _session(self) -> Session:
        return Session(self._foreign.model, f"'{self._foreign.path}'")

    def raw(self, images: UInt8Array) -> list[NDArray[np.floating]]:
        """Return the model's own outputs for uint8 [N, H, W, channels]. Raises ConversionError.

        Each image is run alone: a model that was exported for a larger batch gets it several times.
        """
        image, batch = self._foreign.image, self._foreign.image.batch or 1
        parts = []
        for pixels in images:
            fed = feed(self._pixels, np.repeat(pixels[None], batch, axis=0), image)
            outputs = self._session.run(image.name, fed)
            for name, output in zip((value.name for value in self._foreign.model.graph.output), outputs, strict=True):
                if output.ndim == 0 or output.shape[0] != batch:
                    raise self._foreign.error(
                        f"its output {name!r} is {list(output.shape)} for {batch} images: expected {batch} first. "
                        "Export it so, or name another with --output NAME"
                    )
            parts.append([output[:1] for output in outputs])
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def outputs(self, answer: Answer, images: UInt8Array) -> Outputs:
        """Return what the model says of uint8 [N, H, W, channels], all its candidates. Raises ConversionError."""
        raw, *others = (output.astype(np.float32) for output in self.raw(images))
        found = _READERS[answer.layout](raw, answer)
        return replace(found, prototypes=others[0]) if others else found


def _from_columns(raw: FloatArray, answer: Answer) -> Outputs:
    rows, end = raw.transpose(0, 2, 1), 4 + answer.classes
    return Outputs(xyxy_from_cxcywh(rows), rows[..., 4:end], _extras(rows, end, answer))


def _from_objectness(raw: FloatArray, answer: Answer) -> Outputs:
    end = 5 + answer.classes
    return Outputs(xyxy_from_cxcywh(raw), raw[..., 5:end] * raw[..., 4:5], _extras(raw, end, answer))


def _from_final(raw: FloatArray, answer: Answer) -> Outputs:
    is_its_own = raw[..., 5:6] == np.arange(answer.classes)
    boxes = xyxy_from_cxcywh(raw) if answer.is_rotated else raw[..., :4]
    return Outputs(boxes, raw[..., 4:5] * is_its_own, _extras(raw, 6, answer))


def _from_rows(raw: FloatArray, _answer: Answer) -> Outputs:
    return Outputs(raw[..., :4], raw[..., 4:])


def _from_classes(raw: FloatArray, answer: Answer) -> Outputs:
    return Outputs(None, scores_from(raw.reshape(len(raw), -1), answer.ending))


_READERS: dict[Layout, Callable[[FloatArray, Answer], Outputs]] = {
    Layout.COLUMNS: _from_columns,
    Layout.OBJECTNESS: _from_objectness,
    Layout.FINAL: _from_final,
    Layout.ROWS: _from_rows,
    Layout.CLASSES: _from_classes,
}


def _extras(rows: FloatArray, start: int, answer: Answer) -> FloatArray | None:
    return rows[..., start : start + answer.extras] if answer.extras else None
