"""Every TensorRT plan that the other parts open, built side by side: so none of these builds is timed alone."""

from collections.abc import Iterator

from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import side_by_side
from scripts.gpu_check.rows import Row, State
from scripts.gpu_check.wishes import Wishes
from scripts.gpu_check.zoo import Variant
from trtjob.engines.tensorrt.engine import build_ahead
from trtjob.worker.engine import tensorrt_options


def build(variant: Variant, wishes: Wishes, more: dict[str, object]) -> None:
    """Build a variant's plan unless it is there. more: settings. Raises NotRun, EngineError."""
    need.engine("tensorrt")
    model = zoo.converted(variant.name, variant.precision, wishes)
    settings = need.settings(wishes, "tensorrt", tf32=variant.tf32, **more)
    build_ahead(model.path, model.sha256, tensorrt_options(settings, 0, lambda *_: True))


def check(wishes: Wishes) -> Iterator[Row]:
    need.engine("tensorrt")
    cases: list[tuple[object, ...]] = [(variant, wishes, {}) for variant in zoo.variants(wishes)]
    found: dict[str, list[str]] = {}
    problems: dict[str, list[str]] = {}
    for (variant, *_), answer in side_by_side(build, cases, wishes.builders):
        if answer.state is not State.NOT_RUN:  # the model is not here: another part says so
            found.setdefault(variant.name, []).append(f"{variant.title} {answer.seconds:.0f} s")
        if answer.state is State.FAILED:
            problems.setdefault(variant.name, []).append(f"{variant.title}: {answer.problem}")
    for name, took in reversed(found.items()):
        bad = problems.get(name, [])
        yield Row(name, State.FAILED if bad else State.OK, "; ".join(took), "; ".join(bad))
