"""What one image takes, phase by phase, one after another in one thread: as `trtjob bench` measures it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import apart
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import Row
from trtjob.bench.parts import Rig, StagesPart
from trtjob.bench.run import sample_of
from trtjob.engines.choice import EngineKind

MODELS = ("vgg16", "yolov3-416", "yolov3-608")
CASES: tuple[tuple[EngineKind, str], ...] = (
    ("cpu", "fp32"),
    ("cuda", "fp32"),
    ("tensorrt", "fp32"),
    ("tensorrt", "fp16"),
)
PHASES = ("prepare", "infer", "result", "draw", "write")


def check(options: CheckOptions) -> Iterator[Row]:
    for name in MODELS if not options.is_quick else ("yolov3-tiny",):
        for kind, precision in CASES:
            answer = apart(row_of, name, precision, kind, options)
            yield answer.value or answer.row(f"{name}, {kind}, {precision}")


def row_of(name: str, precision: str, kind: EngineKind, options: CheckOptions) -> Row:
    """Measure a model's phases with batches of one image. Raises NotRun, EngineError."""
    need.engine(kind)
    model = zoo.converted(name, precision, options)
    with need.opened(model, options, kind, batch=1) as engine, tempfile.TemporaryDirectory() as folder:
        rig = Rig(model, engine, need.settings(options, kind, batch=1), Path(folder), lambda: False)
        part = StagesPart(rig, sample_of(zoo.images_of(name, options)))
        part.run(options.seconds / 2)
        part.forget()
        part.run(options.seconds)
    phases = part.report().phases_ms
    figure = " / ".join(f"{phases[phase]:.2f}" for phase in PHASES)
    return Row(f"{name}, {kind}, {precision}", figure=figure, note=f"{sum(phases.values()):.1f} in all")
