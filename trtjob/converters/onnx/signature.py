"""What a foreign graph takes and gives: the one input that is an image, and the one output that counts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onnx import ModelProto, TensorProto, ValueInfoProto

from trtjob.converters.onnx.surgery import cut
from trtjob.converters.request import ConversionRequest
from trtjob.converters.texts import shown
from trtjob.errors import ConversionError

ACCEPTED = (
    "Accepted are what Ultralytics exports for detection, segmentation, pose estimation, oriented boxes and "
    "classification, detectors of the families that `trtjob convert --families` lists, and classifiers that "
    "take one image, float [N, 3, H, W] or [N, H, W, 3], and give scores [N, classes]"
)
_MAX_BATCH = 1024  # that a graph is made for

# What an input may be made of; the image's bytes are cast to it.
PIXEL_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8})
SCORE_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
CHANNELS = (1, 3)
HUGGING_FACE_INPUT = "pixel_values"
# What families of detectors take beside the image.
FILLED_IN = frozenset({"orig_target_sizes", "im_shape", "scale_factor", "image_shape"})
_MOST_SHOWN = 4  # values of one kind in a message

# None: the graph leaves the size open, or does not say.
Shape = tuple[int | None, ...]
_Batch = TypeVar("_Batch", bound=int | str)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The input that takes images. is_nchw: channels before height and width; batch, height, width: None where open."""

    name: str
    elem_type: int
    is_nchw: bool
    channels: int
    batch: int | None
    height: int | None
    width: int | None

    def shape(self, batch: _Batch, hw: tuple[int, int]) -> list[int | _Batch]:
        """Return its shape for a batch, a number or a name, of images of a size: height and width."""
        return [batch, self.channels, *hw] if self.is_nchw else [batch, *hw, self.channels]


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign model that has been cut down to one input and one output, and the prototypes of its masks, if any."""

    path: Path
    model: ModelProto
    image: ImageInput
    output: ValueInfoProto
    prototypes: ValueInfoProto | None = None

    def error(self, problem: str) -> ConversionError:
        """Return an error that says what the graph has; `problem`: a sentence without its point."""
        return ConversionError(f"'{self.path}' is not understood: {problem}. {described(self.model)}. {ACCEPTED}")


def foreign_from(
    model: ModelProto, path: Path, request: ConversionRequest, *, first_output: bool, may_have_masks: bool = False
) -> Foreign:
    """Find a model's image and its output, and leave nothing else in it. Raises ConversionError.

    first_output: of several outputs the first is the one, where none is asked for; may_have_masks: another of four
    sizes holds prototypes.
    """
    image = image_input(model, path, request.input)
    output = _output(model, path, request.output, first_output=first_output)
    if output.type.tensor_type.elem_type not in {TensorProto.UNDEFINED, *SCORE_TYPES}:
        kind = _type_name(output.type.tensor_type.elem_type)
        raise _error(
            model,
            path,
            f"the output {shown(output.name)} is {kind}: expected scores, float. If it is the number of the best "
            "class, name the value that it was chosen from with --output NAME",
        )
    prototypes = _prototypes(model, output) if may_have_masks else None
    cut(model, output, *([] if prototypes is None else [prototypes]))
    return Foreign(path, model, image, output, prototypes)


def _prototypes(model: ModelProto, output: ValueInfoProto) -> ValueInfoProto | None:
    """Return the output that is images, beside the one that is boxes; None where there is none."""
    found = [value for value in model.graph.output if value.name != output.name and len(shape_of(value) or ()) == 4]
    return ValueInfoProto.FromString(found[0].SerializeToString()) if len(found) == 1 else None


def described(model: ModelProto) -> str:
    """Return what a model takes and gives, as a sentence without its point."""
    inputs, outputs = inputs_of(model), list(model.graph.output)
    return f"Its inputs: {_listed(inputs)}; its outputs: {_listed(outputs)}"


def shape_of(value: ValueInfoProto) -> Shape | None:
    """Return a value's shape, None where not even its rank is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


def inputs_of(model: ModelProto) -> list[ValueInfoProto]:
    """Return what has to be fed: up to IR version 3, weights are inputs, too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _listed(values: list[ValueInfoProto]) -> str:
    texts = [f"{shown(value.name)} {_type_text(value)}" for value in values[:_MOST_SHOWN]]
    if len(values) > _MOST_SHOWN:
        texts.append(f"and {len(values) - _MOST_SHOWN} more")
    return ", ".join(texts) or "none"


def _type_text(value: ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return "(no tensor)"
    kind = _type_name(value.type.tensor_type.elem_type)
    shape = shape_of(value)
    if shape is None:
        return f"{kind} of unknown shape"
    names = [dim.dim_param for dim in value.type.tensor_type.shape.dim]
    sizes = (
        str(size) if size is not None else shown(name).strip("'") or "?"
        for size, name in zip(shape, names, strict=True)
    )
    return f"{kind} [{', '.join(sizes)}]"


def _type_name(elem_type: int) -> str:
    known = TensorProto.DataType.values()
    return TensorProto.DataType.Name(elem_type).lower() if elem_type in known else f"type {elem_type}"


def _error(model: ModelProto, path: Path, problem: str) -> ConversionError:
    return ConversionError(f"'{path}' is not understood: {problem}. {described(model)}. {ACCEPTED}")


def image_input(model: ModelProto, path: Path, wanted: str | None) -> ImageInput:
    """Return the input that takes images, beside those that families of detectors fill in. Raises ConversionError."""
    inputs = [value for value in inputs_of(model) if value.name not in FILLED_IN or value.name == wanted]
    if wanted is not None and wanted not in {value.name for value in inputs}:
        raise _error(model, path, f"there is no input {shown(wanted)}, which --input names")
    if len(inputs) != 1:
        raise _error(
            model,
            path,
            f"it has {len(inputs) or 'no'} inputs: expected the image alone. Export it with any others as constants",
        )
    (value,) = inputs
    shape, elem_type = shape_of(value), value.type.tensor_type.elem_type
    if shape is None or len(shape) != 4:
        problem = f"the input {shown(value.name)} is no image: expected four sizes, the batch first"
        raise _error(model, path, f"{problem}. Export it for images, such as [1, 3, height, width]")
    if elem_type not in PIXEL_TYPES:
        raise _error(
            model,
            path,
            f"the input {shown(value.name)} takes {_type_name(elem_type)}: expected float, float16 or uint8 pixels. "
            "Export the model without what comes before its first layer",
        )
    batch, *sizes = shape
    if value.name == HUGGING_FACE_INPUT and sizes[0] is None:  # whose exports leave even the channels open
        sizes[0] = 3
    is_nchw = sizes[0] in CHANNELS
    if not is_nchw and sizes[2] not in CHANNELS:
        raise _error(
            model,
            path,
            f"the input {shown(value.name)} has no size of 3 (colour) or 1 (grey) where its channels would be. Export "
            "it with a fixed number of them",
        )
    if batch is not None and batch > _MAX_BATCH:
        problem = f"the input {shown(value.name)} takes {batch:,} images at once: expected up to {_MAX_BATCH:,}"
        raise _error(model, path, f"{problem}. Export it for one, or for any number")
    channels, height, width = sizes if is_nchw else (sizes[2], *sizes[:2])
    assert channels is not None
    return ImageInput(value.name, elem_type, is_nchw, channels, batch, height, width)


def _output(model: ModelProto, path: Path, wanted: str | None, *, first_output: bool) -> ValueInfoProto:
    """Return the output: the one that is asked for, which may be any value of the graph, else the only one."""
    outputs: list[ValueInfoProto] = list(model.graph.output)
    if wanted is None:
        if not outputs:
            raise _error(model, path, "it has no output. Name the value with the scores with --output NAME")
        if len(outputs) > 1 and not first_output:
            count = f"it has {len(outputs)} outputs, and is no detector of a family that is known (--families)"
            raise _error(model, path, f"{count}. If it is a classifier, name its scores with --output NAME")
        return outputs[0]
    if found := [value for value in outputs if value.name == wanted]:
        return found[0]
    if any(wanted in node.output for node in model.graph.node):
        return ValueInfoProto(name=wanted)
    raise _error(model, path, f"there is no value {shown(wanted)}, which --output names")
