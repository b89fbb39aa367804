"""The models that are measured: made or found, converted once for each precision, kept below the check's home."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_check import need
from scripts.gpu_check.apart import side_by_side
from scripts.gpu_check.options import SAMPLE, SCENES, CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_models import yolo
from scripts.gpu_models.skeleton import SUFFIX, write_whole
from trtjob.bench.synthetic_images import write_pictures
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model

PRECISIONS = ("fp32", "fp16", "int8")
QUICK_BATCHES = "1:1:8"
QUICK_LEVELS = {"int8": 3}  # below TensorRT 8.6 finds no kernel for some of its activations
CALIBRATION_IMAGES = 8  # enough for ranges
FEW_IMAGES = 2  # for a model of which only the speed is asked: a CPU takes seconds for each
MIB = 1 << 20

Make = Callable[[CheckOptions, Path], Path]


def _digits(_options: CheckOptions, _folder: Path) -> Path:
    return SAMPLE


def _official(options: CheckOptions, _folder: Path) -> Path:
    if options.official is None:
        raise NotRun("its official weights are not here: name them with --yolov3-tiny")
    return options.official


def _ahead(options: CheckOptions, name: str) -> Path:
    path = None if options.models is None else options.models / name
    if path is None or not path.is_file():
        raise NotRun(f"there is no {name}: scripts/gpu_models/ahead.py writes it, --models names its folder")
    return path


def _vgg16(options: CheckOptions, folder: Path) -> Path:
    return write_whole(_ahead(options, f"vgg16{SUFFIX}"), folder / "vgg16.onnx")


# In the order of the tables.
MODELS: dict[str, Make] = {
    "digits": _digits,
    "yolov3-tiny": _official,
    "yolov4-tiny": lambda _, folder: yolo.yolov4_tiny(folder),
    "yolov4": lambda _, folder: yolo.yolov4(folder),
    "yolov4-608": lambda _, folder: yolo.yolov4(folder, 608),
    "vgg16": _vgg16,
    "mobilenetv2": lambda options, _: _ahead(options, "mobilenetv2.onnx"),
    "yolov8n": lambda options, _: _ahead(options, "yolov8n.onnx"),
    "yolov3-416": lambda _, folder: yolo.yolov3(folder, 416),
    "yolov3-608": lambda _, folder: yolo.yolov3(folder, 608),
}
ANSWERED = ("digits", "yolov3-tiny", "yolov4-tiny", "yolov4", "vgg16", "mobilenetv2", "yolov8n")
TIMED = ("yolov3-tiny", "vgg16", "yolov3-416", "yolov3-608")
FED = ("yolov3-tiny", "yolov4-608", "yolov8n")  # in a whole pipeline
FED_PRECISION = "fp16"
QUICK = ("digits", "yolov3-tiny", "yolov4-tiny", "mobilenetv2")


@dataclass(frozen=True, slots=True)
class Variant:
    """A model in a precision; tf32: in float32, whose products may have ten bits of mantissa."""

    name: str
    precision: str
    tf32: bool = False

    @property
    def settings(self) -> dict[str, object]:
        """Return how it is opened: a plan of which nobody asks how fast it is, is built quickly."""
        is_fed = self.name in FED and self.precision == FED_PRECISION
        if is_fed or (self.name in TIMED and (self.tf32 or self.precision != "fp32")):
            return {"tf32": True} if self.tf32 else {}
        return {"tf32": self.tf32, "plan_batches": QUICK_BATCHES, "plan_level": QUICK_LEVELS.get(self.precision, 0)}

    @property
    def title(self) -> str:
        return "TF32" if self.tf32 else self.precision


def chosen(names: tuple[str, ...], options: CheckOptions) -> tuple[str, ...]:
    """Return the names of a table, or those of the small models."""
    return tuple(name for name in names if name in QUICK) if options.is_quick else names


def variants(options: CheckOptions) -> list[Variant]:
    """Return every variant that some part opens, those first whose plans take longest."""
    answered = chosen(ANSWERED, options)
    timed = chosen(TIMED, options)[::-1]
    found = [Variant(name, precision, precision == "fp32") for name in timed for precision in PRECISIONS]
    found += [Variant(name, FED_PRECISION) for name in chosen(FED, options)]
    found += [Variant(name, precision) for name in answered for precision in PRECISIONS]
    found += [Variant(name, "fp32", tf32=True) for name in answered]
    wanted = [variant for variant in dict.fromkeys(found) if is_wanted(variant, options)]
    return sorted(wanted, key=lambda variant: variant.settings.get("plan_level") == 0)


def is_wanted(variant: Variant, options: CheckOptions) -> bool:
    """Tell whether a variant is among those that are named, if any are."""
    return not options.variants or f"{variant.name}@{variant.title}" in options.variants


def original(name: str, options: CheckOptions) -> Path:
    """Return a model's file, made on first use. Raises NotRun."""
    folder = options.home / "originals"
    note = folder / f"{name}.path"  # written last: what it names is whole
    if not note.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path = MODELS[name](options, folder)
        note.write_text(str(path))
    return Path(note.read_text())


def converted(name: str, precision: str, options: CheckOptions) -> RegisteredModel:
    """Return a model, made and converted on first use. Raises NotRun, ConversionError."""
    registry = ModelRegistry(options.home / "models")
    called = f"{name}@{precision}"
    if any(model.name == called for model in registry.list()):
        return registry.get(called)
    if options.is_built:
        raise NotRun("it is not converted")
    request: dict[str, object] = {"model": original(name, options), "precision": precision, "name": called}
    if precision != "fp32":
        count = CALIBRATION_IMAGES if name in ANSWERED else FEW_IMAGES
        request |= {"calibrate": images_of(name, options), "calibrate_images": count}
    return convert_model(ConversionRequest.model_validate(request), registry=registry)


def images_of(name: str, options: CheckOptions) -> Path:
    """Return a folder of images in which a model finds something."""
    if name == "digits":
        return SCENES
    if name == "yolov3-tiny" and options.images is not None:
        return options.images
    folder = options.home / "pictures"
    if not folder.is_dir():
        write_pictures(folder, "640x480", CALIBRATION_IMAGES)
    return folder


def check(options: CheckOptions) -> Iterator[Row]:
    """Make and convert all models, side by side."""
    images_of("", options)  # now: side by side, two would write them
    wanted = chosen(ANSWERED, options) + chosen(TIMED, options)
    names = [name for name in reversed(MODELS) if name in wanted + chosen(FED, options)]
    for (name, _), answer in side_by_side(original, [(name, options) for name in names], need.workers()):
        if answer.problem:
            yield answer.row(name)
            names.remove(name)
    cases = [
        (name, precision, options)
        for name in names
        for precision in (PRECISIONS if name in wanted else (FED_PRECISION,))
    ]
    done = {case[:2]: answer for case, answer in side_by_side(converted, cases, need.workers())}
    for name in reversed(names):
        answers = {precision: done[name, precision] for precision in PRECISIONS if (name, precision) in done}
        problems = [f"{precision}: {answer.problem}" for precision, answer in answers.items() if answer.problem]
        model = next(iter(answers.values())).value
        size = "" if model is None else f"{'x'.join(map(str, model.spec.input_hw))}, {model.size_bytes / MIB:.0f} MiB"
        took = ", ".join(f"{precision} {answer.seconds:.0f} s" for precision, answer in answers.items())
        note = "; ".join([f"converted in {took}", *problems])
        yield Row(name, State.FAILED if problems else State.OK, size, note)
