"""Feed damaged graphs to the ONNX converter: `python damaged_graphs.py COUNT SEED FOLDER [MODEL_FOLDER ...]`.

Each is one of the families' small graphs, or of the models in MODEL_FOLDERs, with one kind of damage that leaves a
readable file. Each must be converted or refused in one line, within 20 seconds and a bounded memory; whatever else
happens ends this process with a message, or kills it.
"""

import collections
import faulthandler
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from converters.damage import LONGEST_MESSAGE, damaged
from converters.onnx.family_cases import CASES, LABELS
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.converters.onnx.convert import convert
from trtjob.converters.request import ConversionRequest
from trtjob.errors import TrtjobError

LONGEST_S = 20
HEADROOM_BYTES = 1_000_000_000
HUGE = (0, -1, 1 << 15, 1 << 31, 1 << 40, (1 << 63) - 1)
TYPES = tuple(TensorProto.DataType.values())

Random = np.random.Generator
Damage = Callable[[ModelProto, Random], None]


def _any_node(model: ModelProto, random: Random) -> NodeProto:
    nodes: list[NodeProto] = list(model.graph.node)
    return nodes[int(random.integers(len(nodes)))]


def _names(model: ModelProto) -> list[str]:
    made = [name for node in model.graph.node for name in node.output]
    return [*made, *(value.name for value in (*model.graph.initializer, *model.graph.input)), "", "nowhere"]


def _drop_node(model: ModelProto, random: Random) -> None:
    model.graph.node.remove(_any_node(model, random))


def _drop_attribute(model: ModelProto, random: Random) -> None:
    having = [node for node in model.graph.node if node.attribute]
    node = having[int(random.integers(len(having)))]
    del node.attribute[int(random.integers(len(node.attribute)))]


def _odd_attribute(model: ModelProto, random: Random) -> None:
    node = _any_node(model, random)
    name = node.attribute[0].name if node.attribute else "axis"
    del node.attribute[:]
    values = (int(random.choice(HUGE)), [int(random.choice(HUGE))] * 3, "text", float("nan"), model.graph)
    node.attribute.append(helper.make_attribute(name, values[int(random.integers(len(values)))]))


def _drop_constant(model: ModelProto, random: Random) -> None:
    if model.graph.initializer:
        del model.graph.initializer[int(random.integers(len(model.graph.initializer)))]


def _drop_value(model: ModelProto, random: Random) -> None:
    values = model.graph.input if random.integers(2) else model.graph.output
    if values:
        del values[int(random.integers(len(values)))]


def _odd_type(model: ModelProto, random: Random) -> None:
    kind = int(random.choice([*TYPES, 99]))
    match random.integers(3):
        case 0:
            values = (*model.graph.input, *model.graph.output)
            values[int(random.integers(len(values)))].type.tensor_type.elem_type = kind
        case 1 if model.graph.initializer:
            model.graph.initializer[int(random.integers(len(model.graph.initializer)))].data_type = kind
        case _:
            for node in model.graph.node:
                for attribute in node.attribute:
                    if attribute.name == "to":
                        attribute.i = kind


def _huge_size(model: ModelProto, random: Random) -> None:
    size = int(random.choice(HUGE))
    match random.integers(3):
        case 0:
            values = (*model.graph.input, *model.graph.output)
            dims = values[int(random.integers(len(values)))].type.tensor_type.shape.dim
            if dims:
                dims[int(random.integers(len(dims)))].dim_value = size
        case 1 if model.graph.initializer:
            dims = model.graph.initializer[int(random.integers(len(model.graph.initializer)))].dims
            dims[:] = [*dims[:-1], size]
        case _:  # a graph that makes large values of nothing
            model.graph.initializer.append(numpy_helper.from_array(np.array([size, 1 << 20], np.int64), "huge"))
            model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["large"]))
            _any_node(model, random).input[:1] = ["large"]


def _rewire(model: ModelProto, random: Random) -> None:
    """Let a node read another value: another one's, its own, a later one's, or none."""
    node, names = _any_node(model, random), _names(model)
    if node.input:
        node.input[int(random.integers(len(node.input)))] = names[int(random.integers(len(names)))]


def _circle(model: ModelProto, random: Random) -> None:
    node, last = _any_node(model, random), model.graph.node[-1]
    if node.input:
        node.input[0] = last.output[0]


def _other_operator(model: ModelProto, random: Random) -> None:
    node = _any_node(model, random)
    operators = ("Loop", "If", "Scan", "Tile", "Expand", "Range", "NonZero", "Unsqueeze", "Einsum", "Nonsense", "")
    node.op_type = str(random.choice(operators))
    if random.integers(4) == 0:
        node.domain = str(random.choice(["com.microsoft", "ai.onnx.ml", "com.example"]))


def _odd_numbers(model: ModelProto, random: Random) -> None:
    having = [tensor for tensor in model.graph.initializer if tensor.raw_data]
    if not having:
        return
    tensor = having[int(random.integers(len(having)))]
    fill = (b"\xff", b"\x7f", b"\x80", b"\x00")[int(random.integers(4))]
    tensor.raw_data = fill * len(tensor.raw_data)


def _elsewhere(model: ModelProto, random: Random) -> None:
    if not model.graph.initializer:
        return
    tensor = model.graph.initializer[int(random.integers(len(model.graph.initializer)))]
    tensor.data_location = TensorProto.EXTERNAL
    places = ("../net.onnx", "/etc/passwd", "net.onnx", "nowhere.bin", ".", "", "net.onnx/x", "~/x", "\\\\host\\x")
    entries = {
        "location": str(random.choice(places)),
        "offset": str(random.choice(["0", "-1", "9" * 30, "x", ""])),
        "length": str(random.choice(["4", "-1", "9" * 30, "1e3"])),
    }
    del tensor.external_data[:]
    for key, value in entries.items():
        if random.integers(4):
            tensor.external_data.add(key=key, value=value)


def _odd_opset(model: ModelProto, random: Random) -> None:
    model.opset_import[0].version = int(random.choice([0, 1, 6, 7, 9, 10, 12, 13, 22, 1 << 40]))


def _odd_metadata(model: ModelProto, random: Random) -> None:
    keys = ("names", "task", "stride", "imgsz", "args", "head", "kpt_shape", "end2end", "trtjob", "description")
    values = (
        "",
        "{",
        "{0: 'a'}",
        "{0: 1, 2: 3}",
        "[" * 5000,
        "9" * 5000,
        "detect",
        "segment",
        "pose",
        "obb",
        "-1",
        "\0",
    )
    for _ in range(3):
        model.metadata_props.add(key=str(random.choice(keys)), value=str(random.choice(values)))


def _twice(model: ModelProto, random: Random) -> None:
    copy = NodeProto()
    copy.CopyFrom(_any_node(model, random))
    model.graph.node.append(copy)


def _nested(model: ModelProto, random: Random) -> None:
    """Put graphs in graphs, deeper than a reader's stack may go."""
    graph = helper.make_graph([_any_node(model, random)], "inner", [], [])
    for _ in range(int(random.choice([2, 30]))):
        node = helper.make_node("If", ["nowhere"], ["x"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "inner", [], [])
        if graph.ByteSize() > 200_000:  # it doubles each time
            break
    _any_node(model, random).attribute.append(helper.make_attribute("body", graph))


DAMAGES: tuple[Damage, ...] = (
    _drop_node,
    _drop_attribute,
    _odd_attribute,
    _drop_constant,
    _drop_value,
    _odd_type,
    _huge_size,
    _rewire,
    _circle,
    _other_operator,
    _odd_numbers,
    _elsewhere,
    _odd_opset,
    _odd_metadata,
    _twice,
    _nested,
)

Source = tuple[str, bytes, ConversionRequest]


def sources(folder: Path, models: list[Path]) -> Iterator[Source]:
    """Yield a name, the file's bytes and how it is converted; each lies in a folder of its own."""
    for number, case in enumerate(CASES):
        place = folder / str(number)
        place.mkdir()
        for name, document in case.documents.items():
            (place / name).write_text(json.dumps(document))
        (place / "net.names").write_text("\n".join(LABELS) + "\n")
        yield (
            f"{case.family} {case.id}".strip(),
            case.model().SerializeToString(),
            ConversionRequest(model=place / "net.onnx", **case.options),
        )
    for model in models:
        place = folder / model.name
        place.mkdir()
        for document in model.glob("*config.json"):
            (place / document.name).write_bytes(document.read_bytes())
        labels = json.loads((model / "expected.json").read_text())["labels"]
        (place / "net.names").write_text("\n".join(labels) + "\n")
        yield model.name, (model / "model.onnx").read_bytes(), ConversionRequest(model=place / "net.onnx")


def damaged_file(data: bytes, random: Random) -> tuple[str, bytes]:
    """Return the kind of damage, and a damaged file: its bytes, or its graph."""
    number = int(random.integers(len(DAMAGES) + 4))
    if number >= len(DAMAGES):
        return "bytes", damaged(data, random)
    model = onnx.load_from_string(data)
    DAMAGES[number](model, random)
    return DAMAGES[number].__name__.strip("_"), model.SerializeToString()


def refusal(request: ConversionRequest) -> str | None:
    """Return the one line with which a file is refused, None where it is converted."""
    try:
        convert(request)
    except TrtjobError as err:
        message = str(err)
        assert message, "refused without a word"
        assert "\n" not in message, f"more than one line: {message}"
        assert len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]}"
        return message
    return None


def main(count: int, seed: int, folder: Path, models: list[Path]) -> None:
    every = list(sources(folder, models))
    for _, data, request in every[:1]:
        request.model.write_bytes(data)
        refusal(request)  # everything is imported by now
    _limit_memory()
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest = (0.0, "")
    for number in range(count):
        random = np.random.default_rng([seed, number])
        name, data, request = every[number % len(every)]
        kind, spoilt = damaged_file(data, random)
        request.model.write_bytes(spoilt)
        faulthandler.dump_traceback_later(LONGEST_S, exit=True)
        began = time.monotonic()
        try:
            message = refusal(request)
        except BaseException:
            sys.stderr.write(f"damage {number} of seed {seed}, {kind}, to {name}:\n")
            raise
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, (time.monotonic() - began, f"{number} {kind} {name}"))
        counts[kind]["converted" if message is None else "refused"] += 1
        sys.stderr.write(f"{number}\t{kind}\t{name}\t{message}\n")
    refused = sum(kind["refused"] for kind in counts.values())
    sys.stdout.write(f"{refused} of {count} refused\n")
    for kind in sorted(counts):
        sys.stdout.write(f"{kind}: {dict(counts[kind])}\n")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    sys.stdout.write(f"slowest: {slowest[0]:.1f} s, {slowest[1]}; most memory: {peak_mib} MiB\n")


def _limit_memory() -> None:
    data_pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit = data_pages * resource.getpagesize() + HEADROOM_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), [Path(path) for path in sys.argv[4:]])
