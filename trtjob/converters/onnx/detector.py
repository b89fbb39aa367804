"""A detector that says nothing of itself, by its family: run once as it is, recognised, and rewired to one output."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families import family_of
from trtjob.converters.onnx.families.family import Contract, Described, Family, Rewired, Seen
from trtjob.converters.onnx.huggingface import CONFIG, document, preprocessor_beside
from trtjob.converters.onnx.pixels import feed
from trtjob.converters.onnx.read import upgraded
from trtjob.converters.onnx.session import Session, numpy_type
from trtjob.converters.onnx.signature import ImageInput, inputs_of, shape_of
from trtjob.converters.onnx.surgery import IR_OF_PLAIN_CONSTANTS
from trtjob.converters.pixels import Pixels
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.errors import ConversionError

_SCOPE = "family"
_SEED = 1


@dataclass(frozen=True)
class Detector:
    """A foreign detector whose family is known.

    model: with all but the image filled in, and all outputs; seen: what it gave once.
    """

    path: Path
    model: ModelProto
    image: ImageInput
    family: Family
    seen: Seen

    @cached_property
    def contract(self) -> Contract:
        return self.family.describe(self.seen)

    def rewired(self, labels: tuple[str, ...]) -> tuple[ModelProto, Rewired]:
        """Return a copy that gives one value, and what it means."""
        model = ModelProto()
        model.CopyFrom(self.model)
        model = upgraded(model, self.path)
        graph = Graph()
        graph.scope = _SCOPE
        rewired = self.family.rewire(graph, self.seen, labels)
        model.graph.node.extend(graph.nodes)
        model.graph.initializer.extend(graph.constants)
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(rewired.name, TensorProto.FLOAT, None))
        return model, rewired

    def answers(self, pixels: Pixels, labels: tuple[str, ...], images: UInt8Array) -> Outputs:
        """Return what the original says of uint8 [N, H, W, channels], read with its family's own decoding in NumPy."""
        parts = [
            self.family.read(self._run(feed(pixels, image[None], self.image)), self.seen, labels) for image in images
        ]
        boxes = [part.boxes for part in parts if part.boxes is not None]
        most = max(array.shape[1] for array in boxes)  # a graph may find another number in each image
        return Outputs(
            *(np.concatenate([_filled(a, most) for a in arrays]) for arrays in (boxes, [p.scores for p in parts]))
        )

    @cached_property
    def _session(self) -> Session:
        return Session(self.model, f"'{self.path}'")

    def _run(self, fed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(self.seen.outputs, self._session.run(self.image.name, fed), strict=True))


def _filled(array: NDArray[Any], count: int) -> NDArray[Any]:
    """Return [N, K, values] with zeros behind the boxes, so that there are `count` of them."""
    return np.pad(array, ((0, 0), (0, count - array.shape[1]), (0, 0)))


def detector_from(
    model: ModelProto,
    image: ImageInput,
    request: ConversionRequest,
    metadata: Mapping[str, str],
    hw: tuple[int, int] | None,
    classes: int,
    described: Described | None,
) -> Detector | None:
    """Return a detector by its family, None where it shows none and none is asked for.

    hw: of the input, where it is known; classes: labels, 0 where they are not known;
    described: what a node that was cut off says, None where there was none.
    Raises ConversionError.
    """
    path = request.model
    inputs = tuple(value.name for value in inputs_of(model))
    config, preprocessor = document(path, CONFIG), preprocessor_beside(path)
    if hw is None:
        if request.family is None and _may_be_classifier(model):
            return None
        raise ConversionError(f"'{path}' takes images of any size. Choose one with --size WIDTHxHEIGHT")
    if not model.graph.output:
        return None
    whole = _filled_in(model, image, hw)
    try:
        outputs = _outputs(whole, path, image, hw)
    except ConversionError:
        if request.family is None and _may_be_classifier(model):
            return None
        raise
    seen = Seen(
        inputs,
        outputs,
        hw,
        image.channels,
        frozenset(node.op_type for node in model.graph.node),
        metadata,
        config,
        preprocessor,
        classes,
        described or Described(request.boxes or "xyxy", _scores(request), request.background, request.anchors or ()),
    )
    family = family_of(seen, request)
    return None if family is None else Detector(path, whole, image, family, seen)


def _may_be_classifier(model: ModelProto) -> bool:
    """Tell whether all that a graph gives are scores of an image, as far as it says."""
    shapes = [shape_of(value) for value in model.graph.output]
    return len(shapes) == 1 and (shapes[0] is None or len(shapes[0]) != 3)


def _scores(request: ConversionRequest) -> str | None:
    return None if request.scores == "none" else request.scores


def _outputs(model: ModelProto, path: Path, image: ImageInput, hw: tuple[int, int]) -> dict[str, NDArray[Any]]:
    made_up = np.random.default_rng(_SEED).integers(0, 256, image.shape(image.batch or 1, hw)).astype(np.float32)
    kind = numpy_type(image.elem_type)
    values = made_up if kind == np.uint8 else made_up / 255
    found = Session(model, f"'{path}'").run(image.name, values.astype(kind))
    return {value.name: np.asarray(array) for value, array in zip(model.graph.output, found, strict=True)}


def _filled_in(model: ModelProto, image: ImageInput, hw: tuple[int, int]) -> ModelProto:
    """Return a copy whose only input is the image: sizes and factors are such that boxes are pixels of the input."""
    whole = ModelProto()
    whole.CopyFrom(model)
    whole.ir_version = max(whole.ir_version, IR_OF_PLAIN_CONSTANTS)
    height, width = hw
    known = {
        "orig_target_sizes": [[width, height]],
        "im_shape": [[height, width]],
        "image_shape": [[height, width]],
        "scale_factor": [[1, 1]],
    }
    for value in list(inputs_of(whole)):
        if value.name == image.name or value.name not in known:
            continue
        kind = numpy_type(value.type.tensor_type.elem_type)
        whole.graph.initializer.append(numpy_helper.from_array(np.array(known[value.name], kind), value.name))
        whole.graph.input.remove(value)
    return whole
