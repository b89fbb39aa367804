"""Whether the GPU's engines answer as ONNX Runtime on the CPU does in float32, by model, precision and engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import side_by_side
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.wishes import Wishes
from scripts.gpu_check.zoo import Variant
from trtjob.converters.artefact import Reference
from trtjob.engines.choice import EngineKind
from trtjob.engines.protocol import Engine, Outputs, UInt8Array
from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, ModelSpec, Parity
from trtjob.errors import TrtjobError
from trtjob.worker.parity import LIMITS, Limits, measure
from trtjob.worker.samples import Samples, chosen_images

IMAGES = 8
BATCH = 8  # of the middle size that an image is put into
SAME_BYTES = "same bytes in any batch"
AT_ONCE = 7  # models that are compared side by side
# How far answers may be from the CPU's to the same graph. TF32 has as many bits of mantissa as half precision.
TOLERANCES: dict[str, Limits] = {
    "fp32, TF32 off": LIMITS["fp32"],
    "fp32, TF32 on": LIMITS["fp16"],
    "fp16": LIMITS["fp16"],
    "int8": LIMITS["int8"],
}


@dataclass(frozen=True, slots=True)
class Compared:
    """Answers beside the CPU's in float32, and beside its own to the same graph.

    alone: how those to images alone and in batches differ, in words; empty: not.
    """

    exact: Parity
    same: Parity
    alone: str


def check(wishes: Wishes) -> Iterator[Row]:
    for engine in need.ON_GPU:
        need_note = _lacking(engine)
        if need_note:
            yield Row(engine, State.NOT_RUN, note=need_note)
    engines = tuple(engine for engine in need.ON_GPU if not _lacking(engine))
    if not engines:
        return
    cases = [(name, engines, wishes) for name in zoo.chosen(zoo.ANSWERED, wishes)]
    for (name, *_), answer in side_by_side(rows_of, cases, AT_ONCE):
        yield from answer.value or [answer.row(name)]


def _lacking(engine: EngineKind) -> str:
    try:
        need.engine(engine)
    except NotRun as err:
        return str(err)
    return ""


def rows_of(name: str, engines: Sequence[EngineKind], wishes: Wishes) -> list[Row]:
    """Return a row for each engine, with all variants of a model in it. Raises NotRun."""
    exact = zoo.converted(name, "fp32", wishes)
    images = _images(name, exact.spec, wishes)
    with need.opened(exact, wishes, "cpu") as reference:
        known = _Known(reference, images)
    variants = (Variant(name, "fp32", tf32=False), *(Variant(name, precision) for precision in zoo.PRECISIONS))
    return [joined(f"{name}, {kind}", [_row(variant, kind, known, wishes) for variant in variants]) for kind in engines]


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


def _images(name: str, spec: ModelSpec, wishes: Wishes) -> list[UInt8Array]:
    folder = zoo.images_of(name, wishes)
    return list(Samples(chosen_images(folder, IMAGES), spec))


class _Known:
    """What the CPU says of images: it is asked once."""

    def __init__(self, reference: Engine, images: list[UInt8Array]) -> None:
        self.images = images
        self._answers = {image.tobytes(): reference.infer(image[None]) for image in images}

    def run(self, batch: UInt8Array) -> Outputs:
        """Return the answer to a batch of one image."""
        return self._answers[batch[0].tobytes()]


def _row(variant: Variant, kind: EngineKind, known: _Known, wishes: Wishes) -> Row:
    name = variant.title
    try:
        model = zoo.converted(variant.name, variant.precision, wishes)
        same = known
        if variant.precision != "fp32":
            with need.opened(model, wishes, "cpu") as cpu:
                same = _Known(cpu, known.images)
        with need.opened(model, wishes, kind, **variant.settings) as engine:
            found = compared(engine, model.spec, known, same)
    except NotRun as err:
        return Row(name, State.NOT_RUN, note=str(err))
    except TrtjobError as err:
        return Row(name, State.FAILED, note=str(err))
    problems = out_of(tolerance(variant, model.spec.parity), found.same)
    batches = f"answers in batches {found.alone}" if found.alone else SAME_BYTES
    figure = figure_of(found.exact)
    if same is not known:
        figure += f"; of the CPU's in {variant.precision}: {figure_of(found.same)}"
    return Row(name, State.FAILED if problems else State.OK, figure, ", ".join([*problems, batches]))


def compared(engine: Engine, spec: ModelSpec, exact: _Known, same: _Known) -> Compared:
    """Compare an engine with what the CPU says in float32, and with what it says of the same graph."""

    def beside(known: _Known) -> Parity:
        reference = Reference("cpu", known.run)
        return measure(spec, _Given(known.images), engine.infer, reference, lambda _done: None).parity  # type: ignore[arg-type]

    parity = beside(exact)
    return Compared(parity, parity if same is exact else beside(same), in_batches(engine, exact.images))


class _Given:
    """Images that are prepared already, as `measure` iterates over them."""

    def __init__(self, images: list[UInt8Array]) -> None:
        self._images = images
        self.description = f"{len(images)} images"

    def __iter__(self) -> Iterator[UInt8Array]:
        return iter(self._images)


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


def tolerance(variant: Variant, on_cpu: Parity | None) -> Limits:
    """Return how far answers may be from the CPU's to the same graph.

    on_cpu: how far the CPU's are from its float32: networks with random weights suffer more from rounding than trained
    ones do, and where that moves single scores and boxes more than it may, rounding elsewhere may as much.
    """
    limits = TOLERANCES[variant.title]
    if variant.precision == "fp32" or on_cpu is None:
        return limits
    return Limits(
        agreeing=limits.agreeing,
        scores=max(limits.scores, on_cpu.max_abs.get(SCORES_NAME, 0.0)),
        boxes=max(limits.boxes, on_cpu.max_abs.get(BOXES_NAME, 0.0)),
    )


def out_of(limits: Limits, parity: Parity) -> list[str]:
    """Return in which way answers are out of their tolerances."""
    share = parity.top1 if parity.matched is None else parity.matched
    problems = [] if share is not None and share >= limits.agreeing else [f"expected {limits.agreeing:.0%} or more"]
    for name, limit in ((SCORES_NAME, limits.scores), (BOXES_NAME, limits.boxes)):
        if parity.max_abs.get(name, 0.0) > limit:
            problems.append(f"{name} may differ by {limit:.2g}")
    return problems


def figure_of(parity: Parity) -> str:
    """Return what was found again, and the largest differences: pixels of boxes, and of scores."""
    if parity.matched is None and parity.top1 is None:
        return "nothing is found in the images"
    share = f"top 1 {parity.top1:.0%}" if parity.matched is None else f"{parity.matched:.1%}"
    apart = [f"{parity.max_abs[name]:.2g}{unit}" for name, unit in _UNITS.items() if name in parity.max_abs]
    return ", ".join([share, *apart])


_UNITS = {BOXES_NAME: " px", SCORES_NAME: ""}
