from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from converters.precision import nets
from converters.precision.test_int8 import int8_of
from engines import tiny

from trtjob.engines.onnxruntime.unsigned import with_unsigned_values


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Sigmoid", "Mish"])
def test_unsigned_values_change_no_bit_of_the_answers(tmp_path: Path, activation: str) -> None:
    images = nets.images(3)
    signed = int8_of(nets.plain_classifier(activation=activation), images)
    onnx.save(signed, tmp_path / "signed.onnx")
    unsigned = onnx.load_from_string(with_unsigned_values(tmp_path / "signed.onnx"))
    expected, found = (nets.run(model, images)["scores"] for model in (signed, unsigned))
    np.testing.assert_array_equal(found, expected)


def test_a_value_that_two_layers_read_is_computed_in_integers(tmp_path: Path) -> None:
    """Signed, ONNX Runtime computes both layers in float32."""
    nodes = [
        nets.layer("Conv", ["pixels", "k"], "a"),
        nets.layer("Conv", ["a", "k"], "b"),
        nets.layer("Conv", ["b", "k"], "c"),
        nets.layer("Conv", ["b", "k"], "d"),
        nets.layer("Add", ["c", "d"], "sum"),
        nets.layer("Conv", ["sum", "k"], "e"),
        nets.layer("GlobalAveragePool", ["e"], "mean"),
        nets.layer("Flatten", ["mean"], "scores"),
    ]
    images = nets.images(2)
    onnx.save(int8_of(nets.classifier(nodes, {"k": nets.kernel(3, 3)}, 3), images), tmp_path / "signed.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        with_unsigned_values(tmp_path / "signed.onnx"), options, providers=["CPUExecutionProvider"]
    )
    ops = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ops.count("QLinearConv") == 3


def test_a_float_model_stays_as_it_is(tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "tiny.onnx")
    assert onnx.load_from_string(with_unsigned_values(path)) == onnx.load(path)
