from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import build_layers, normal, run_graph, run_layers
from onnx import TensorProto, helper

from trtjob.converters.darknet.layers import LAYERS
from trtjob.engines.spec import INPUT_NAME
from trtjob.errors import DarknetWeightsError

# One case or more in a test of the module that has the layer, or of its head.
TESTED = """
    activation avgpool batchnorm connected contrastive convolutional cost crop detection dropout empty Gaussian_yolo
    implicit local local_avgpool maxpool normalization region reorg reorg3d route sam scale_channels shortcut softmax
    upsample yolo
"""


def test_every_layer_is_tested() -> None:
    assert sorted(LAYERS) == sorted(TESTED.split())


@pytest.mark.parametrize("layer", ["[dropout]\nprobability=.5\n", "[cost]\ntype=sse\n", "[empty]\n", "[silence]\n"])
def test_what_only_training_looks_at_changes_nothing(tmp_path: Path, layer: str) -> None:
    x = normal(2, 3, 4)
    assert np.array_equal(run_layers(tmp_path, layer, [x]), x)


def test_an_activation_may_be_a_layer(tmp_path: Path) -> None:
    x = normal(2, 3, 4)
    assert np.array_equal(run_layers(tmp_path, "[activation]\nactivation=relu\n", [x]), np.maximum(x, 0))


def test_nothing_can_read_what_compares_embeddings(tmp_path: Path) -> None:
    net = build_layers(tmp_path, "[contrastive]\nclasses=2\nyolo_layer=-2\n", [normal(2, 3, 4)])
    assert net.outputs[-1].is_head


@pytest.mark.parametrize(("options", "shape"), [("filters=3\natoms=2", (3, 2, 1)), ("", (128, 1, 1))])
def test_implicit_values_are_the_same_for_every_image(tmp_path: Path, options: str, shape: tuple[int, ...]) -> None:
    values = normal(*shape)
    net = build_layers(tmp_path, f"[implicit]\n{options}\n", [normal(1, 1, 1)], values.ravel())
    net.weights.finish(1)
    assert (net.outputs[-1].channels, *net.outputs[-1].hw) == shape
    # It has no input but the number of images.
    net.graph.nodes.insert(0, helper.make_node("Cast", ["in_0"], [INPUT_NAME], to=TensorProto.UINT8))
    (result,) = run_graph(net.graph, {"in_0": normal(1, 1, 1)}, [net.outputs[-1].name])
    assert np.array_equal(result, values)


def test_layers_without_weights_take_none(tmp_path: Path) -> None:
    layers = "[maxpool]\n[route]\nlayers=-1\n[shortcut]\nfrom=-1\n[upsample]\n[reorg3d]\n[softmax]\n[avgpool]\n"
    net = build_layers(tmp_path, layers, [normal(1, 2, 2)])
    with pytest.raises(DarknetWeightsError, match="1 numbers are left over after the header"):
        net.weights.finish(4)
