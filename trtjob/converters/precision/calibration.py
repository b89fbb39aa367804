"""How far the values inside a network reach on given images, and where int8 should cut them off."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from trtjob.engines.onnxruntime.package import onnxruntime
from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import INPUT_NAME
from trtjob.errors import ConversionError

BINS = 4096
LEVELS = 128  # magnitudes of int8
_LEAST_TOP = 2.0**-112  # of a histogram: BINS over less is more than float32 can hold
_CUT_STRIDE = 8  # bins between the cuts that entropy tries: finer ones take longer and change nothing
_NEXT_TO_NOTHING = 1e-4  # of a value
PERCENTILE = 99.999

Counts = np.ndarray[tuple[int], np.dtype[np.int64]]


class Histogram:
    """Magnitudes, counted in bins of one width.

    The range is a power of two and doubles where it is too short, two bins becoming one. So the counts do not depend on
    the order of what was added, and there is no need to keep it.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(BINS, np.int64)
        self.largest = 0.0
        self._top = 0.0

    def add(self, values: FloatArray) -> None:
        """Count values. Raises ValueError where one is not a number."""
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not math.isfinite(largest):
            raise ValueError("not a number")
        self.largest = max(self.largest, largest)
        self._make_room(largest)
        if self._top:
            bins = np.minimum((magnitudes * np.float32(BINS / self._top)).astype(np.int32), BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)
        else:  # nothing but zeros so far
            self.counts[0] += magnitudes.size

    def _make_room(self, largest: float) -> None:
        if not self._top and largest:
            self._top = max(_LEAST_TOP, 2.0 ** math.ceil(math.log2(largest)))
        while self._top < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self._top *= 2

    @property
    def width(self) -> float:
        """Of a bin; 0 while nothing but zeros was added."""
        return self._top / BINS


def _minmax(histogram: Histogram) -> float:
    return histogram.largest


def _percentile(histogram: Histogram) -> float:
    """Return the magnitude that all but a few values keep below."""
    sums = np.cumsum(histogram.counts)
    index = int(np.searchsorted(sums, PERCENTILE / 100 * sums[-1]))
    return min((index + 1) * histogram.width, histogram.largest)


def _entropy(histogram: Histogram) -> float:
    """Return the cut that loses least information: Migacz, 8-bit inference with TensorRT, GTC 2017.

    For each cut the divergence from the counts, what lies beyond the cut added to its last bin, to the same counts
    spread over the levels of int8.
    """
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    counts = histogram.counts.astype(np.float64)
    beyond = counts.sum() - np.cumsum(counts)
    cuts = [*range(LEVELS, used, _CUT_STRIDE), used]
    divergences = [_divergence(counts[:cut], beyond[cut - 1]) for cut in cuts]
    return float(min(cuts[int(np.argmin(divergences))] * histogram.width, histogram.largest))


def _divergence(counts: "np.ndarray[tuple[int], np.dtype[np.float64]]", beyond: float) -> float:
    reference = counts.copy()
    reference[-1] += beyond
    starts = np.arange(LEVELS) * len(counts) // LEVELS
    lengths = np.diff(starts, append=len(counts))
    filled = np.add.reduceat((counts > 0).astype(np.float64), starts)
    means = np.add.reduceat(counts, starts) / np.maximum(filled, 1)
    spread = np.where(counts > 0, np.repeat(means, lengths), 0.0)
    if not spread.any():
        return math.inf  # everything lies beyond
    there = reference > 0
    # The cut's last bin may hold nothing but what lies beyond: next to nothing instead of nothing keeps this finite.
    p, q = reference[there] / reference.sum(), np.maximum(spread[there], _NEXT_TO_NOTHING) / spread.sum()
    return float((p * np.log(p / q)).sum())


METHODS: dict[str, Callable[[Histogram], float]] = {
    "percentile": _percentile,
    "entropy": _entropy,
    "minmax": _minmax,
}


def observe(
    model: ModelProto, names: Sequence[str], images: Iterable[UInt8Array], on_step: Callable[[int], None]
) -> dict[str, Histogram]:
    """Run a float32 model on images, one at a time, and return the histograms of some of its values.

    images: uint8 [H, W, channels] each; on_step: called with how many are done. Raises ConversionError where a value is
    not a number.
    """
    if not names:  # all would be given
        return {}
    session = _session(model, names)
    histograms = {name: Histogram() for name in names}
    for done, image in enumerate(images, start=1):
        for name, values in zip(names, session.run(list(names), {INPUT_NAME: image[None]}), strict=True):
            try:
                histograms[name].add(values)
            except ValueError as err:
                raise ConversionError(
                    f"the model's value '{name}' is infinite or not a number for some images, so it has no range. "
                    "See first whether the model works as it is, with fp32"
                ) from err
        on_step(done)
    return histograms


def _session(model: ModelProto, names: Sequence[str]) -> Any:
    """Return a session of ONNX Runtime that can be asked for values inside the graph."""
    ort = onnxruntime()
    copy = ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = 1  # how sums are split among threads would show in their last bits
    try:
        return ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as err:
        raise ConversionError(
            f"ONNX Runtime {ort.__version__} cannot run the float32 model, so its values have no ranges: {err}"
        ) from err
