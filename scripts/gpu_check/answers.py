"""Whether the GPU's engines answer as ONNX Runtime on the CPU does in float32, by model, precision and engine."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import side_by_side
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.zoo import Variant
from trtjob.converters.calibration_images import Samples, chosen_images
from trtjob.converters.parity import LIMITS, Comparison, ParityLimits, check_parity, compare
from trtjob.engines.choice import EngineKind
from trtjob.engines.protocol import Engine, Outputs, UInt8Array
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, ModelSpec, Precision
from trtjob.errors import TrtjobError

IMAGES = 8
BATCH = 8  # of the middle size that an image is put into
SAME_BYTES = "same bytes in any batch"
AT_ONCE = 7  # models that are compared side by side
# How far answers may be from the CPU's to the same graph. TF32 has as many bits of mantissa as half precision.
TOLERANCES: dict[str, ParityLimits] = {
    "fp32": LIMITS["fp32"],
    "TF32": LIMITS["fp16"],
    "fp16": LIMITS["fp16"],
    "int8": LIMITS["int8"],
}


# The others have weights made from seeds: some of their detections stand so near to another that rounding chooses.
TRAINED = ("digits", "yolov3-tiny")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an engine's answers to some images compare with others."""

    images: list[Comparison]

    @property
    def share(self) -> float | None:
        """The share of detections that is found again, or of images with the same best class; None: there are none."""
        wanted = sum(image.wanted for image in self.images)
        return sum(image.found for image in self.images) / wanted if wanted else None

    def differences(self, name: str) -> list[float]:
        return [value for image in self.images for value in image.differences.get(name, [])]


def check(options: CheckOptions) -> Iterator[Row]:
    for engine in need.ON_GPU:
        need_note = _lacking(engine)
        if need_note:
            yield Row(engine, State.NOT_RUN, note=need_note)
    engines = tuple(engine for engine in need.ON_GPU if not _lacking(engine))
    if not engines:
        return
    cases = [(name, engines, options) for name in zoo.chosen(zoo.ANSWERED, options)]
    for (name, *_), answer in side_by_side(rows_of, cases, AT_ONCE):
        yield from answer.value or [answer.row(name)]


def _lacking(engine: EngineKind) -> str:
    try:
        need.engine(engine)
    except NotRun as err:
        return str(err)
    return ""


def rows_of(name: str, engines: Sequence[EngineKind], options: CheckOptions) -> list[Row]:
    """Return a row for each engine, with all variants of a model in it. Raises NotRun."""
    exact = zoo.converted(name, "fp32", options)
    images = images_of(name, exact.spec, options)
    with need.opened(exact, options, "cpu") as reference:
        known = _Known(reference, images)
    variants = [*(Variant(name, precision) for precision in zoo.PRECISIONS), Variant(name, "fp32", tf32=True)]
    return [
        joined(f"{name}, {kind}", [_row(variant, kind, known, options) for variant in variants]) for kind in engines
    ]


def joined(name: str, rows: Sequence[Row]) -> Row:
    """Return one row of those of the variants: it has failed where one of them has."""
    states = [row.state for row in rows]
    state = next((state for state in (State.FAILED, State.OK) if state in states), State.NOT_RUN)
    figure = "; ".join(f"{row.check}: {row.figure}" for row in rows if row.figure)
    notes = {row.check: row.note for row in rows if row.note}
    same = set(notes.values())
    note = (
        same.pop() if len(same) == 1 and len(notes) == len(rows) else "; ".join(f"{k}: {v}" for k, v in notes.items())
    )
    return Row(name, state, figure, note)


def images_of(name: str, spec: ModelSpec, options: CheckOptions) -> list[UInt8Array]:
    folder = zoo.images_of(name, options)
    return list(Samples(chosen_images(folder, IMAGES), spec))


class _Known:
    """What the CPU says of images: it is asked once."""

    def __init__(self, reference: Engine, images: list[UInt8Array]) -> None:
        self.images = images
        self._answers = {image.tobytes(): reference.infer(image[None]) for image in images}

    def agreement(self, engine: Engine, spec: ModelSpec) -> Agreement:
        """Compare an engine's answers to these images with the CPU's."""
        pairs = [(self._answers[image.tobytes()], engine.infer(image[None])) for image in self.images]
        return Agreement([compare(spec, expected, found) for expected, found in pairs])


def _row(variant: Variant, kind: EngineKind, known: _Known, options: CheckOptions) -> Row:
    name = variant.title
    try:
        model = zoo.converted(variant.name, variant.precision, options)
        same = known
        if variant.precision != "fp32":
            with need.opened(model, options, "cpu") as cpu:
                same = _Known(cpu, known.images)
        advice = against(variant, options)
        with need.opened(model, options, kind, **variant.settings) as engine:
            exact = known.agreement(engine, model.spec)
            beside = exact if same is known else same.agreement(engine, model.spec)
            alone = in_batches(engine, known.images)
    except NotRun as err:
        return Row(name, State.NOT_RUN, note=str(err))
    except TrtjobError as err:
        return Row(name, State.FAILED, note=str(err))
    problems = [] if advice else out_of(variant, beside)
    figure = figure_of(exact)
    if same is not known:
        figure += f"; of the CPU's in {variant.precision}: {figure_of(beside)}"
    if alone and not (variant.tf32 and kind == "cuda"):  # which cannot be had: decision 20
        problems.append(f"expected the {SAME_BYTES}")
    batches = f"answers in batches {alone}" if alone else SAME_BYTES
    return Row(
        name, State.FAILED if problems else State.OK, figure, ", ".join([*filter(None, [advice]), *problems, batches])
    )


def against(variant: Variant, options: CheckOptions) -> str:
    """Return why a variant's answers are not judged: `convert` warned of the precision, on the CPU; '' otherwise.

    TF32 has as many bits of mantissa as half precision.
    """
    if is_exact(variant):
        return ""
    precision: Precision = "int8" if variant.precision == "int8" else "fp16"
    spec = zoo.converted(variant.name, precision, options).spec
    if spec.parity is None or not check_parity(spec, spec.parity, strict=False):
        return ""
    return f"not judged: convert warns of {precision}"


def is_exact(variant: Variant) -> bool:
    return variant.precision == "fp32" and not variant.tf32


def in_batches(engine: Engine, images: list[UInt8Array]) -> str:
    """Return how the answers to images alone differ from those in batches; '' where they are the same bytes."""
    alone = [_flat(engine.infer(image[None]))[0] for image in images]
    worst: list[str] = []
    for size in sorted({BATCH, engine.max_batch}):
        order = [index % len(images) for index in range(size)]
        found = _flat(engine.infer(np.stack([images[index] for index in order])))
        differences = [np.abs(row - alone[index]).max() for row, index in zip(found, order, strict=True)]
        if max(differences):
            worst.append(f"of {size} differ by up to {max(differences):.2g}")
    return ", ".join(worst)


def _flat(outputs: Outputs) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Return each image's numbers in a row; a detector's candidates are in order of their scores."""
    parts = [outputs.scores] if outputs.boxes is None else [outputs.boxes, outputs.scores]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], 1)


def out_of(variant: Variant, found: Agreement) -> list[str]:
    """Return in which way answers are out of their tolerances.

    Of a network with made-up weights the median must keep them, but in float32, where there is hardly any rounding.
    """
    limits = TOLERANCES[variant.title]
    judged = max if is_exact(variant) or variant.name in TRAINED else statistics.median
    share = found.share
    problems = [] if share is not None and share >= limits.agreeing else [f"expected {limits.agreeing:.0%} or more"]
    for name, limit in ((SCORES_NAME, limits.scores), (BOXES_NAME, limits.boxes)):
        if (values := found.differences(name)) and judged(values) > limit:
            problems.append(f"{name} may differ by {limit:.2g}")
    return problems


def figure_of(found: Agreement) -> str:
    """Return what was found again, and the largest differences: pixels of boxes, and of scores."""
    if found.share is None:
        return "nothing is found in the images"
    is_detector = any(BOXES_NAME in image.differences for image in found.images)
    share = f"{found.share:.1%}" if is_detector else f"top 1 {found.share:.0%}"
    apart = [f"{max(values):.2g}{unit}" for name, unit in _UNITS.items() if (values := found.differences(name))]
    return ", ".join([share, *apart])


_UNITS = {BOXES_NAME: " px", SCORES_NAME: ""}
