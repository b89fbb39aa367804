import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from converters.darknet import networks
from engines import tiny
from hypothesis import given
from hypothesis import strategies as st

from trtjob.converters.registry import ModelRegistry, convert_model, name_of, resolve_model
from trtjob.engines.onnxruntime import open_engine
from trtjob.engines.spec import Task, load_spec
from trtjob.errors import ConversionError, ModelError, TrtjobError


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "other.onnx", Task.CLASSIFY)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A Darknet model: net.weights, with net.cfg and net.names beside it."""
    return networks.write_model(tmp_path)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_in(registry: ModelRegistry) -> list[str]:
    return sorted(path.relative_to(registry.folder).as_posix() for path in registry.folder.rglob("*") if path.is_file())


def damage_name(registry: ModelRegistry, name: str, text: str = "{") -> None:
    (registry.folder / "names" / f"{name}.json").write_text(text)


# --- names and models


def test_an_added_model_is_known_by_its_name_and_its_sha256(registry: ModelRegistry, onnx_file: Path) -> None:
    model = registry.add("tiny", onnx_file)
    assert registry.get("tiny") == model
    assert (model.name, model.sha256, model.size_bytes) == ("tiny", sha256_of(onnx_file), onnx_file.stat().st_size)
    assert model.spec == load_spec(onnx_file)
    assert model.path == registry.folder / "files" / f"{model.sha256}.onnx"
    assert model.path.read_bytes() == onnx_file.read_bytes()


def test_a_registered_model_can_be_run(registry: ModelRegistry, onnx_file: Path) -> None:
    with open_engine(registry.add("tiny", onnx_file).path) as engine:
        assert engine.infer(tiny.images(1)).scores.shape == (1, tiny.CANDIDATES, len(tiny.LABELS))


def test_the_registry_keeps_its_own_copy(registry: ModelRegistry, onnx_file: Path) -> None:
    model = registry.add("tiny", onnx_file)
    onnx_file.unlink()
    assert sha256_of(registry.get("tiny").path) == model.sha256


def test_nothing_but_the_model_and_its_name_is_left(registry: ModelRegistry, onnx_file: Path) -> None:
    sha256 = registry.add("tiny", onnx_file).sha256
    assert files_in(registry) == [f"files/{sha256}.json", f"files/{sha256}.onnx", "names/tiny.json"]


def test_adding_a_model_again_changes_nothing(registry: ModelRegistry, onnx_file: Path) -> None:
    first = registry.add("tiny", onnx_file)
    inode = first.path.stat().st_ino
    assert registry.add("tiny", onnx_file) == first
    assert first.path.stat().st_ino == inode


def test_one_model_may_have_many_names(registry: ModelRegistry, onnx_file: Path) -> None:
    first, second = registry.add("a", onnx_file), registry.add("b", onnx_file)
    assert first.path == second.path
    assert [model.name for model in registry.list()] == ["a", "b"]


def test_a_name_moves_to_the_model_that_it_is_given_to_last(
    registry: ModelRegistry, onnx_file: Path, other_file: Path
) -> None:
    registry.add("tiny", onnx_file)
    registry.add("tiny", other_file)
    assert registry.get("tiny").sha256 == sha256_of(other_file)


def test_models_are_listed_by_name(registry: ModelRegistry, onnx_file: Path, other_file: Path) -> None:
    registry.add("b", onnx_file)
    registry.add("a@fp16", other_file)
    registry.add("B.1", onnx_file)
    assert [model.name for model in registry.list()] == ["B.1", "a@fp16", "b"]


def test_an_empty_registry_lists_nothing_and_makes_no_folder(registry: ModelRegistry) -> None:
    assert registry.list() == []
    assert not registry.folder.exists()


def test_a_file_that_is_none_of_ours_is_not_added(registry: ModelRegistry, tmp_path: Path) -> None:
    path = tiny.write_onnx(tmp_path / "foreign.onnx", tiny.detector(), None)
    with pytest.raises(ModelError, match="without trtjob's description"):
        registry.add("foreign", path)
    assert registry.list() == []


def test_a_file_that_is_not_there_is_named(registry: ModelRegistry, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        registry.add("tiny", tmp_path / "missing.onnx")
    assert str(caught.value) == f"'{tmp_path / 'missing.onnx'}' cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "@x", "a/b", "../a", "a b", "größe", "a\n", "x" * 101])
def test_a_name_that_cannot_be_one_is_refused_before_anything_is_done(
    registry: ModelRegistry, onnx_file: Path, name: str
) -> None:
    with pytest.raises(ModelError, match=r"cannot be a model's name: letters, digits and \. _ @ - are allowed"):
        registry.add(name, onnx_file)
    assert not registry.folder.exists()


@pytest.mark.parametrize("name", ["yolov3", "yolov3@fp16", "a.b_c-d", "7", "x" * 100])
def test_a_name_may_hold_what_files_names_do(registry: ModelRegistry, onnx_file: Path, name: str) -> None:
    registry.add(name, onnx_file)
    assert registry.get(name).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        pytest.param("yolov4", "Did you mean 'yolov3'? ", id="near"),
        pytest.param("zzz", "Did you mean 'resnet' or 'yolov3'? ", id="near to none"),
        pytest.param("../names/yolov3", "Did you mean 'resnet' or 'yolov3'? ", id="a path is none"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(
    registry: ModelRegistry, onnx_file: Path, name: str, hint: str
) -> None:
    registry.add("yolov3", onnx_file)
    registry.add("resnet", onnx_file)
    with pytest.raises(ModelError) as caught:
        registry.get(name)
    assert str(caught.value) == (f"no model '{name}'. {hint}List them with `trtjob models`, or name a model's file")


def test_an_unknown_name_in_an_empty_registry_is_answered_without_a_guess(registry: ModelRegistry) -> None:
    with pytest.raises(
        ModelError, match=r"^no model 'yolov3'\. List them with `trtjob models`, or name a model's file$"
    ):
        registry.get("yolov3")


# --- remove


def test_removing_the_last_name_removes_the_model(registry: ModelRegistry, onnx_file: Path) -> None:
    registry.add("tiny", onnx_file)
    registry.remove("tiny")
    assert files_in(registry) == []


def test_a_model_stays_while_another_name_stands_for_it(registry: ModelRegistry, onnx_file: Path) -> None:
    registry.add("a", onnx_file)
    registry.add("b", onnx_file)
    registry.remove("a")
    assert [model.name for model in registry.list()] == ["b"]
    assert registry.get("b").path.is_file()


def test_removing_one_model_leaves_the_others(registry: ModelRegistry, onnx_file: Path, other_file: Path) -> None:
    registry.add("a", onnx_file)
    registry.add("b", other_file)
    registry.remove("a")
    assert registry.get("b").path.is_file()
    assert not (registry.folder / "files" / f"{sha256_of(onnx_file)}.onnx").exists()


def test_an_unknown_name_cannot_be_removed(registry: ModelRegistry) -> None:
    with pytest.raises(ModelError, match="no model 'tiny'"):
        registry.remove("tiny")


# --- damage


def lose_spec(registry: ModelRegistry, sha256: str) -> None:
    (registry.folder / "files" / f"{sha256}.json").unlink()


def lose_model(registry: ModelRegistry, sha256: str) -> None:
    (registry.folder / "files" / f"{sha256}.onnx").unlink()


def garble_spec(registry: ModelRegistry, sha256: str) -> None:
    (registry.folder / "files" / f"{sha256}.json").write_text('{"task": "x"}')


def garble_name(registry: ModelRegistry, sha256: str) -> None:
    damage_name(registry, "tiny")


Harm = Callable[[ModelRegistry, str], None]
HARMS = [
    pytest.param(lose_spec, "No such file or directory", id="spec lost"),
    pytest.param(lose_model, "No such file or directory", id="model lost"),
    pytest.param(garble_spec, "task: Input should be 'detect' or 'classify'", id="spec garbled"),
    pytest.param(garble_name, "Invalid JSON", id="name garbled"),
]


@pytest.mark.parametrize(("harm", "what"), HARMS)
def test_a_damaged_model_says_in_one_line_what_is_wrong_and_what_to_do(
    registry: ModelRegistry, onnx_file: Path, harm: Harm, what: str
) -> None:
    harm(registry, registry.add("tiny", onnx_file).sha256)
    with pytest.raises(ModelError, match=rf"^the registered model 'tiny' is damaged: .*{what}") as caught:
        registry.get("tiny")
    assert str(caught.value).endswith(". Remove it with: trtjob models remove tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("harm", "what"), HARMS)
def test_a_damaged_model_can_be_removed_as_its_message_says(
    registry: ModelRegistry, onnx_file: Path, harm: Harm, what: str
) -> None:
    harm(registry, registry.add("tiny", onnx_file).sha256)
    registry.remove("tiny")
    assert registry.list() == []
    registry.add("tiny", onnx_file)
    assert registry.get("tiny").spec == load_spec(onnx_file)


@pytest.mark.parametrize("harm", [pytest.param(h, id=h.__name__) for h in (lose_spec, lose_model, garble_name)])
def test_adding_a_damaged_model_again_repairs_it(registry: ModelRegistry, onnx_file: Path, harm: Harm) -> None:
    model = registry.add("tiny", onnx_file)
    harm(registry, model.sha256)
    assert registry.add("tiny", onnx_file).sha256 == model.sha256
    assert sha256_of(registry.get("tiny").path) == model.sha256


def test_a_name_of_a_model_that_is_lost_can_be_given_to_another(
    registry: ModelRegistry, onnx_file: Path, other_file: Path
) -> None:
    lose_spec(registry, registry.add("tiny", onnx_file).sha256)
    assert registry.add("tiny", other_file).sha256 == sha256_of(other_file)


def test_a_damaged_name_does_not_keep_another_from_being_removed(
    registry: ModelRegistry, onnx_file: Path, other_file: Path
) -> None:
    registry.add("a", onnx_file)
    registry.add("b", other_file)
    damage_name(registry, "b")
    registry.remove("a")
    assert not (registry.folder / "files" / f"{sha256_of(onnx_file)}.onnx").exists()


# --- several at once


def test_many_can_add_the_same_model_at_once(registry: ModelRegistry, onnx_file: Path) -> None:
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def add() -> None:
        barrier.wait()
        try:
            registry.add("tiny", onnx_file)
        except (OSError, TrtjobError) as err:
            errors.append(err)

    for _ in range(10):
        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        registry.remove("tiny")
    assert errors == []
    assert files_in(registry) == []


# --- places that cannot be written


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder is wanted")
    with pytest.raises(ConversionError) as caught:
        ModelRegistry(tmp_path / "models").add("tiny", onnx_file)
    place = tmp_path / "models" / "files"
    assert str(caught.value) == f"cannot create '{place}': Not a directory. Set TRTJOB_HOME"


@pytest.fixture
def read_only(tmp_path: Path) -> ModelRegistry:
    """A registry in whose folder for files nothing can be made, not even by root."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "files").symlink_to("/proc/self/fdinfo")
    return ModelRegistry(folder)


def test_a_registry_that_cannot_be_written_refuses_a_model(read_only: ModelRegistry, onnx_file: Path) -> None:
    with pytest.raises(ConversionError, match=r"^cannot write '.*\.onnx': "):
        read_only.add("tiny", onnx_file)


def test_a_registry_that_cannot_be_written_refuses_a_conversion(read_only: ModelRegistry, weights: Path) -> None:
    with pytest.raises(ConversionError, match=r"^cannot write '"):
        convert_model(weights, registry=read_only)


# --- conversions


def test_a_conversion_is_registered_under_the_files_name(registry: ModelRegistry, weights: Path) -> None:
    model = convert_model(weights, registry=registry)
    assert model.name == "net"
    assert registry.get("net") == model
    assert model.sha256 == sha256_of(model.path)
    assert model.spec == load_spec(model.path)
    assert model.spec.labels == ("cat", "dog")


def test_a_conversion_leaves_nothing_but_what_it_gave(registry: ModelRegistry, weights: Path) -> None:
    sha256 = convert_model(weights, registry=registry).sha256
    (conversion,) = (registry.folder / "conversions").iterdir()
    expected = [f"files/{sha256}.json", f"files/{sha256}.onnx", "names/net.json"]
    assert files_in(registry) == [f"conversions/{conversion.name}", *expected]


def test_the_same_files_are_converted_once(registry: ModelRegistry, weights: Path) -> None:
    started: list[Path] = []
    first = convert_model(weights, registry=registry, on_convert=started.append)
    assert convert_model(weights, registry=registry, on_convert=started.append) == first
    assert started == [weights]


def test_the_same_files_may_get_another_name_without_a_conversion(registry: ModelRegistry, weights: Path) -> None:
    started: list[Path] = []
    first = convert_model(weights, registry=registry)
    second = convert_model(weights, registry=registry, name="mine", on_convert=started.append)
    assert (second.name, second.sha256, started) == ("mine", first.sha256, [])


@pytest.mark.parametrize("name", ["net.cfg", "net.names", "net.weights"])
def test_a_file_that_has_changed_is_converted_again(registry: ModelRegistry, weights: Path, name: str) -> None:
    first = convert_model(weights, registry=registry)
    changes = {
        "net.cfg": lambda data: data + b"\n# changed\n",
        "net.names": lambda data: data.replace(b"dog", b"cow"),
        "net.weights": lambda data: data[:-4] + data[-8:-4],
    }
    path = weights.with_name(name)
    path.write_bytes(changes[name](path.read_bytes()))
    assert convert_model(weights, registry=registry).sha256 != first.sha256


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"sha256": "gone"}'])
def test_a_damaged_note_of_a_conversion_means_to_convert_again(
    registry: ModelRegistry, weights: Path, text: str
) -> None:
    first = convert_model(weights, registry=registry)
    (note,) = (registry.folder / "conversions").iterdir()
    note.write_text(text)
    assert convert_model(weights, registry=registry) == first
    assert json.loads(note.read_text()) == {"sha256": first.sha256}


def test_a_model_that_was_removed_is_converted_again(registry: ModelRegistry, weights: Path) -> None:
    first = convert_model(weights, registry=registry)
    registry.remove("net")
    assert convert_model(weights, registry=registry).sha256 == first.sha256


def test_a_model_that_was_damaged_on_the_disk_is_converted_again(registry: ModelRegistry, weights: Path) -> None:
    model = convert_model(weights, registry=registry)
    model.path.write_bytes(model.path.read_bytes()[:-1])
    assert sha256_of(convert_model(weights, registry=registry).path) == model.sha256


def test_a_failed_conversion_leaves_nothing(registry: ModelRegistry, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ConversionError, match="the file ends in layer 0"):
        convert_model(weights, registry=registry)
    assert files_in(registry) == []


def test_the_result_can_be_copied_elsewhere_too(registry: ModelRegistry, weights: Path, tmp_path: Path) -> None:
    model = convert_model(weights, registry=registry, out=tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == model.path.read_bytes()


def test_what_is_converted_already_is_copied_all_the_same(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    model = convert_model(weights, registry=registry)
    convert_model(weights, registry=registry, out=tmp_path / "out.onnx")
    assert sha256_of(tmp_path / "out.onnx") == model.sha256


def test_a_place_without_a_folder_is_refused_before_the_conversion(
    registry: ModelRegistry, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError) as caught:
        convert_model(weights, registry=registry, out=tmp_path / "missing" / "a.onnx")
    missing = tmp_path / "missing"
    assert str(caught.value) == f"cannot write '{missing / 'a.onnx'}': there is no folder '{missing}'"
    assert not registry.folder.exists()


def test_a_bad_name_is_refused_before_the_conversion(registry: ModelRegistry, weights: Path) -> None:
    with pytest.raises(ModelError, match="'a/b' cannot be a model's name"):
        convert_model(weights, registry=registry, name="a/b")
    assert not registry.folder.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.weights", "no model file '{}'", id="missing"),
        pytest.param("tiny.onnx", "'{}' cannot be converted: expected a Darknet .weights file", id="onnx"),
        pytest.param("x" * 300 + ".weights", "'{}' cannot be read: File name too long", id="a name that is too long"),
    ],
)
def test_what_cannot_be_converted_is_named(
    registry: ModelRegistry, onnx_file: Path, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        convert_model(tmp_path / name, registry=registry)
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
        pytest.param("net.cfg", "'net.cfg' is no model that can be used: expected a Darknet .weights or a", id="a cfg"),
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
    with pytest.raises(ModelError, match=r"^--cfg and --labels belong to a Darknet \.weights file, but the model is '"):
        resolve_model(str(onnx_file), registry=registry, cfg=cfg, labels=labels)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("yolov3.weights", "yolov3"),
        ("yolov4-tiny_best.weights", "yolov4-tiny_best"),
        ("my model (2).onnx", "my-model-2"),
        ("größe.onnx", "gr-e"),
        (".weights", "weights"),
        ("...onnx", "model"),
        ("猫.onnx", "model"),
        ("x" * 200 + ".onnx", "x" * 100),
    ],
)
def test_a_model_is_called_after_its_file(file: str, name: str) -> None:
    assert name_of(Path(file)) == name


@given(st.text(st.characters(exclude_characters="\0/"), min_size=1))
def test_any_files_name_gives_a_name_that_can_be_one(tmp_path_factory: pytest.TempPathFactory, file: str) -> None:
    # There is no such folder, so a name that can be one gets as far as writing; one that cannot is a ModelError.
    registry = ModelRegistry(tmp_path_factory.getbasetemp() / "never-made")
    with pytest.raises(ConversionError, match=r"^cannot write '"):
        registry.call(name_of(Path(file)), "no such model")
