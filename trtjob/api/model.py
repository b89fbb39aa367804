"""A model in the caller's own process, for an image now and then: the same answers as a job gives."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, overload

import numpy as np

from trtjob.api.hand_in import converting
from trtjob.api.image_result import ImageResult
from trtjob.api.job_request import JobRequest, StrPath
from trtjob.api.job_spec import options_of, resolved_model
from trtjob.api.notebook import audience
from trtjob.api.session import WorkerOptions, settings_for
from trtjob.api.signature import taking_fields_of
from trtjob.engines.choice import choose
from trtjob.engines.protocol import Engine, UInt8Array
from trtjob.errors import FailureKind, ImageError
from trtjob.jobs.records import Record
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry
from trtjob.tilde import expand_tilde
from trtjob.worker.engine_choice import open_engine
from trtjob.worker.pipeline.copies import Prepared
from trtjob.worker.pipeline.failures import failure_record
from trtjob.worker.pipeline.stages import Stages

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from typing_extensions import TypeIs

AnImage: TypeAlias = "str | Path | UInt8Array | PillowImage"


@dataclass(frozen=True)
class LoadRequest(WorkerOptions):
    """What `load` takes: the model, and of the options of `run` those that say what is found."""

    model: StrPath
    _: KW_ONLY
    cfg: StrPath | None = None
    labels: StrPath | Sequence[str] | None = None
    scores: Literal["softmax", "sigmoid", "none"] | None = None
    min_score: float | None = None
    iou: float | None = None
    agnostic_nms: bool = False
    max_det: int | None = None
    classes: str | Sequence[str] | None = None
    resize: Literal["stretch", "letterbox"] | None = None
    truncated: Literal["refuse", "ok"] = "refuse"
    depth: Literal["auto", "high", "full"] = "auto"
    polygons: bool = False
    progress: bool = True


class Model:
    """A model that is loaded, until `close` or the end of a `with` block. Threads may share it: they take turns.

    labels: the names of its classes; task: `detect` or `classify`; device: what it runs on.
    """

    def __init__(self, name: str, engine: Engine, stages: Stages) -> None:
        self.name = name
        self._engine, self._stages = engine, stages
        self._turn = threading.Lock()

    @property
    def labels(self) -> tuple[str, ...]:
        return self._engine.spec.labels

    @property
    def task(self) -> str:
        return self._engine.spec.task.value

    @property
    def device(self) -> str:
        return self._engine.device

    @overload  # text is one path, and no list of them
    def predict(self, images: AnImage) -> ImageResult: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Iterable[AnImage]) -> list[ImageResult]: ...

    def predict(self, images: "AnImage | Iterable[AnImage]") -> ImageResult | list[ImageResult]:
        """Return what is found on an image, or on each of several: what a job stores, to the last digit.

        An image: a path; pixels, uint8 [H, W, 3] in the order BGR as OpenCV has them, or grey [H, W]; or Pillow's.
        Of several, one that cannot be read has an `error`; alone it raises ImageError. Raises EngineError.
        """
        if not _is_one(images):
            with self._turn:
                return list(self._results(iter(images)))
        with self._turn:
            (result,) = self._results(iter([images]))
        if result.error is not None:
            raise ImageError(result.error.kind, f"{result.image or 'the image'}: {result.error.message}")
        return result

    def close(self) -> None:
        """Free the memory, the GPU's too. May be called twice."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<trtjob.Model {self.name} on {self.device}>"

    def _results(self, images: Iterator[AnImage]) -> Iterator[ImageResult]:
        while batch := list(islice(images, self._engine.max_batch)):
            yield from map(ImageResult, self._batch(batch))

    def _batch(self, images: list[AnImage]) -> Iterator[Record]:
        spec = self._engine.spec
        tensors = np.empty((len(images), *spec.input_hw, spec.channels), np.uint8)
        answers = np.empty((len(images), *self._engine.answer_shape), np.float32)
        items = [self._prepared(image, tensor) for image, tensor in zip(images, tensors, strict=True)]
        whole = [number for number, item in enumerate(items) if isinstance(item, Prepared)]
        if whole:
            self._engine.answer([tensors[number] for number in whole], [answers[number] for number in whole])
        for item, answer in zip(items, answers, strict=True):
            yield self._stages.finish(item, answer) if isinstance(item, Prepared) else item

    def _prepared(self, image: AnImage, tensor: UInt8Array) -> Prepared | Record:
        """Return an image on its way to the engine, or the record of one that cannot be."""
        name = str(image) if isinstance(image, str | Path) else ""
        try:
            if not name:
                return self._stages.resized(Entry("", 0, ""), pixels_of(image), tensor)
            return self._stages.prepare(Entry(name, 0, ""), _read(Path(name)), tensor)
        except ImageError as err:
            return failure_record(name, err)


@taking_fields_of(LoadRequest)
def load(request: LoadRequest) -> Model:
    """Load a model into this process: a name of `trtjob models`, or a file, which is converted once.

    The answers are those of a job with the same options. For many images `run` is faster: it uses all cores.
    Raises ConfigError, ModelError, ConversionError, EngineError.

    >>> import trtjob
    >>> trtjob.load("no-such-model")
    Traceback (most recent call last):
    trtjob.errors.ModelError: ...
    """
    settings = settings_for(request)
    shared = {each.name for each in fields(JobRequest)} & {each.name for each in fields(request)}
    wanted = JobRequest((), annotate="none", **{name: getattr(request, name) for name in shared})
    found = resolved_model(wanted, settings.models_dir, converting(audience(wants_progress=request.progress)))
    options = options_of(wanted, found)
    choice = choose(settings.engine, settings.gpus)
    gpu = choice.gpus[0].number if choice.gpus else None
    engine = open_engine(
        settings, found.path, found.sha256, choice.engine, gpu, on_build=lambda *_: True, model_name=found.name
    )
    nowhere = LocalStorage(Path())  # images come from the caller, and nothing is drawn
    stages = Stages(
        options, engine.spec, nowhere, nowhere, max_pixels=settings.max_pixels, jpeg_quality=settings.jpeg_quality
    )
    return Model(found.name, engine, stages)


def pixels_of(image: object) -> UInt8Array:
    """Return an image's pixels, uint8 [H, W, 3], BGR. Raises ImageError for what is no image.

    >>> pixels_of(np.zeros((4, 6), np.uint8)).shape
    (4, 6, 3)
    >>> pixels_of(np.zeros((4, 6, 3)))
    Traceback (most recent call last):
    trtjob.errors.ImageError: got float64 [4, 6, 3]: expected uint8 [H, W, 3] in the order BGR, or grey [H, W]
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not image.size or image.ndim < 2 or image.shape[2:] not in ((), (3,)):
            what = f"got {image.dtype} {list(image.shape)}: expected uint8 [H, W, 3] in the order BGR, or grey [H, W]"
            raise ImageError(FailureKind.DECODE, what)
        return image if image.ndim == 3 else np.repeat(image[..., np.newaxis], 3, axis=2)
    from PIL import ImageOps
    from PIL.Image import Image

    if not isinstance(image, Image):
        what = f"got {type(image).__name__}: expected a path, pixels of NumPy, or an image of Pillow"
        raise ImageError(FailureKind.DECODE, what)
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.ascontiguousarray(np.asarray(upright)[..., ::-1])


def _is_one(images: "AnImage | Iterable[AnImage]") -> "TypeIs[AnImage]":
    return not isinstance(images, Iterable) or isinstance(images, str | bytes | bytearray | memoryview | np.ndarray)


def _read(path: Path) -> bytes:
    try:
        return expand_tilde(path).read_bytes()
    except (FileNotFoundError, ValueError) as err:  # no file has a zero byte in its name
        raise ImageError(FailureKind.MISSING, "it is not there") from err
    except OSError as err:
        raise ImageError(FailureKind.READ, f"cannot be read: {err.strerror}") from err
