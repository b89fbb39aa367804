"""One model in ONNX Runtime, on whatever device: loaded, and checked to be what it says it is."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtjob.engines.answers import answer_shape_of
from trtjob.engines.candidates import WIDTH
from trtjob.engines.onnxruntime.package import LOG_FATAL_ONLY, onnxruntime
from trtjob.engines.protocol import all_names
from trtjob.engines.spec import (
    BOXES_NAME,
    CANDIDATES_NAME,
    EXTRAS_NAME,
    INPUT_NAME,
    METADATA_KEY,
    PROTOTYPES_NAME,
    SCORES_NAME,
    ModelSpec,
    load_spec,
    parse_spec,
)
from trtjob.errors import EngineError, ModelError

CPU_PROVIDER = "CPUExecutionProvider"

# A provider's name and its options.
Provider = tuple[str, dict[str, str]]


def open_session(path: Path, providers: Sequence[Provider], *, model: bytes | None = None) -> Any:
    """Load a model from its file, or `model` in its place. Raises ModelError, EngineError."""
    if not path.is_file():
        raise ModelError(f"no model file '{path}'")
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # operators run on their caller's thread
    options.log_severity_level = LOG_FATAL_ONLY
    try:
        return ort.InferenceSession(os.fspath(path) if model is None else model, options, providers=list(providers))
    except Exception as err:
        if _is_bf16(path):
            raise EngineError(
                f"'{path}' computes in bf16, which ONNX Runtime cannot do on a CPU. Run it on a GPU with TensorRT, or "
                "convert the model with another --precision: int8 is the fastest on a CPU"
            ) from err
        reason = " ".join(str(err).split()).rstrip(".")
        is_on_cpu = providers[0][0] == CPU_PROVIDER
        remedy = "Convert the model again" if is_on_cpu else "See what is missing with: trtjob doctor"
        raise EngineError(f"ONNX Runtime {ort.__version__} cannot load '{path}': {reason}. {remedy}") from err


def spec_of(session: Any, path: Path) -> ModelSpec:
    """Return what a loaded model says of itself, and check that its graph takes and gives that.

    Better here than at the first image. Raises ModelError.
    """
    spec = parse_spec(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
    found = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    last = {
        BOXES_NAME: [4],
        SCORES_NAME: [len(spec.labels)],
        EXTRAS_NAME: [spec.extras],
        PROTOTYPES_NAME: [*(spec.prototypes or ())],
        CANDIDATES_NAME: [WIDTH + spec.extras],
    }
    expected = {name: ("tensor(float)", last[name]) for name in all_names(spec)}
    expected[INPUT_NAME] = ("tensor(uint8)", [*spec.input_hw, spec.channels])
    for name, (kind, last_sizes) in expected.items():
        value = found.get(name)
        if value is None or value.type != kind or not _ends_with(value.shape, last_sizes):
            shown = "nothing of this name" if value is None else f"{value.type} {value.shape}"
            raise ModelError(
                f"'{path}' carries a description that does not fit its graph: expected '{name}' as {kind} "
                f"[..., {', '.join(map(str, last_sizes))}], found {shown}. Convert the original model again"
            )
    return spec


def answer_shape(session: Any, spec: ModelSpec) -> tuple[int, ...]:
    """Return the shape of one image's compact answer."""
    return answer_shape_of({value.name: tuple(value.shape[1:]) for value in session.get_outputs()}, spec)


def _is_bf16(path: Path) -> bool:
    try:
        return load_spec(path).precision == "bf16"
    except ModelError:  # none of ours, or no model at all
        return False


def _ends_with(shape: list[int | str | None], sizes: list[int]) -> bool:
    """Tell whether a value's last sizes are these; one that the graph leaves open may be any."""
    last = shape[len(shape) - len(sizes) :]
    return len(shape) > len(sizes) and all(
        found == size for found, size in zip(last, sizes, strict=True) if isinstance(found, int)
    )
