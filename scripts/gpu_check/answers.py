"""Whether TensorRT answers as ONNX Runtime does, model by model and precision by precision."""

from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.gpu_check import need
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.wishes import SAMPLE, SCENES, Wishes
from trtjob.converters.artefact import Reference
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import Engine
from trtjob.errors import TrtjobError
from trtjob.worker.convert import convert_model
from trtjob.worker.parity import check_parity, measure
from trtjob.worker.samples import Samples, chosen_images

IMAGES = 32
PRECISIONS = ("fp32", "fp16")


def check(wishes: Wishes) -> Iterator[Row]:
    for path in wishes.models:
        images = SCENES if path == SAMPLE else wishes.images
        for precision in PRECISIONS:
            yield row_of(path, precision, images, wishes.home, lambda: need.tensorrt(wishes.home), "tensorrt")


def row_of(
    path: Path, precision: str, images: Path | None, home: Path, needed: Callable[[], object], engine: str
) -> Row:
    """Return how far an engine's answers are from those of ONNX Runtime in float32."""
    name = f"{path.name}, {precision}"
    try:
        needed()
        exact = _converted(path, "fp32", home)
        with need.opened(exact, home, "onnxruntime") as reference:
            model = _converted(path, precision, home)
            with need.opened(model, home, engine) as measured:
                return _compared(name, model, measured, Reference("ONNX Runtime, fp32", reference.infer), images)
    except NotRun as err:
        return Row(name, State.NOT_RUN, note=str(err))
    except TrtjobError as err:
        return Row(name, State.FAILED, note=str(err))


def _converted(path: Path, precision: str, home: Path) -> RegisteredModel:
    name = path.stem if precision == "fp32" else f"{path.stem}@{precision}"
    request = ConversionRequest.model_validate({"model": path, "precision": precision, "name": name})
    return convert_model(request, registry=ModelRegistry(home / "models"))


def _compared(name: str, model: RegisteredModel, engine: Engine, reference: Reference, images: Path | None) -> Row:
    samples = Samples(() if images is None else chosen_images(images, IMAGES), model.spec)
    parity = measure(model.spec, samples, engine.infer, reference, lambda _done: None).parity
    notes = check_parity(model.spec, parity, strict=False)
    differences = ", ".join(f"{output} {value:g}" for output, value in parity.max_abs.items())
    found = f"{parity.matched:.1%} found again" if parity.matched is not None else f"top 1 {parity.top1}"
    return Row(
        name,
        State.FAILED if notes else State.OK,
        f"{found}; largest difference: {differences or 'none'}",
        " ".join([f"{engine.device}, {samples.description}.", *notes]),
    )
