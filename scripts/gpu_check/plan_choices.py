"""Which plan pays: optimization levels by build time and speed, and CUDA graphs by batch size."""

from collections.abc import Iterator

from scripts.gpu_check import need, zoo
from scripts.gpu_check.answers import joined
from scripts.gpu_check.apart import Answer, apart, side_by_side
from scripts.gpu_check.plans import build
from scripts.gpu_check.rows import Row
from scripts.gpu_check.speed import part_of, rate
from scripts.gpu_check.wishes import Wishes
from scripts.gpu_check.zoo import Variant
from trtjob.worker.engine import plans_of

MODEL = "yolov3-tiny"
PRECISIONS = ("fp32", "fp16")
BATCH = 32
USUAL_BATCHES = "1:32:32"  # not those of the other parts, whose plans are built beside many others
GRAPH_BATCHES = (1, 8, 32)


def levels(wishes: Wishes) -> Iterator[Row]:
    """Build at each level, float32 and half side by side and nothing else beside them, then measure each alone."""
    need.engine("tensorrt")
    for precision in PRECISIONS:
        zoo.converted(MODEL, precision, wishes)
    for level in wishes.levels:
        more = {"plan_level": level, "plan_batches": USUAL_BATCHES}
        cases: list[tuple[object, ...]] = [(Variant(MODEL, precision), wishes, more) for precision in PRECISIONS]
        built = [(case[0], answer) for case, answer in side_by_side(build, cases, len(PRECISIONS))]
        yield joined(f"{MODEL}, level {level}", [_level_row(*pair, level, wishes, more) for pair in built])


def _level_row(variant: Variant, built: Answer[None], level: int, wishes: Wishes, more: dict[str, object]) -> Row:
    if built.problem:
        return built.row(variant.precision)
    speed = apart(images_per_s, variant, BATCH, wishes, more)
    if speed.value is None:
        return speed.row(variant.precision)
    return Row(variant.precision, figure=f"{build_seconds(variant, wishes, level):.0f} s, {speed.value:.0f} images/s")


def build_seconds(variant: Variant, wishes: Wishes, level: int) -> float:
    """Return what a build took, as it is noted beside the plan."""
    sha256 = zoo.converted(variant.name, variant.precision, wishes).sha256
    plans = plans_of(need.settings(wishes, "tensorrt")).list()
    wanted = (sha256, level, USUAL_BATCHES)
    return next(p.seconds for p in plans if (p.model, p.optimization_level, p.batches) == wanted)


def graphs(wishes: Wishes) -> Iterator[Row]:
    """Compare full batches that are launched call by call with those that are replayed."""
    need.engine("tensorrt")
    variant = Variant(MODEL, "fp16")
    zoo.converted(MODEL, "fp16", wishes)
    settings = {batch: {"plan_batches": f"{batch}:{batch}:{batch}"} for batch in GRAPH_BATCHES}
    cases: list[tuple[object, ...]] = [(variant, wishes, more) for more in settings.values()]
    for batch, (_, built) in zip(GRAPH_BATCHES, side_by_side(build, cases, len(cases)), strict=True):
        name = f"{MODEL}, fp16, batch {batch}"
        if built.problem:
            yield built.row(name)
            continue
        answers = [
            apart(images_per_s, variant, batch, wishes, {**settings[batch], "cuda_graphs": has_graphs})
            for has_graphs in (False, True)
        ]
        off, on = (answer.value for answer in answers)
        if off is None or on is None:
            yield next(answer.row(name) for answer in answers if answer.value is None)
            continue
        yield Row(name, figure=f"{off:.0f} without, {on:.0f} with images/s", note=f"{on / off:.2f} times as fast")


def images_per_s(variant: Variant, batch: int, wishes: Wishes, more: dict[str, object]) -> float:
    """Return the speed of TensorRT's engine alone with some settings. Raises NotRun, EngineError."""
    model = zoo.converted(variant.name, variant.precision, wishes)
    with need.opened(model, wishes, "tensorrt", **more) as engine:
        return rate(part_of(model, engine, wishes, "tensorrt", batch), wishes.seconds)
