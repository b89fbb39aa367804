"""What a user asks of a conversion; it travels to a worker as JSON."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from trtjob.documents import Document
from trtjob.engines.spec import MOST_CANDIDATES, Precision, ResizeMode

USUAL_CANDIDATES = 1024
MAX_SIDE = 16_384  # pixels, of an input: larger ones could only fill the memory
MAX_ANCHOR = 65_536  # pixels


def _check_candidates(count: int) -> int:
    if count > MOST_CANDIDATES:
        raise ValueError(f"TensorRT can choose the best {MOST_CANDIDATES}, and no more")
    return count


class ConversionRequest(Document):
    """A model's file and how to convert it; None: what the file says, or the converter's own default.

    Every path is absolute where the request goes to a worker. Sizes are (height, width) in pixels.
    """

    model: Path
    out: Path | None = None
    name: str | None = None
    replace: bool = False  # let the name move where it stands for another model
    labels: Path | None = None
    size: tuple[int, int] | None = None
    candidates: Annotated[int, AfterValidator(_check_candidates)] | None = Field(default=None, ge=1)  # of a detector

    cfg: Path | None = None  # Darknet

    arch: str | None = None  # Keras: a name in keras.applications, for a file of weights alone
    classes: int | None = Field(default=None, ge=1)
    allow_unsafe: bool = False  # Keras: run the code that the file carries

    input: str | None = None  # TensorFlow graphs and ONNX: names of values
    output: str | None = None
    preprocess: Literal["none", "unit", "caffe", "tf", "torch"] | None = None
    color: Literal["rgb", "bgr"] | None = None  # the order of the colours
    mean: tuple[float, ...] | None = None  # of pixels from 0 to 255, in the model's colour order
    std: tuple[float, ...] | None = None
    family: str | None = None  # ONNX: of detectors that do not say what they are
    boxes: Literal["xyxy", "xyxyn", "cxcywh", "cxcywhn", "yxyx", "yxyxn"] | None = None  # of the family `boxes`
    background: Literal[0, -1] | None = None
    anchors: tuple[Annotated[float, Field(gt=0, lt=MAX_ANCHOR)], ...] | None = None  # of families with raw heads
    scores: Literal["softmax", "sigmoid", "none"] | None = None  # what makes a classifier's scores of its output
    resize: ResizeMode | None = None
    crop_ratio: float | None = Field(default=None, gt=0, le=1)  # of `crop`: the input's sides, of what an image covers

    precision: Precision = "fp32"
    calibrate: Path | None = None  # a folder of images
    calibrate_images: int = Field(default=128, ge=1)
    calibrate_method: Literal["percentile", "entropy", "minmax"] = "percentile"
    strict: bool = False
