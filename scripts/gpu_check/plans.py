"""Every TensorRT plan that the other parts open, built side by side: so none of these builds is timed alone."""

from collections.abc import Iterator

from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import side_by_side
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.zoo import Variant
from trtjob.engines.tensorrt.engine import build_ahead
from trtjob.worker.engine_choice import tensorrt_options

LEVELLED = Variant("yolov3-tiny", "fp16")  # whose plan is built at every level
LEVEL_BATCHES = need.PLAN_BATCHES
SMALL = "digits"  # the model of which a plan for one image is built, too
ONE_IMAGE: dict[str, object] = {"plan_batches": "1:1:1"}


def at_level(level: int) -> dict[str, object]:
    """Return the settings of a plan that is built at a level, and is no other part's."""
    return {"plan_level": level, "plan_batches": LEVEL_BATCHES}


def build(variant: Variant, options: CheckOptions, more: dict[str, object]) -> None:
    """Build a variant's plan unless it is there. more: settings. Raises NotRun, EngineError."""
    need.engine("tensorrt")
    model = zoo.converted(variant.name, variant.precision, options)
    settings = need.settings(options, "tensorrt", **{**variant.settings, **more})
    if options.is_built and not need.has_plan(model, settings):
        raise NotRun("its plan is not built")
    build_ahead(model.path, model.sha256, tensorrt_options(settings, 0, lambda *_: True))


def check(options: CheckOptions) -> Iterator[Row]:
    need.engine("tensorrt")
    levels = [(LEVELLED, options, at_level(level)) for level in sorted(options.levels, reverse=True)]
    variants: list[tuple[object, ...]] = [(variant, options, {}) for variant in zoo.variants(options)]
    cases: list[tuple[object, ...]] = [
        *levels[:3],
        *variants,
        *levels[3:],
        (Variant(SMALL, "fp16"), options, ONE_IMAGE),
    ]
    found: dict[str, list[str]] = {}
    problems: dict[str, list[str]] = {}
    for (variant, _, more), answer in side_by_side(build, cases, options.builders):
        if answer.state is not State.NOT_RUN:  # the model is not here: another part says so
            level = {**variant.settings, **more}.get("plan_level", "")
            found.setdefault(variant.name, []).append(f"{variant.title} {level} {answer.seconds:.0f} s")
        if answer.state is State.FAILED:
            problems.setdefault(variant.name, []).append(f"{variant.title}: {answer.problem}")
    for name, took in reversed(found.items()):
        bad = problems.get(name, [])
        yield Row(name, State.FAILED if bad else State.OK, "; ".join(took), "; ".join(bad))
