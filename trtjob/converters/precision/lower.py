"""One function for every precision: from a float32 model and images to the lowered model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnx import ModelProto

from trtjob.converters.precision.calibration import METHODS, PERCENTILE, observe
from trtjob.converters.precision.half import bf16, fp16, rounded_to_bf16, values_to_observe
from trtjob.converters.precision.int8 import int8_plan, quantized
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import Precision

# Called with how many images are done.
Step = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A model of a lower precision.

    emulation: what gives the same on a CPU, where ONNX Runtime cannot run the model itself.
    calibration: of int8, on how many images, by which method; notes: what the user should know, a sentence each.
    """

    model: ModelProto
    emulation: ModelProto | None = None
    calibration: str | None = None
    notes: tuple[str, ...] = ()


def lowered(
    model: ModelProto, request: ConversionRequest, images: Iterable[UInt8Array], on_step: Step = lambda _: None
) -> Lowered:
    """Return a float32 model in the precision that is asked for; the same images give the same model.

    images: uint8 [H, W, channels], prepared as the model takes them. Raises ConversionError.
    """
    return _LOWERINGS[request.precision](model, request, images, on_step)


def _as_fp16(model: ModelProto, _request: ConversionRequest, images: Iterable[UInt8Array], on_step: Step) -> Lowered:
    histograms = observe(model, values_to_observe(model), images, on_step)
    half, notes = fp16(model, {name: histogram.largest for name, histogram in histograms.items()})
    return Lowered(half, notes=notes)


def _as_bf16(model: ModelProto, _request: ConversionRequest, _images: Iterable[UInt8Array], _on_step: Step) -> Lowered:
    return Lowered(bf16(model), emulation=rounded_to_bf16(model))


def _as_int8(model: ModelProto, request: ConversionRequest, images: Iterable[UInt8Array], on_step: Step) -> Lowered:
    plan = int8_plan(model)
    count = 0

    def counted(done: int) -> None:
        nonlocal count
        count = done
        on_step(done)

    histograms = observe(plan.model, plan.values, images, counted)
    method = METHODS[request.calibrate_method]
    cut = quantized(plan, {name: method(histogram) for name, histogram in histograms.items()})
    shown = f"percentile {PERCENTILE:g}" if request.calibrate_method == "percentile" else request.calibrate_method
    return Lowered(cut, calibration=f"{count} image{'s' if count != 1 else ''}, {shown}")


_LOWERINGS: dict[Precision, Callable[[ModelProto, ConversionRequest, Iterable[UInt8Array], Step], Lowered]] = {
    "fp16": _as_fp16,
    "bf16": _as_bf16,
    "int8": _as_int8,
}
