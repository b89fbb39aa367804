import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from at_once import all_at_once
from converters.darknet import networks
from engines import tiny
from hypothesis import given
from hypothesis import strategies as st

from trtjob.converters.registry import Facts, ModelRegistry, name_of
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.spec import ModelSpec, Task, load_spec
from trtjob.errors import ConversionError, ModelError

LIST_THEM = "List them with `trtjob models`, or name a model's file (`trtjob convert` gives it a name)"


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


def test_a_name_moves_to_another_model_only_where_that_is_wanted(
    registry: ModelRegistry, onnx_file: Path, other_file: Path
) -> None:
    registry.add("tiny", onnx_file)
    with pytest.raises(ModelError, match=r"the name 'tiny' stands for another model.*--name.*--replace") as caught:
        registry.add("tiny", other_file)
    assert sha256_of(onnx_file)[:12] in str(caught.value)
    assert registry.get("tiny").sha256 == sha256_of(onnx_file)
    assert registry.add("tiny", other_file, replace=True) == registry.get("tiny")
    assert registry.get("tiny").sha256 == sha256_of(other_file)


def test_a_model_that_is_kept_is_known_by_its_content_and_has_no_name(registry: ModelRegistry, onnx_file: Path) -> None:
    sha256 = registry.keep(onnx_file)
    model = registry.by_sha256(sha256, "best")
    assert (model.name, model.sha256, sha256_of(model.path)) == ("best", sha256, sha256)
    assert registry.list() == []


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
    assert str(caught.value) == f"no model '{name}'. {hint}{LIST_THEM}"


def test_an_unknown_name_in_an_empty_registry_is_answered_without_a_guess(registry: ModelRegistry) -> None:
    with pytest.raises(ModelError, match="^" + re.escape(f"no model 'yolov3'. {LIST_THEM}") + "$"):
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


def test_models_without_a_name_are_removed_together(registry: ModelRegistry, onnx_file: Path, other_file: Path) -> None:
    registry.add("a", onnx_file)
    unnamed = registry.keep(other_file)
    assert registry.remove_unnamed() == (unnamed,)
    assert registry.remove_unnamed() == ()
    sha256 = sha256_of(onnx_file)
    assert files_in(registry) == [f"files/{sha256}.json", f"files/{sha256}.onnx", "names/a.json"]


def test_an_unknown_name_cannot_be_removed(registry: ModelRegistry) -> None:
    with pytest.raises(ModelError, match="no model 'tiny'"):
        registry.remove("tiny")


# --- damage


def lose_spec(registry: ModelRegistry, sha256: str) -> None:
    (registry.folder / "files" / f"{sha256}.json").unlink()


def lose_model(registry: ModelRegistry, sha256: str) -> None:
    (registry.folder / "files" / f"{sha256}.onnx").unlink()


def garble_spec(registry: ModelRegistry, sha256: str) -> None:
    (registry.folder / "files" / f"{sha256}.json").write_text('{"spec": {"task": "x"}}')


def garble_name(registry: ModelRegistry, sha256: str) -> None:
    damage_name(registry, "tiny")


Harm = Callable[[ModelRegistry, str], None]
HARMS = [
    pytest.param(lose_spec, "No such file or directory", id="spec lost"),
    pytest.param(lose_model, "No such file or directory", id="model lost"),
    pytest.param(garble_spec, "spec: task: expected 'detect' or 'classify'", id="spec garbled"),
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
def test_a_damaged_model_hides_no_other(
    registry: ModelRegistry, onnx_file: Path, other_file: Path, harm: Harm, what: str
) -> None:
    registry.add("whole", other_file)
    harm(registry, registry.add("tiny", onnx_file).sha256)
    assert [model.name for model in registry.list()] == ["whole"]
    (error,) = registry.damaged()
    assert "'tiny' is damaged" in str(error)
    assert what in str(error)


@pytest.mark.parametrize(("harm", "what"), HARMS)
def test_a_damaged_model_can_be_removed_as_its_message_says(
    registry: ModelRegistry, onnx_file: Path, harm: Harm, what: str
) -> None:
    harm(registry, registry.add("tiny", onnx_file).sha256)
    registry.remove("tiny")
    assert registry.list() == []
    registry.add("tiny", onnx_file)
    assert registry.get("tiny").spec == load_spec(onnx_file)


@pytest.mark.parametrize(("harm", "what"), HARMS)
def test_adding_a_damaged_model_again_repairs_it(
    registry: ModelRegistry, onnx_file: Path, harm: Harm, what: str
) -> None:
    model = registry.add("tiny", onnx_file)
    harm(registry, model.sha256)
    assert registry.add("tiny", onnx_file).sha256 == model.sha256
    assert sha256_of(registry.get("tiny").path) == model.sha256


@pytest.mark.parametrize("harm", [pytest.param(h, id=h.__name__) for h in (lose_spec, lose_model, garble_spec)])
def test_a_damaged_model_without_a_name_is_converted_anew(registry: ModelRegistry, onnx_file: Path, harm: Harm) -> None:
    def convert(file: Path) -> tuple[ModelSpec, Facts]:
        file.write_bytes(onnx_file.read_bytes())
        return load_spec(onnx_file), Facts(layers=1, parameters=1, seconds=0.1)

    sha256 = registry.adopt(convert, key="1234")
    assert registry.converted("1234") == sha256
    harm(registry, sha256)
    assert registry.converted("1234") is None


def test_what_no_name_can_be_is_to_be_deleted_by_its_path(registry: ModelRegistry, onnx_file: Path) -> None:
    names = registry.add("tiny", onnx_file).path.parents[1] / "names"
    (names / "a b.json").write_text("{")
    (names / "folder.json").mkdir()
    assert [str(error).rpartition(". ")[2] for error in registry.damaged()] == [
        f"Delete '{names}/a b.json'",
        f"Delete '{names}/folder.json'",
    ]


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
    for _ in range(10):
        all_at_once(8, lambda _: registry.add("tiny", onnx_file))
        registry.remove("tiny")
    assert files_in(registry) == []


# --- places that cannot be written


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder is wanted")
    with pytest.raises(ConversionError) as caught:
        ModelRegistry(tmp_path / "models").add("tiny", onnx_file)
    place = tmp_path / "models" / "files"
    assert str(caught.value) == f"cannot create '{place}': Not a directory. Set TRTJOB_HOME"


def test_a_registry_that_cannot_be_written_refuses_a_model(read_only: ModelRegistry, onnx_file: Path) -> None:
    with pytest.raises(ConversionError, match=r"^cannot write '.*\.onnx': "):
        read_only.add("tiny", onnx_file)


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
        registry.give_name(name_of(Path(file)), "no such model")
