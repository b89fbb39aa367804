from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import normal, refusal, run_layers

from trtjob.engines.protocol import FloatArray


def softmax(x: FloatArray) -> FloatArray:
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum(), np.float32)


# --- [connected]


def test_connected_sees_all_values_channel_by_channel(tmp_path: Path) -> None:
    x, weights, bias = normal(2, 3, 4), normal(5, 24, seed=1), normal(5, seed=2)
    layer = "[connected]\noutput=5\nactivation=linear\n"
    result = run_layers(tmp_path, layer, [x], np.concatenate([bias, weights.ravel()]))
    np.testing.assert_allclose(result[:, 0, 0], weights @ x.ravel() + bias, rtol=1e-4, atol=1e-5)


def test_connected_has_its_statistics_after_the_weights(tmp_path: Path) -> None:
    x, weights = normal(6, 1, 1), normal(3, 6, seed=1)
    (bias, scale, mean), variance = normal(3, 3, seed=2), np.array([0.5, 2, 1e-5], np.float32)
    layer = "[connected]\noutput=3\nbatch_normalize=1\nactivation=relu\n"
    result = run_layers(tmp_path, layer, [x], np.concatenate([bias, weights.ravel(), scale, mean, variance]))
    expected = (weights @ x.ravel() - mean) / np.sqrt(variance + 1e-5) * scale + bias
    np.testing.assert_allclose(result[:, 0, 0], np.maximum(expected, 0), rtol=1e-4, atol=1e-3)


def test_connected_has_one_output_and_is_logistic_unless_told(tmp_path: Path) -> None:
    result = run_layers(tmp_path, "[connected]\n", [np.zeros((1, 1, 2), np.float32)], np.zeros(3, np.float32))
    assert result.tolist() == [[[0.5]]]


# --- [softmax]


def test_softmax_is_over_the_whole_vector(tmp_path: Path) -> None:
    x = normal(3, 2, 2)
    np.testing.assert_allclose(run_layers(tmp_path, "[softmax]\n", [x]), softmax(x), rtol=1e-5)


def test_softmax_may_be_over_groups_of_the_vector(tmp_path: Path) -> None:
    x = normal(6, 1, 1)
    expected = np.concatenate([softmax(x[:3]), softmax(x[3:])])
    np.testing.assert_allclose(run_layers(tmp_path, "[softmax]\ngroups=2\n", [x]), expected, rtol=1e-5)


def test_the_temperature_divides(tmp_path: Path) -> None:
    x = normal(6, 1, 1)
    np.testing.assert_allclose(
        run_layers(tmp_path, "[softmax]\ntemperature=3\n", [x]), softmax(x / np.float32(3)), rtol=1e-5
    )


def test_a_spatial_softmax_is_over_the_channels_of_each_place(tmp_path: Path) -> None:
    x = normal(3, 2, 2)
    result = run_layers(tmp_path, "[softmax]\nspatial=1\n", [x])
    np.testing.assert_allclose(result[:, 1, 0], softmax(x[:, 1, 0]), rtol=1e-5)


def test_softmax_of_a_tree_is_among_siblings(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("animal -1\nthing -1\ncat 0\ndog 0\ncow 0\ncup 1\n")
    x = normal(6, 1, 1)
    result = run_layers(tmp_path, f"[softmax]\ntree={tmp_path}/a.tree\n", [x])
    expected = np.concatenate([softmax(x[:2]), softmax(x[2:5]), softmax(x[5:])])
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param("groups=4", "groups=4: the input's 6 values cannot be divided by it", id="groups"),
        pytest.param("temperature=0", "temperature=0: expected a number above 0", id="temperature"),
        pytest.param("tree=a.tree", "tree=a.tree: there is no such file beside the cfg or the weights", id="no tree"),
    ],
)
def test_a_softmax_that_cannot_be_is_refused(tmp_path: Path, option: str, message: str) -> None:
    assert refusal(tmp_path, f"[softmax]\n{option}\n", normal(6, 1, 1)) == f"<cfg>:3: [softmax] {message}"


def test_a_tree_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tree").write_text("animal -1\n")
    text = refusal(tmp_path, "[softmax]\ntree=a.tree\n", normal(6, 1, 1))
    assert text == f"<cfg>:3: [softmax] '{tmp_path}/a.tree' has 1 classes, expected 6"
