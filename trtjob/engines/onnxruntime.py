"""ONNX Runtime on the CPU: the engine that is always there, and the reference for the others."""

import os
import platform
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from trtjob.engines.protocol import Outputs, UInt8Array, check_batch
from trtjob.engines.spec import BOXES_NAME, INPUT_NAME, METADATA_KEY, SCORES_NAME, Task, load_spec, parse_spec
from trtjob.errors import EngineError, ModelError

_LOG_ERRORS_ONLY = 3  # ONNX Runtime's severities: 0 verbose .. 4 fatal
_X86 = frozenset({"x86_64", "AMD64"})


def open_engine(path: Path, *, threads: int = 0) -> "OnnxRuntimeEngine":
    """Load a self-describing ONNX model for `threads` concurrent callers; 0: one for each core of this process.

    Raises ModelError where the file is missing or is none of ours, EngineError where ONNX Runtime cannot run it.
    """
    return OnnxRuntimeEngine(path, threads=threads or len(os.sched_getaffinity(0)))


class OnnxRuntimeEngine:
    """One session whose operators run on their caller's thread, called from as many threads as there are cores.

    Cores that work on an image each never wait for one another, which cores that share one image do at every layer.
    And an image's result cannot depend on its neighbours in a batch: a batch is run one image at a time.
    """

    name = "onnxruntime"
    max_batch = 1

    def __init__(self, path: Path, *, threads: int) -> None:
        if not path.is_file():
            raise ModelError(f"no model file '{path}'")
        self._session = _session(os.fspath(path), path)
        self.spec = parse_spec(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
        if self.spec.precision == "int8" and platform.machine() in _X86:
            from trtjob.engines.unsigned import with_unsigned_values  # imports onnx

            self._session = _session(with_unsigned_values(path), path)
        self.device = "CPU"
        self.concurrency = threads
        self._names = [SCORES_NAME] if self.spec.task is Task.CLASSIFY else [BOXES_NAME, SCORES_NAME]
        self._check_graph(path)

    def _check_graph(self, path: Path) -> None:
        """Raise ModelError unless the graph takes and gives what its spec says: better here than at the first image."""
        spec = self.spec
        found = {value.name: value for value in (*self._session.get_inputs(), *self._session.get_outputs())}
        expected: dict[str, tuple[str, list[int]]] = {name: ("tensor(float)", [4]) for name in self._names}
        expected[SCORES_NAME] = ("tensor(float)", [len(spec.labels)])
        expected[INPUT_NAME] = ("tensor(uint8)", [*spec.input_hw, spec.channels])
        for name, (kind, last_sizes) in expected.items():
            value = found.get(name)
            if value is None or value.type != kind or not _ends_with(value.shape, last_sizes):
                shown = "nothing of this name" if value is None else f"{value.type} {value.shape}"
                raise ModelError(
                    f"'{path}' carries a description that does not fit its graph: expected '{name}' as {kind} "
                    f"[..., {', '.join(map(str, last_sizes))}], found {shown}. Convert the original model again"
                )

    def infer(self, images: UInt8Array) -> Outputs:
        check_batch(images, self.spec)
        session = self._session
        if session is None:
            raise EngineError("the engine is closed")
        try:
            runs = [session.run(self._names, {INPUT_NAME: image[None]}) for image in images]
        except Exception as err:
            raise EngineError(f"ONNX Runtime failed: {err}") from err
        *boxes, scores = runs[0] if len(runs) == 1 else [np.concatenate(parts) for parts in zip(*runs, strict=True)]
        return Outputs(boxes[0] if boxes else None, scores)

    def close(self) -> None:
        # Callers still inside `infer` hold the session themselves; its memory goes with the last of them.
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _session(model: str | bytes, path: Path) -> Any:
    """Load a model, from its file's name or from bytes; `path` names it in errors."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as err:
        if _is_bf16(path):
            raise EngineError(
                f"'{path}' computes in bf16, which ONNX Runtime cannot do on a CPU. Run it on a GPU with TensorRT, or "
                "convert the model with another --precision: int8 is the fastest on a CPU"
            ) from err
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load '{path}': {err}. Convert the model again"
        ) from err


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
