"""A stand-in for TensorRT's builder, which no machine without a GPU can make: it notes what it is asked for.

It has the names that a version has, as test_api.py found them in the real modules.
"""

from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx

DataType = IntEnum("DataType", ["FLOAT", "HALF", "INT8", "INT32"], start=0)
LayerType = IntEnum("LayerType", ["CONVOLUTION", "QUANTIZE", "DEQUANTIZE", "CAST"], start=0)
_FLAGS = {
    "8.6.1": ["FP16", "INT8", "TF32", "PREFER_PRECISION_CONSTRAINTS"],
    "10.9.0": ["FP16", "INT8", "TF32", "PREFER_PRECISION_CONSTRAINTS"],
    "11.4.0": ["TF32"],
}
_NETWORK_FLAGS = {
    "8.6.1": {"EXPLICIT_BATCH": 0},
    "10.9.0": {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1},
    "11.4.0": {"STRONGLY_TYPED": 0},
}
VERSIONS = tuple(_FLAGS)


class Recording:
    """What a build asked for. flags, previews: that are set; network_flags: of the network; opset: that was parsed."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.flags: set[str] = {"TF32"}  # TensorRT's own default
        self.previews: set[str] = set()
        self.network_flags = -1
        self.opset = 0
        self.fed_caches: list[bytes] = []
        self.has_monitor = False
        self.layers: list[SimpleNamespace] = []
        self.held: list[str] = []

    def module(self) -> Any:
        """Return the module `tensorrt`."""
        sharing = {} if self.version == "11.4.0" else {"PROFILE_SHARING_0806": "sharing"}
        monitor = {} if self.version == "8.6.1" else {"IProgressMonitor": _Monitor}
        return SimpleNamespace(
            __version__=self.version,
            DataType=DataType,
            LayerType=LayerType,
            BuilderFlag=SimpleNamespace(**{name: name for name in _FLAGS[self.version]}),
            NetworkDefinitionCreationFlag=SimpleNamespace(**_NETWORK_FLAGS[self.version]),
            PreviewFeature=SimpleNamespace(**sharing),
            MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
            ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
            Builder=lambda _logger: _Builder(self),
            OnnxParser=lambda network, _logger: _Parser(self, network),
            **monitor,
        )


class _Monitor:
    pass


class _Builder:
    def __init__(self, seen: Recording) -> None:
        self._seen = seen

    def create_network(self, flags: int) -> Any:
        self._seen.network_flags = flags
        return _Network(self._seen)

    def create_builder_config(self) -> Any:
        return _Config(self._seen)

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *_: None)

    def build_serialized_network(self, _network: Any, config: Any) -> bytes:
        self._seen.has_monitor = getattr(config, "progress_monitor", None) is not None
        return b"plan"


class _Config:
    def __init__(self, seen: Recording) -> None:
        self._seen = seen

    def set_flag(self, flag: str) -> None:
        assert self._seen.network_flags != 2 or flag == "TF32", (
            "Error Code 3: a strongly typed network takes no such flag"
        )
        self._seen.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self._seen.flags.discard(flag)

    def set_preview_feature(self, feature: str, is_on: bool) -> None:
        assert is_on
        self._seen.previews.add(feature)

    def add_optimization_profile(self, _profile: Any) -> int:
        return 0

    def create_timing_cache(self, data: bytes) -> bytes:
        self._seen.fed_caches.append(data)
        return data

    def set_timing_cache(self, _cache: bytes, _ignores_mismatch: bool) -> bool:
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"learnt")


class _Network:
    def __init__(self, seen: Recording) -> None:
        self._seen = seen
        self.num_inputs = 1

    def get_input(self, _index: int) -> Any:
        return SimpleNamespace(name="images", shape=(-1, 4, 5, 3))

    @property
    def num_layers(self) -> int:
        return len(self._seen.layers)

    def get_layer(self, index: int) -> Any:
        return self._seen.layers[index]


class _Parser:
    """Makes a layer of each node, whose values have float32 though the graph says half, as 8.6 has it on a GPU."""

    def __init__(self, seen: Recording, _network: Any) -> None:
        self._seen = seen

    def parse_from_file(self, path: str) -> bool:
        model = onnx.load(Path(path))
        self._seen.opset = model.opset_import[0].version
        for node in model.graph.node:
            values = [SimpleNamespace(name=name, dtype=DataType.FLOAT) for name in node.output]
            if node.op_type == "TopK":
                values[1].dtype = DataType.INT32
            self._seen.layers.append(
                SimpleNamespace(
                    type={"QuantizeLinear": LayerType.QUANTIZE, "DequantizeLinear": LayerType.DEQUANTIZE}.get(
                        node.op_type, LayerType.CONVOLUTION
                    ),
                    num_outputs=len(values),
                    get_output=values.__getitem__,
                    set_output_type=lambda index, _kind, values=values: self._seen.held.append(values[index].name),
                )
            )
        return True
