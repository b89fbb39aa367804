"""Which plan pays: optimization levels by build time and speed."""

from collections.abc import Iterator

from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import apart
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.plans import LEVEL_BATCHES, LEVELLED, at_level, build
from scripts.gpu_check.rows import Row
from scripts.gpu_check.speed import part_of, rate
from trtjob.worker.engine_choice import plans_of

BATCH = 32


def levels(options: CheckOptions) -> Iterator[Row]:
    """Measure the plans of all levels, which were built side by side with the others unless they have to be now."""
    need.engine("tensorrt")
    zoo.converted(LEVELLED.name, LEVELLED.precision, options)
    for level in options.levels:
        name = f"{LEVELLED.name}, {LEVELLED.title}, level {level}"
        built = apart(build, LEVELLED, options, at_level(level))
        speed = apart(images_per_s, BATCH, options, at_level(level)) if not built.problem else built
        if not isinstance(speed.value, float):
            yield speed.row(name)
        else:
            yield Row(name, figure=f"{build_seconds(options, level):.0f} s, {speed.value:.0f} images/s")


def build_seconds(options: CheckOptions, level: int) -> float:
    """Return what a build took, as it is noted beside the plan."""
    sha256 = zoo.converted(LEVELLED.name, LEVELLED.precision, options).sha256
    plans = plans_of(need.settings(options, "tensorrt")).list()
    wanted = (sha256, level, LEVEL_BATCHES)
    return next(p.seconds for p in plans if (p.model, p.optimization_level, p.batches) == wanted)


def images_per_s(batch: int, options: CheckOptions, more: dict[str, object]) -> float:
    """Return the speed of TensorRT's engine alone with some settings. Raises NotRun, EngineError."""
    model = zoo.converted(LEVELLED.name, LEVELLED.precision, options)
    with need.opened(model, options, "tensorrt", batch=batch, **more) as engine:
        return rate(part_of(model, engine, options, "tensorrt", batch), options.seconds)
