import hashlib
import json
from pathlib import Path

import pytest
from converters.darknet import networks
from engines import tiny

from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.engines.spec import load_spec
from trtjob.errors import ConversionError, ModelError
from trtjob.worker.convert import Progress, convert_model, resolve_model


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A Darknet model: net.weights, with net.cfg and net.names beside it."""
    return networks.write_model(tmp_path)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def noted_in(stages: list[str]) -> Progress:
    """Return a progress that notes what it is called with."""
    return lambda stage, _done, _total: stages.append(stage)


def files_in(registry: ModelRegistry) -> list[str]:
    return sorted(path.relative_to(registry.folder).as_posix() for path in registry.folder.rglob("*") if path.is_file())


@pytest.fixture
def read_only(tmp_path: Path) -> ModelRegistry:
    """A registry in whose folder for files nothing can be made, not even by root."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "files").symlink_to("/proc/self/fdinfo")
    return ModelRegistry(folder)


def test_a_registry_that_cannot_be_written_refuses_a_conversion(read_only: ModelRegistry, weights: Path) -> None:
    with pytest.raises(ConversionError, match=r"^cannot write '"):
        convert_model(ConversionRequest(model=weights), registry=read_only)


# --- conversions


def test_a_conversion_is_registered_under_the_files_name(registry: ModelRegistry, weights: Path) -> None:
    model = convert_model(ConversionRequest(model=weights), registry=registry)
    assert model.name == "net"
    assert registry.get("net") == model
    assert model.sha256 == sha256_of(model.path)
    assert model.spec == load_spec(model.path)
    assert model.spec.labels == ("cat", "dog")


def test_a_conversion_leaves_nothing_but_what_it_gave(registry: ModelRegistry, weights: Path) -> None:
    sha256 = convert_model(ConversionRequest(model=weights), registry=registry).sha256
    (conversion,) = (registry.folder / "conversions").iterdir()
    expected = [f"files/{sha256}.json", f"files/{sha256}.onnx", "names/net.json"]
    assert files_in(registry) == [f"conversions/{conversion.name}", *expected]


def test_the_same_files_are_converted_once(registry: ModelRegistry, weights: Path) -> None:
    stages: list[str] = []
    first = convert_model(ConversionRequest(model=weights), registry=registry, on_progress=noted_in(stages))
    assert convert_model(ConversionRequest(model=weights), registry=registry, on_progress=noted_in(stages)) == first
    assert stages == ["converting"]


def test_the_same_files_may_get_another_name_without_a_conversion(registry: ModelRegistry, weights: Path) -> None:
    stages: list[str] = []
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    request = ConversionRequest(model=weights, name="mine")
    second = convert_model(request, registry=registry, on_progress=noted_in(stages))
    assert (second.name, second.sha256, stages) == ("mine", first.sha256, [])


@pytest.mark.parametrize("name", ["net.cfg", "net.names", "net.weights"])
def test_a_file_that_has_changed_is_converted_again(registry: ModelRegistry, weights: Path, name: str) -> None:
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    changes = {
        "net.cfg": lambda data: data + b"\n# changed\n",
        "net.names": lambda data: data.replace(b"dog", b"cow"),
        "net.weights": lambda data: data[:-4] + data[-8:-4],
    }
    path = weights.with_name(name)
    path.write_bytes(changes[name](path.read_bytes()))
    assert convert_model(ConversionRequest(model=weights), registry=registry).sha256 != first.sha256


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"sha256": "gone"}'])
def test_a_damaged_note_of_a_conversion_means_to_convert_again(
    registry: ModelRegistry, weights: Path, text: str
) -> None:
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    (note,) = (registry.folder / "conversions").iterdir()
    note.write_text(text)
    assert convert_model(ConversionRequest(model=weights), registry=registry) == first
    assert json.loads(note.read_text()) == {"sha256": first.sha256}


def test_a_model_that_was_removed_is_converted_again(registry: ModelRegistry, weights: Path) -> None:
    first = convert_model(ConversionRequest(model=weights), registry=registry)
    registry.remove("net")
    assert convert_model(ConversionRequest(model=weights), registry=registry).sha256 == first.sha256


def test_a_model_that_was_damaged_on_the_disk_is_converted_again(registry: ModelRegistry, weights: Path) -> None:
    model = convert_model(ConversionRequest(model=weights), registry=registry)
    model.path.write_bytes(model.path.read_bytes()[:-1])
    assert sha256_of(convert_model(ConversionRequest(model=weights), registry=registry).path) == model.sha256


def test_a_failed_conversion_leaves_nothing(registry: ModelRegistry, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ConversionError, match="the file ends in layer 0"):
        convert_model(ConversionRequest(model=weights), registry=registry)
    assert files_in(registry) == []


def test_the_result_can_be_copied_elsewhere_too(registry: ModelRegistry, weights: Path, tmp_path: Path) -> None:
    model = convert_model(ConversionRequest(model=weights, out=tmp_path / "out.onnx"), registry=registry)
    assert (tmp_path / "out.onnx").read_bytes() == model.path.read_bytes()


def test_what_is_converted_already_is_copied_all_the_same(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    model = convert_model(ConversionRequest(model=weights), registry=registry)
    convert_model(ConversionRequest(model=weights, out=tmp_path / "out.onnx"), registry=registry)
    assert sha256_of(tmp_path / "out.onnx") == model.sha256


def test_a_place_without_a_folder_is_refused_before_the_conversion(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError) as caught:
        convert_model(ConversionRequest(model=weights, out=tmp_path / "missing" / "a.onnx"), registry=registry)
    missing = tmp_path / "missing"
    assert str(caught.value) == f"cannot write '{missing / 'a.onnx'}': there is no folder '{missing}'"
    assert not registry.folder.exists()


def test_a_bad_name_is_refused_before_the_conversion(registry: ModelRegistry, weights: Path) -> None:
    with pytest.raises(ModelError, match="'a/b' cannot be a model's name"):
        convert_model(ConversionRequest(model=weights, name="a/b"), registry=registry)
    assert not registry.folder.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.weights", "no model file '{}'", id="missing"),
        pytest.param("x" * 300 + ".weights", "'{}' cannot be read: File name too long", id="a name that is too long"),
    ],
)
def test_what_cannot_be_converted_is_named(
    registry: ModelRegistry, onnx_file: Path, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        convert_model(ConversionRequest(model=tmp_path / name), registry=registry)
    assert str(caught.value) == message.format(tmp_path / name)


# --- what a user means


def test_a_name_means_a_registered_model(registry: ModelRegistry, onnx_file: Path) -> None:
    model = registry.add("mine", onnx_file)
    assert resolve_model("mine", registry=registry) == model


def test_an_onnx_file_is_registered_under_its_name(registry: ModelRegistry, onnx_file: Path) -> None:
    model = resolve_model(str(onnx_file), registry=registry)
    assert (model.name, model.sha256) == ("tiny", sha256_of(onnx_file))


def test_weights_are_converted(registry: ModelRegistry, weights: Path) -> None:
    assert resolve_model(str(weights), registry=registry).name == "net"


def test_the_ending_may_be_in_capitals(registry: ModelRegistry, weights: Path, onnx_file: Path) -> None:
    capital = weights.rename(weights.with_suffix(".WEIGHTS"))
    assert resolve_model(str(capital), registry=registry).name == "net"
    assert resolve_model(str(onnx_file.rename(onnx_file.with_suffix(".ONNX"))), registry=registry).name == "tiny"


def test_weights_are_converted_with_the_files_that_are_named(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    cfg, labels = tmp_path / "a.txt", tmp_path / "b.txt"
    (tmp_path / "net.cfg").rename(cfg)
    labels.write_text("cow\nhen\n")
    started: list[Path] = []
    model = resolve_model(str(weights), registry=registry, cfg=cfg, labels=labels, on_convert=started.append)
    assert model.spec.labels == ("cow", "hen")
    assert started == [weights]


def test_a_tilde_is_the_users_home(registry: ModelRegistry, onnx_file: Path) -> None:
    onnx_file.rename(Path.home() / "a.onnx")
    assert resolve_model("~/a.onnx", registry=registry).name == "a"


def test_a_tilde_before_nobodys_name_is_part_of_a_files_name(
    registry: ModelRegistry, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx_file.rename("~nobody-is-called-so.onnx")
    assert resolve_model("~nobody-is-called-so.onnx", registry=registry).name == "nobody-is-called-so"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        pytest.param("missing.weights", "no model file 'missing.weights'", id="missing weights"),
        pytest.param("missing.ONNX", "no model file 'missing.ONNX'", id="missing onnx"),
        pytest.param("models/yolov3", "no model file 'models/yolov3'", id="a path is no name"),
        pytest.param("yolov3", "no model 'yolov3'. List them with", id="an unknown name"),
        pytest.param("net.cfg", "'net.cfg' is no model that can be used: it is a network", id="a cfg"),
        pytest.param("", "no model ''. List them with", id="nothing"),
        pytest.param("a\0b", "no model 'a\0b'. List them with", id="a zero byte"),
        pytest.param("x" * 300, "cannot be read: File name too long", id="a name that is too long"),
    ],
)
def test_what_is_no_model_is_named(
    registry: ModelRegistry,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argument: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        resolve_model(argument, registry=registry)
    assert message in str(caught.value)


@pytest.mark.parametrize("option", ["cfg", "labels"])
def test_a_cfg_or_labels_for_another_model_are_refused(registry: ModelRegistry, onnx_file: Path, option: str) -> None:
    cfg, labels = (onnx_file if option == name else None for name in ("cfg", "labels"))
    with pytest.raises(ModelError, match=r"^--cfg and --labels belong to a model's file, but the model is '"):
        resolve_model(str(onnx_file), registry=registry, cfg=cfg, labels=labels)
