"""The engine alone by batch size, and beside a bare loop over the library's own call in the same run."""

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scripts.gpu_check import bare, need, zoo
from scripts.gpu_check.apart import apart
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.watch import GpuWatch
from scripts.gpu_check.zoo import Variant
from trtjob.bench.parts import EnginePart, Rig
from trtjob.converters.registry import RegisteredModel
from trtjob.engines.choice import EngineKind
from trtjob.engines.cuda.device import Device
from trtjob.engines.protocol import Engine
from trtjob.engines.tensorrt.plans import Sidecar

COMPARED_BATCH = 32
ROUNDS = 3  # by turns with the bare loop
LEAST_OF_BARE = 0.95
WARM_UP_S = 0.3
MIB = 1 << 20
# ONNX Runtime has no kernels for int8 on CUDA.
HOW: dict[EngineKind, tuple[tuple[str, bool], ...]] = {
    "cuda": (("fp32", False), ("fp32", True), ("fp16", False)),
    "tensorrt": (("fp32", True), ("fp16", False), ("int8", False)),
}


def check(options: CheckOptions) -> Iterator[Row]:
    for name in zoo.chosen(zoo.TIMED, options):
        for kind, variants in HOW.items():
            for precision, tf32 in variants:
                variant = Variant(name, precision, tf32)
                if not zoo.is_wanted(variant, options):
                    continue
                # A process for each: what one leaves in the GPU's memory is not counted as the next one's.
                answer = apart(row_of, variant, kind, options)
                yield answer.value or answer.row(f"{name}, {kind}, {variant.title}")


@dataclass(slots=True)
class _Found:
    """What is measured of a variant. rates: by batch; ratio: ours to the fastest bare loop."""

    rates: dict[int, float] = field(default_factory=dict)
    ratio: float = 0.0
    notes: list[str] = field(default_factory=list)


def row_of(variant: Variant, kind: EngineKind, options: CheckOptions) -> Row:
    """Measure a variant. Raises NotRun, EngineError."""
    need.engine(kind)
    model = zoo.converted(variant.name, variant.precision, options)
    device = Device(0)
    device.leave()
    found = _Found()
    more: dict[str, object] = variant.settings if kind == "tensorrt" else {"tf32": variant.tf32}
    for batch in need.BATCHES:
        free = device_free_mib(device)
        with need.opened(model, options, kind, batch=batch, **more) as engine:  # which runs one size of batches only
            part = part_of(model, engine, options, kind, batch)
            if batch == COMPARED_BATCH:
                _compare(found, part, variant, kind, device, options, free)
            else:
                found.rates[batch] = rate(part, options.seconds)
    state = State.FAILED if found.ratio < LEAST_OF_BARE else State.OK
    figure = " / ".join(f"{found.rates[batch]:.0f}" for batch in need.BATCHES)
    return Row(f"{variant.name}, {kind}, {variant.title}", state, figure, "; ".join(found.notes))


def _compare(
    found: _Found,
    part: EnginePart,
    variant: Variant,
    kind: EngineKind,
    device: Device,
    options: CheckOptions,
    free_before_mib: float,
) -> None:
    """Measure an engine with the batch that is compared: how busy the GPU is, its memory, and a bare loop beside it."""
    with GpuWatch() as watch:
        rate(part, options.seconds / 2)
        taken_mib = free_before_mib - device_free_mib(device)  # before the bare loop takes its own
    busy = watch.gpu(options.seconds / 4) or f"not known: {watch.how}"
    loops = _loops(part.rig.model, variant, kind, device, part.batch, options)
    ours, bare_rate, loop = _beside(part, loops, options.seconds)
    found.rates[part.batch], found.ratio = ours, ours / bare_rate
    found.notes = [
        f"{loop} {bare_rate:.0f}, ours {found.ratio:.2f} of it",
        f"GPU busy {busy}",
        f"{taken_mib:.0f} MiB",
    ]


def device_free_mib(device: Device) -> float:
    with device.current():
        return device.free_bytes() / MIB


def part_of(model: RegisteredModel, engine: Engine, options: CheckOptions, kind: EngineKind, batch: int) -> EnginePart:
    settings = need.settings(options, kind)
    return EnginePart(Rig(model, engine, settings, Path(tempfile.gettempdir()), lambda: False), batch)


def rate(part: EnginePart, seconds: float) -> float:
    """Return images per second of an engine, called from as many threads as it likes, after a warm-up."""
    part.run(WARM_UP_S)
    part.forget()
    part.run(seconds)
    return part.report().images_per_s


def _loops(
    model: RegisteredModel, variant: Variant, kind: EngineKind, device: Device, batch: int, options: CheckOptions
) -> dict[str, bare.Loop]:
    shape = (batch, *model.spec.input_hw, model.spec.channels)
    images = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    if kind == "cuda":
        return bare.onnxruntime_loops(model.path, images, device, tf32=variant.tf32)
    plan = last_used_plan(need.settings(options, kind).plans_dir, model.sha256)
    return {"execute_async_v3": bare.tensorrt_loop(plan, images, device)}


def last_used_plan(folder: Path, sha256: str) -> bytes:
    """Return the plan of a model that was opened last. Raises NotRun where there is none."""
    for path in sorted(folder.glob("*.plan"), key=lambda path: path.stat().st_mtime, reverse=True):
        if Sidecar.model_validate_json(path.with_suffix(".json").read_bytes()).model == sha256:
            return path.read_bytes()
    raise NotRun(f"there is no plan of the model in {folder}")


def _beside(part: EnginePart, loops: dict[str, bare.Loop], seconds: float) -> tuple[float, float, str]:
    """Return our rate, that of the fastest bare loop, and its name: medians of rounds by turns."""
    part.run(WARM_UP_S)
    part.forget()
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        part.run(seconds / ROUNDS)
        for name, loop in loops.items():
            found[name].append(loop(seconds / ROUNDS))
    medians = {name: statistics.median(values) for name, values in found.items()}
    best = max(medians, key=lambda name: medians[name])
    return part.report().images_per_s, medians[best], best
