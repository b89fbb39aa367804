"""The check of a plan before it is kept: it must say of an image what ONNX Runtime says on the CPU.

A parser that reads a graph by the rules of another version does not fail; the plan runs, and answers wrongly.
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, numpy_helper

from trtjob.engines.bf16_opset import as_before_bf16
from trtjob.engines.graph_walk import inner_graphs
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.onnxruntime.package import onnxruntime
from trtjob.engines.onnxruntime.session import CPU_PROVIDER
from trtjob.engines.protocol import Engine, FloatArray, Outputs, UInt8Array, output_names, outputs_of
from trtjob.engines.spec import INPUT_NAME, ModelSpec
from trtjob.engines.tensorrt.agreement import disagreement, inconsistency
from trtjob.engines.tensorrt.half_sums import round_sums
from trtjob.engines.tensorrt.int8_activations import free_activations
from trtjob.errors import EngineError

log = logging.getLogger(__name__)

_SEED = 11
_SHAPES = 12


def check_plan(plan: Engine, model: Path, *, batch: int, title: str) -> None:
    """Run a plan and its model on one image, `batch` times over. Raises EngineError where they disagree.

    Warns where an answer depends on its place in the batch. title: of what built the plan, for messages.
    """
    spec = plan.spec
    image = lively_image(spec)
    found = plan.infer(np.repeat(image, batch, axis=0))
    answers: list[FloatArray] = [np.empty(plan.answer_shape, np.float32) for _ in range(batch)]
    plan.answer([image[0]] * batch, answers)
    expected = reference(model, spec, image)
    expected_too: Outputs | None = None
    for at in {0, batch - 1}:
        one = found.of_image(at)
        problem = disagreement(one, expected, spec, expected_too=expected_too)
        if problem is not None and expected_too is None:
            expected_too = rounded_too(model, spec, image)
            problem = disagreement(one, expected, spec, expected_too=expected_too)
        if problem := problem or inconsistency(answers[at], one, spec):
            raise EngineError(
                f"the plan that {title} built of '{model.name}' does not answer as the model does on a CPU: {problem}. "
                "It is not used. Please report it, and use --engine cuda or cpu meanwhile"
            )
    apart = [at for at in range(1, batch) if answers[at].tobytes() != answers[0].tobytes()]
    if apart:
        log.warning(
            f"{title} answers the same image otherwise at {len(apart)} of {batch} places of a batch: the last digits "
            f"of results of '{model.name}' depend on what an image came with, and are not the same in every run"
        )


def reference(model: Path, spec: ModelSpec, image: UInt8Array) -> Outputs:
    """Return what ONNX Runtime says of a batch on the CPU; of bf16, which it has not, the same in float32."""
    if spec.precision != "bf16":
        with open_engine(model, threads=1) as engine:
            return engine.infer(image)
    with TemporaryDirectory(prefix="trtjob-bf16-") as folder:
        path = Path(folder) / model.name
        proto = onnx.load(model)
        without_bf16(proto.graph)
        as_before_bf16(proto)
        path.write_bytes(proto.SerializeToString())
        with open_engine(path, threads=1) as engine:
            return engine.infer(image)


def rounded_too(model: Path, spec: ModelSpec, image: UInt8Array) -> Outputs | None:
    """Return what ONNX Runtime says of an image where it rounds as TensorRT does; None where it does anyway, or cannot.

    In int8 it then computes every node by itself, and activations as TensorRT 8.6 has them: values are rounded at other
    places, by one step more or less. In half it rounds sums while they grow.
    """
    proto = onnx.load(model)
    ort = onnxruntime()
    options = ort.SessionOptions()
    if spec.precision == "int8":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        free_activations(proto.graph)
    elif spec.precision != "fp16" or not round_sums(proto.graph):
        return None
    names = output_names(spec)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=[CPU_PROVIDER])
        found = session.run(names, {INPUT_NAME: image})
    except Exception as err:  # noqa: BLE001 - its errors are of no common class; the plan is judged without
        log.debug("no second reference", extra={"error": " ".join(str(err).split())})
        return None
    return outputs_of(dict(zip(names, found, strict=True)))


def without_bf16(graph: GraphProto) -> None:
    """Make float32 of all that is bf16 in a graph, in place; its weights stay rounded."""
    del graph.value_info[:]  # it speaks of bf16
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
            _widen(attribute.t)
        for inner in inner_graphs(node):
            without_bf16(inner)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.BFLOAT16:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def lively_image(spec: ModelSpec) -> UInt8Array:
    """Return a batch of one image, always the same, with something everywhere: shades, grain, edges and plain shapes.

    uint8 [1, H, W, channels]. Of a black one all candidates would be equal, and none could be out of place.
    """
    random = np.random.default_rng(_SEED)
    image = _shades(random, (*spec.input_hw, spec.channels))
    for number in range(_SHAPES):
        _draw_shape(image, random, is_round=number % 2 == 0)
    return np.clip(image, 0, 255).astype(np.uint8)[None]


def _shades(random: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return noise of all sizes: blocks of the whole image down to single pixels."""
    height, width, channels = shape
    total = np.full(shape, 120.0)
    for side in (1, 3, 8, 20, 50, max(height, width)):
        blocks = random.normal(size=(side, side, channels))
        total += 28 * blocks[np.arange(height) * side // height][:, np.arange(width) * side // width]
    return total


def _draw_shape(image: NDArray[np.float64], random: np.random.Generator, *, is_round: bool) -> None:
    height, width, channels = image.shape
    ys, xs = np.mgrid[:height, :width]
    y, x = random.uniform(0, height), random.uniform(0, width)
    radii = random.uniform(0.04, 0.25, 2) * (height, width)
    away = np.abs(ys - y) / radii[0], np.abs(xs - x) / radii[1]
    inside = away[0] ** 2 + away[1] ** 2 <= 1 if is_round else np.maximum(*away) <= 1
    image[inside] = random.uniform(0, 255, channels) + random.normal(0, 6, (int(inside.sum()), channels))
