"""Feed damaged models to the converters, in a process of its own: `python damage.py COUNT SEED FOLDER KIND...`.

Each damaged file must be converted or refused with one line. Whatever else happens ends the process with a message, or
kills it, which is what the test looks for. Memory is bounded by the operating system: a reader that believes a damaged
length gets no memory for it, and its MemoryError is a failure.
"""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert
from trtjob.errors import TrtjobError
from trtjob.garbage import lasting

# Beyond what is taken when whole models have been converted: four times a file is less, for small ones.
HEADROOM_BYTES = 96_000_000
TENSORFLOW_HEADROOM_BYTES = 1_500_000_000  # its threads reserve addresses that they never use
LONGEST_MESSAGE = 2_000

Samples = tuple[ConversionRequest, Path]  # what to convert, and the file to damage


def darknet(part: str) -> Callable[[Path], Samples]:
    """Return a maker of Darknet models, one of whose files is to be damaged."""

    def make(folder: Path) -> Samples:
        from converters.darknet import networks

        weights = networks.write_model(folder)
        return ConversionRequest(model=weights), folder / f"net.{part}"

    return make


def onnx_classifier(folder: Path) -> Samples:
    """A small network as PyTorch exports it: float32 [N, 3, 8, 8] in, probabilities of three classes out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    constants = {"w": random.normal(size=(4, 3, 3, 3)), "m": random.normal(size=(4, 3))}
    nodes = [
        helper.make_node("Conv", ["pixels", "w"], ["features"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "m"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert onnx.load(path).graph.node
    return ConversionRequest(model=path, labels=_labels(folder), preprocess="unit"), path


def onnx_segmenter(folder: Path) -> Samples:
    """A small export for segmentation: boxes with coefficients, and prototypes."""
    from converters.onnx import graphs

    made = graphs.detector(metadata={**graphs.ULTRALYTICS, "task": "segment"}, extras=8, prototypes=8)
    request = graphs.save(made, folder / "seg.onnx")
    return request, request.model


def keras_model(suffix: str) -> Callable[[Path], Samples]:
    """Return a maker of small Keras classifiers."""

    def make(folder: Path) -> Samples:
        import keras

        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, activation="softmax"),
            ]
        )
        path = folder / f"net{suffix}"
        model.save(path)
        return ConversionRequest(model=path, labels=_labels(folder), preprocess="unit"), path

    return make


def frozen_graph(folder: Path) -> Samples:
    """A TensorFlow graph with its weights as constants."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="pixels")
        kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32))
        features = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(pixels, kernel, 1, "SAME")), [1, 2])
        matrix = tf.constant(np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32))
        tf.nn.softmax(features @ matrix, name="probabilities")
    path = folder / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return ConversionRequest(model=path, labels=_labels(folder), preprocess="unit"), path


def _labels(folder: Path) -> Path:
    path = folder / "net.names"
    path.write_text("cat\ndog\ncow\n")
    return path


KINDS: dict[str, Callable[[Path], Samples]] = {
    "cfg": darknet("cfg"),
    "names": darknet("names"),
    "weights": darknet("weights"),
    "onnx": onnx_classifier,
    "segment": onnx_segmenter,
    "keras": keras_model(".keras"),
    "h5": keras_model(".h5"),
    "pb": frozen_graph,
}
OF_TENSORFLOW = ("keras", "h5", "pb")


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Return the file with one kind of damage: cut off, or bytes changed, removed, doubled or blown up."""
    at, end = sorted(int(n) for n in random.integers(0, len(data) + 1, 2))
    match random.integers(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:end] + data[at:]
        case 3:
            return data[:at] + random.bytes(min(end - at, 64)) + data[min(end, at + 64) :]
        case 4:  # a length or a size that is far too large
            return data[:at] + b"\xff" * 4 + data[at + 4 :]
        case _:
            spoilt = bytearray(data)
            for _ in range(int(random.integers(1, 8))):
                spoilt[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
            return bytes(spoilt)


def main(count: int, seed: int, folder: Path, kinds: list[str]) -> None:
    samples = {}
    with lasting():  # after each model that is closed all memory is searched for garbage
        for kind in kinds:
            (folder / kind).mkdir()
            samples[kind] = KINDS[kind](folder / kind)
            convert(samples[kind][0])  # whole, it must be fine; and everything is imported by now
    _limit_memory(TENSORFLOW_HEADROOM_BYTES if kinds[0] in OF_TENSORFLOW else HEADROOM_BYTES)
    for request, victim in samples.values():
        sys.stdout.write(f"{_refused(request, victim, count, seed)} of {count} refused\n")


def _refused(request: ConversionRequest, victim: Path, count: int, seed: int) -> int:
    """Convert a model so many times with a file damaged; return how often it was refused."""
    whole, refused = victim.read_bytes(), 0
    for number in range(count):
        victim.write_bytes(damaged(whole, np.random.default_rng([seed, number])))
        try:
            convert(request)
        except TrtjobError as err:
            refused += 1
            message = str(err)
            assert message, f"{number}: refused without a word"
            assert "\n" not in message, f"{number}: more than one line: {message}"
            assert len(message) <= LONGEST_MESSAGE, f"{number}: {len(message)} characters: {message[:200]}"
        except BaseException:
            sys.stderr.write(f"damage {number} of seed {seed} to {victim.name}:\n")
            raise
    return refused


def _limit_memory(headroom_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + headroom_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
