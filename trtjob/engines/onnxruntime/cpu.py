"""ONNX Runtime on the CPU: the engine that is always there, and the reference for the others."""

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from trtjob.cpus import usable_cpus
from trtjob.engines.answers import parts_of
from trtjob.engines.onnxruntime.session import CPU_PROVIDER, Provider, answer_shape, open_session, spec_of
from trtjob.engines.protocol import (
    AnyImage,
    Engine,
    FloatArray,
    Outputs,
    UInt8Array,
    answer_names,
    check_batch,
    check_images,
    on_host,
    output_names,
    outputs_of,
)
from trtjob.engines.spec import INPUT_NAME
from trtjob.errors import EngineError

_X86 = frozenset({"x86_64", "AMD64"})
_PROVIDERS: list[Provider] = [(CPU_PROVIDER, {})]


def open_engine(path: Path, *, threads: int = 0) -> "CpuEngine":
    """Load a self-describing ONNX model for `threads` concurrent callers; 0: for each CPU that it may use.

    Raises ModelError where the file is missing or is none of ours, EngineError where ONNX Runtime cannot run it.
    """
    return CpuEngine(path, threads=threads or usable_cpus())


class CpuEngine(Engine):
    """One session whose operators run on their caller's thread, called from as many threads as there are cores.

    Cores that work on an image each never wait for one another, which cores that share one image do at every layer.
    And an image's result cannot depend on its neighbours in a batch: a batch is run one image at a time.
    """

    name = "cpu"
    max_batch = 1

    def __init__(self, path: Path, *, threads: int) -> None:
        self._session = open_session(path, _PROVIDERS)
        self.spec = spec_of(self._session, path)
        if self.spec.precision == "int8" and platform.machine() in _X86:
            from trtjob.engines.onnxruntime.unsigned import with_unsigned_values  # imports onnx

            self._session = open_session(path, _PROVIDERS, model=with_unsigned_values(path))
        self.device = "CPU"
        self.concurrency = threads
        self.answer_shape = answer_shape(self._session, self.spec)

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        check_images(images, into, self.spec)
        names = answer_names(self.spec)
        for found, answer in zip(self._runs(on_host(images), names), into, strict=True):
            parts = parts_of(answer, self.spec)
            for name, output in zip(names, found, strict=True):
                parts[name][...] = output[0]

    def infer(self, images: UInt8Array) -> Outputs:
        check_batch(images, self.spec)
        names = output_names(self.spec)
        runs = zip(*self._runs(images, names), strict=True)
        return outputs_of({name: np.concatenate(parts) for name, parts in zip(names, runs, strict=True)})

    def _runs(self, images: Iterable[UInt8Array], names: list[str]) -> list[list[FloatArray]]:
        """Return some outputs of each image, [1, ...]."""
        session = self._session
        if session is None:
            raise EngineError("the engine is closed")
        try:
            return [session.run(names, {INPUT_NAME: image[None]}) for image in images]
        except Exception as err:
            raise EngineError(f"ONNX Runtime failed: {err}") from err

    def close(self) -> None:
        # Callers still inside hold the session themselves; its memory goes with the last of them.
        self._session = None
