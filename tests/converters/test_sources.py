from pathlib import Path
from typing import Any

import pytest

from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import files_of, hint_for, is_model, needs_tensorflow
from trtjob.errors import ConfigError, ConversionError, ModelError


@pytest.mark.parametrize("name", ["a.weights", "a.WEIGHTS", "a.onnx", "a.keras", "a.h5", "a.hdf5", "a.pb"])
def test_a_model_is_known_by_its_ending(name: str) -> None:
    assert is_model(Path(name))


def test_what_tensorflow_reads_is_known_before_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    assert all(map(needs_tensorflow, (Path("a.keras"), Path("a.h5"), Path("a.pb"), tmp_path)))
    assert not any(map(needs_tensorflow, (Path("a.weights"), Path("a.onnx"), Path("a.pt"), Path("digits"))))


def test_a_folder_with_a_saved_model_is_a_model(tmp_path: Path) -> None:
    assert not is_model(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    assert is_model(tmp_path)


@pytest.mark.parametrize(
    "name", ["a.pt", "a.pth", "a.uff", "a.engine", "a.cfg", "a.tflite", "a.caffemodel", "a", "a.zip"]
)
def test_what_is_no_model_gets_a_hint(name: str) -> None:
    assert not is_model(Path(name))
    with pytest.raises(ModelError) as caught:
        files_of(ConversionRequest(model=Path(name)))
    assert str(caught.value) == f"'{name}' cannot be converted: {hint_for(Path(name))}"


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [
        pytest.param("a.onnx", {"cfg": "a.cfg"}, "--cfg is for Darknet models, but the model is 'a.onnx'", id="cfg"),
        pytest.param("a.weights", {"arch": "vgg16"}, "--arch is for Keras and TensorFlow models", id="arch"),
        pytest.param("a.onnx", {"classes": 3}, "--classes is for Keras and TensorFlow models", id="classes"),
        pytest.param("a.onnx", {"allow_unsafe": True}, "--allow-unsafe is for Keras and", id="unsafe"),
        pytest.param(
            "a.weights", {"input": "x"}, "--input is for Keras and TensorFlow models and ONNX files", id="input"
        ),
        pytest.param("a.weights", {"mean": (1.0,)}, "--mean is for Keras and TensorFlow models and ONNX", id="mean"),
        pytest.param("a.weights", {"preprocess": "torch"}, "--preprocess is for Keras", id="preprocess"),
    ],
)
def test_an_option_for_another_kind_of_model_is_refused(model: str, option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        files_of(ConversionRequest.model_validate({"model": model, **option}))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("place", ["secret", "variables/secret"])
def test_no_link_in_a_saved_model_leads_out_of_it(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "net"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    (tmp_path / "secret").touch()
    assert files_of(ConversionRequest(model=folder)) == (folder / "saved_model.pb",)
    (folder / place).symlink_to(tmp_path / "secret")
    with pytest.raises(ConversionError, match=f"'{folder / place}' leads out of the folder of the model"):
        files_of(ConversionRequest(model=folder))
