"""What a model says about itself: the JSON document that every converted ONNX file carries."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from trtjob.documents import Document, problems
from trtjob.engines.graph_walk import external_locations, text
from trtjob.errors import ForeignModelError, ModelError

Precision = Literal["fp32", "fp16", "bf16", "int8"]

METADATA_KEY = "trtjob"
INPUT_NAME = "images"
BOXES_NAME = "boxes"
SCORES_NAME = "scores"
EXTRAS_NAME = "extras"
PROTOTYPES_NAME = "prototypes"
CANDIDATES_NAME = "candidates"

MOST_CANDIDATES = 3840  # TensorRT's TopK takes no larger k

_ALMOST = 1e-6  # 224 / 0.7 is 320, and a little less in floating point
_REMEDY = "Convert the original model with: trtjob convert"


class Task(StrEnum):
    """What a model does: find boxes, or name the whole image."""

    DETECT = "detect"
    CLASSIFY = "classify"


class ResizeMode(StrEnum):
    """How an image is brought to the input size: `stretch` is Darknet's default; `letterbox` keeps its shape and pads
    both sides, `corner` those to the right and below; `crop` cuts the centre out."""

    STRETCH = "stretch"
    LETTERBOX = "letterbox"
    CORNER = "corner"
    CROP = "crop"


class Sampling(StrEnum):
    """Where resizing takes its samples: bilinear, but for `bicubic`.

    Darknet aligns the corner pixels, nearly everyone else pixel areas. `antialias`: the same, of as many pixels as a
    new one covers, as Pillow does, with which classifiers are usually trained; `bicubic`: so, too, as many are.
    """

    ALIGN_CORNERS = "align_corners"
    HALF_PIXEL = "half_pixel"
    ANTIALIAS = "antialias"
    BICUBIC = "bicubic"


class NmsKind(StrEnum):
    """How overlapping boxes are suppressed.

    Darknet's `nms_kind`: greedily by IoU (`default`, `greedynms`) or by distance-IoU (`diounms`); `probiou`: rotated
    boxes, by how alike they are as Gaussians; `none`: the graph has done it already, or was trained to do without.
    """

    NONE = "none"
    DEFAULT = "default"
    GREEDY = "greedynms"
    DIOU = "diounms"
    PROBIOU = "probiou"


class SourceFile(Document):
    """A file that the model was converted from."""

    name: str
    sha256: str
    size_bytes: int


class Parity(Document):
    """How near the converted model's answers are to the reference's, on given images.

    reference: what computed the truth, in words; inputs: the images, in words.
    max_abs: largest absolute difference by output, `boxes` (pixels of the network input) and `scores`; of a detector,
    between matched detections, also of `keypoints` and `corners` (pixels) and of `masks` (1 - IoU).
    matched: share of the reference's detections that are found again, of a detector;
    top1, top5: share of the images whose best class, or five best, are the same, of a classifier.
    """

    reference: str
    inputs: str
    images: int
    max_abs: dict[str, float]
    matched: float | None = None
    top1: float | None = None
    top5: float | None = None


class ModelSpec(Document):
    """What an engine and the pipeline need to know of a model.

    The graph takes `images`, uint8 [N, H, W, channels] in `color` order, and gives, for a detector,
    `boxes` float32 [N, K, 4] (xyxy, pixels of the network input, not clipped), `scores` float32 [N, K, classes], and
    `candidates` float32 [N, M, 6 + extras], the best of both (trtjob/engines/candidates.py); for a classifier, `scores`
    float32 [N, classes].

    What else a detector says of each box is `extras` float32 [N, K, extras], in this order where it has several: of a
    mask, by how much each of its `prototypes` counts, which are float32 [N, *prototypes] and common to an image; of
    each keypoint x and y, in pixels of the network input, and with `has_visibility` whether it can be seen; of a
    rotated box its angle, in radians, clockwise, by which `boxes` is to be turned about its centre.
    """

    schema_version: Literal[2] = 2
    task: Task
    labels: tuple[str, ...]
    input_hw: tuple[int, int]
    channels: Literal[1, 3] = 3
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    resize: ResizeMode = ResizeMode.STRETCH
    sampling: Sampling = Sampling.HALF_PIXEL
    crop_ratio: float = Field(default=1.0, gt=0, le=1)  # of `crop`: the input's sides, of those that an image covers
    pad_value: int = Field(default=127, ge=0, le=255)  # of a letterbox's border
    multi_label: bool = False  # a box, or a classifier's image, may carry several classes
    prototypes: tuple[int, int, int] | None = None  # of masks: how many, and their height and width
    keypoints: tuple[str, ...] = ()  # of each box: their names
    has_visibility: bool = False  # of keypoints
    skeleton: tuple[tuple[int, int], ...] = ()  # the pairs of keypoints, by number from 0, that a line joins
    is_rotated: bool = False
    candidates: int = Field(default=0, ge=0, le=MOST_CANDIDATES)  # the most that an answer holds; 0 of a classifier
    min_score: float = Field(default=0.05, ge=0, le=1)  # stored
    conf: float = Field(default=0.25, ge=0, le=1)  # drawn and counted
    iou: float = Field(default=0.45, ge=0, le=1)  # NMS
    nms_kind: NmsKind = NmsKind.DEFAULT
    nms_beta: float = Field(default=0.6, gt=0)  # exponent of the distance in `diounms`; Darknet's beta_nms
    precision: Precision = "fp32"
    calibration: str | None = None  # of int8: on how many images, by which method
    converter: str = ""
    sources: tuple[SourceFile, ...] = ()
    parity: Parity | None = None

    @property
    def covered_hw(self) -> tuple[int, int]:
        """The size that an image covers before the input is cut out of its middle, where it is cropped.

        Rounded down, as timm and transformers do: 224 and 0.875 are torchvision's 256.
        """
        height, width = (int(side / self.crop_ratio + _ALMOST) for side in self.input_hw)
        return height, width

    @property
    def coefficients(self) -> int:
        """How many numbers of each box make its mask, 0 without masks."""
        return self.prototypes[0] if self.prototypes else 0

    @property
    def keypoint_values(self) -> int:
        """How many numbers of each box are keypoints."""
        return len(self.keypoints) * (3 if self.has_visibility else 2)

    @property
    def extras(self) -> int:
        """How many numbers there are of each box beside its corners and scores."""
        return self.coefficients + self.keypoint_values + self.is_rotated


def load_spec(path: Path) -> ModelSpec:
    """Read the spec out of an ONNX file.

    Raises ModelError where the file is missing, is no ONNX or wants weights from elsewhere, ForeignModelError where it
    carries no spec.
    """
    import onnx  # heavy: only for those who need the file's metadata

    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as err:
        raise ModelError(f"no model file '{path}'") from err
    except Exception as err:
        raise ModelError(f"'{path}' is not an ONNX file: {err}. Copy or export it again. {_REMEDY}") from err
    if not model.graph.node:  # an empty file is a valid message, too
        raise ModelError(f"'{path}' is not an ONNX file: it holds no graph. Copy or export it again. {_REMEDY}")
    try:
        for location in external_locations(model.graph):
            _expect_below(path, location)
        documents = {text(prop.key): text(prop.value) for prop in model.metadata_props}
    except UnicodeDecodeError as err:
        raise ModelError(
            f"'{path}' is damaged: it holds names that are no text. Copy or export it again. {_REMEDY}"
        ) from err
    return parse_spec(documents.get(METADATA_KEY), path)


def _expect_below(path: Path, location: str) -> None:
    """Raise ModelError unless a file lies in a model's folder or below: not every reader looks at that."""
    try:
        is_below = (path.parent / location).resolve().is_relative_to(path.parent.resolve())
    except (OSError, RuntimeError, ValueError):  # a name that no file can have, links in a circle
        is_below = False
    if not is_below:
        raise ModelError(f"'{path}' wants weights from {location!r}, outside its folder: such a file is not read")


def parse_spec(document: str | None, path: Path) -> ModelSpec:
    """Return the spec in a model's metadata.

    Raises ForeignModelError where there is none, ModelError where it is not understood.

    >>> spec = ModelSpec(task="detect", labels=("cat", "dog"), input_hw=(416, 416), candidates=300)
    >>> parse_spec(spec.model_dump_json(), Path("pets.onnx")) == spec
    True
    >>> parse_spec(None, Path("foreign.onnx"))
    Traceback (most recent call last):
    trtjob.errors.ForeignModelError: 'foreign.onnx' is an ONNX file without trtjob's description. Convert ...
    """
    if document is None:
        raise ForeignModelError(f"'{path}' is an ONNX file without trtjob's description. {_REMEDY}")
    try:
        return ModelSpec.model_validate_json(document)
    except ValidationError as err:
        raise ModelError(
            f"'{path}' carries a description that this version of trtjob cannot read: {problems(err)}. {_REMEDY}"
        ) from err
