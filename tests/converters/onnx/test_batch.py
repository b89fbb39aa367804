"""A batch that an exporter fixed is set free where the graph allows it, and where it is seen to work."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from converters.onnx import graphs

from trtjob.converters.artefact import Converted, serialised
from trtjob.converters.onnx.convert import convert
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import FloatArray
from trtjob.errors import ConversionError


def batch_of(found: Converted) -> int | str:
    dim = found.model.graph.input[0].type.tensor_type.shape.dim[0]
    return str(dim.dim_param) or int(dim.dim_value)


def scores(found: Converted, count: int) -> FloatArray:
    session = onnxruntime.InferenceSession(serialised(found.model, found.spec), providers=["CPUExecutionProvider"])
    outputs: list[FloatArray] = session.run(["scores"], {"images": graphs.images(count)})
    return outputs[0]


@pytest.mark.parametrize(
    ("batch", "fixed_reshape"),
    [
        pytest.param("batch", False, id="dynamic"),
        pytest.param(1, False, id="one"),
        pytest.param(1, True, id="one, and in a reshape"),
    ],
)
def test_a_graph_takes_any_batch(batch: graphs.Size, fixed_reshape: bool, tmp_path: Path) -> None:
    request = graphs.save(graphs.detector(batch=batch, fixed_reshape=fixed_reshape), tmp_path / "net.onnx")
    found = convert(request)
    assert batch_of(found) == "N"
    alone = scores(convert(graphs.save(graphs.detector(), tmp_path / "plain.onnx")), 3)
    np.testing.assert_allclose(scores(found, 3), alone, rtol=1e-5)


@pytest.mark.parametrize("allowzero", [0, 1])
def test_a_reshape_with_allowzero_is_set_free(allowzero: int, tmp_path: Path) -> None:
    made = graphs.detector(batch=1, fixed_reshape=True)
    made.graph.node[1].attribute.append(onnx.helper.make_attribute("allowzero", allowzero))
    assert batch_of(convert(graphs.save(made, tmp_path / "net.onnx"))) == "N"


def test_an_export_for_four_images_is_set_free(tmp_path: Path) -> None:
    made = graphs.detector(batch=4, fixed_reshape=True)
    shape = next(tensor for tensor in made.graph.initializer if tensor.name == "flat_shape")
    shape.CopyFrom(graphs.constant("flat_shape", [4, 7, -1], np.int64))
    found = convert(graphs.save(made, tmp_path / "net.onnx"))
    assert batch_of(found) == "N"
    alone = scores(convert(graphs.save(graphs.detector(), tmp_path / "plain.onnx")), 3)
    np.testing.assert_allclose(scores(found, 3), alone, rtol=1e-5)


def first_image_only(batch: graphs.Size) -> onnx.ModelProto:
    """A graph that takes the first image out of its batch, as NMS inside a graph does."""
    made = graphs.detector("final", batch=batch, metadata={**graphs.ULTRALYTICS, "args": "{'nms': True}"})
    made.graph.node[-1].output[0] = "all"
    made.graph.initializer.append(graphs.constant("first", [0], np.int64))
    made.graph.node.append(graphs.node("Gather", "all first", "output0", axis=0))
    return made


@pytest.mark.parametrize("batch", [pytest.param(1, id="said"), pytest.param("batch", id="not said")])
def test_a_graph_for_one_image_stays_one(batch: graphs.Size, tmp_path: Path) -> None:
    found = convert(graphs.save(first_image_only(batch), tmp_path / "net.onnx"))
    assert batch_of(found) == 1
    assert any("one image at a time" in note for note in found.notes)
    file = tmp_path / "out.onnx"
    file.write_bytes(serialised(found.model, found.spec))
    with open_engine(file) as engine:
        outputs = engine.infer(graphs.images(3))
    assert found.reference is not None
    np.testing.assert_allclose(outputs.scores, found.reference.run(graphs.images(3)).scores, rtol=1e-5)


def test_a_graph_that_mixes_its_images_up_stays_one(tmp_path: Path) -> None:
    """Its shapes fit a batch of two; its values do not."""
    made = graphs.detector(batch=1)
    made.graph.node[-1].output[0] = "all"
    made.graph.node.extend(
        [
            graphs.node("ReduceMean", "all", "mean", axes=[0], keepdims=1),
            graphs.node("Sub", "all mean", "difference"),
            graphs.node("Add", "difference all", "output0"),
        ]
    )
    assert batch_of(convert(graphs.save(made, tmp_path / "net.onnx"))) == 1


def test_a_graph_for_four_that_cannot_be_set_free_is_refused(tmp_path: Path) -> None:
    made = graphs.detector(batch=4)
    made.graph.node[-1].output[0] = "all"
    made.graph.initializer.append(graphs.constant("order", [3, 2, 1, 0], np.int64))
    made.graph.node.append(graphs.node("Gather", "all order", "output0", axis=0))
    with pytest.raises(ConversionError, match=r"made for 4 images at once. Export it again with a batch of 1"):
        convert(graphs.save(made, tmp_path / "net.onnx"))
