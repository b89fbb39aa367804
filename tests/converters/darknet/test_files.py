from pathlib import Path

import pytest

from trtjob.converters.darknet.cfg import parse_cfg
from trtjob.converters.darknet.files import beside, files, find_cfg, find_labels
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import files_of
from trtjob.errors import ConversionError, DarknetParseError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("cat\n")


@pytest.mark.parametrize(
    ("weights", "cfgs", "expected"),
    [
        pytest.param("a.weights", ["a.cfg", "b.cfg"], "a.cfg", id="of the same name"),
        pytest.param("a_best.weights", ["a.cfg"], "a.cfg", id="without what training adds: best"),
        pytest.param("a_last.weights", ["a.cfg"], "a.cfg", id="last"),
        pytest.param("a_final.weights", ["a.cfg"], "a.cfg", id="final"),
        pytest.param("a_12000.weights", ["a.cfg"], "a.cfg", id="after so many steps"),
        pytest.param("a_best.weights", ["a.cfg", "a_best.cfg"], "a_best.cfg", id="the same name comes first"),
        pytest.param("a.b_best.weights", ["a.b.cfg", "a.cfg"], "a.b.cfg", id="a dot in the name"),
    ],
)
def test_the_cfg_beside_the_weights_is_found(tmp_path: Path, weights: str, cfgs: list[str], expected: str) -> None:
    make(tmp_path, *cfgs)
    assert find_cfg(tmp_path / weights) == tmp_path / expected


@pytest.mark.parametrize(
    ("weights", "looked"),
    [
        pytest.param("a.weights", "no 'a.cfg' beside", id="one name"),
        pytest.param("a_best.weights", "no 'a_best.cfg' or 'a.cfg' beside", id="two names"),
        pytest.param("a_v2.weights", "no 'a_v2.cfg' beside", id="what no training adds"),
    ],
)
def test_a_missing_cfg_is_named_with_what_to_do(tmp_path: Path, weights: str, looked: str) -> None:
    make(tmp_path, "other.cfg", "a_best.cfg/file", "a.cfg/file")
    with pytest.raises(ConversionError) as caught:
        find_cfg(tmp_path / weights)
    assert str(caught.value) == f"{looked} '{tmp_path / weights}'. Name the network's cfg with --cfg FILE"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(["m/a_best.names", "m/a.names", "m/c.names"], "m/a_best.names", id="the weights' name"),
        pytest.param(["m/a.names", "m/c.names"], "m/a.names", id="without what training adds"),
        pytest.param(["m/c.names", "m/coco.names"], "m/c.names", id="the cfg's name"),
        pytest.param(["m/obj.names", "m/coco.names", "m/x.names"], "m/obj.names", id="a usual name"),
        pytest.param(["m/classes.txt", "m/x.names"], "m/classes.txt", id="another usual name"),
        pytest.param(["m/x.names"], "m/x.names", id="the only one"),
        pytest.param(["m/x.names", "c/c.names"], "m/x.names", id="beside the weights first"),
        pytest.param(["m/x.names", "m/y.names", "c/c.names"], "c/c.names", id="beside the cfg"),
        pytest.param(["m/a.names/file", "c/x.names"], "c/x.names", id="a folder is none"),
    ],
)
def test_the_labels_beside_the_weights_or_the_cfg_are_found(tmp_path: Path, files: list[str], expected: str) -> None:
    make(tmp_path, *files)
    assert find_labels(tmp_path / "m/a_best.weights", tmp_path / "c/c.cfg") == tmp_path / expected


def test_missing_labels_are_named_with_what_to_do(tmp_path: Path) -> None:
    make(tmp_path, "x.names", "y.names")
    with pytest.raises(ConversionError) as caught:
        find_labels(tmp_path / "a_best.weights", tmp_path / "a.cfg")
    assert str(caught.value) == (
        f"no labels for '{tmp_path / 'a_best.weights'}': expected 'a.names' beside it, with one class on each line. "
        "Name the file with --labels FILE"
    )


# --- .data files


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("classes= 2\nnames = b.names\n", "m/b.names", id="beside"),
        pytest.param("names=data/b.names\n", "m/data/b.names", id="below"),
        pytest.param("names=data/b.names\n", "m/b.names", id="beside, though a folder is named"),
        pytest.param("labels=b.list\n", "m/b.list", id="as labels"),
        pytest.param("labels=b.list\nnames=b.names\n", "m/b.names", id="names before labels"),
        pytest.param("#names=a.names\nnames=b.names\nnames=c.names\n", "m/b.names", id="the first that is no comment"),
    ],
)
@pytest.mark.parametrize("data", ["m/a.data", "m/other.data"])
def test_labels_are_found_through_a_data_file(tmp_path: Path, data: str, text: str, place: str) -> None:
    make(tmp_path, place, "m/y.names", "m/z.names")
    (tmp_path / data).write_text(text)
    assert find_labels(tmp_path / "m/a_best.weights", tmp_path / "m/a.cfg") == tmp_path / place


def test_a_names_file_comes_before_a_data_file(tmp_path: Path) -> None:
    make(tmp_path, "a.names", "b.names")
    (tmp_path / "a.data").write_text("names=b.names\n")
    assert find_labels(tmp_path / "a.weights", tmp_path / "a.cfg") == tmp_path / "a.names"


def test_a_data_file_without_names_says_nothing(tmp_path: Path) -> None:
    make(tmp_path, "coco.names", "b.names")
    (tmp_path / "a.data").write_text("classes=2\ntrain=x\n")
    assert find_labels(tmp_path / "a.weights", tmp_path / "a.cfg") == tmp_path / "coco.names"


def test_a_data_file_that_names_what_is_not_there_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text("classes=2\nnames = data/b.names\n")
    with pytest.raises(DarknetParseError) as caught:
        find_labels(tmp_path / "a.weights", tmp_path / "a.cfg")
    assert str(caught.value) == (
        f"{tmp_path / 'a.data'}:2: names=data/b.names: there is no such file beside the cfg or the weights. "
        "Name the labels with --labels FILE"
    )


# --- a project as Darknet's training lays it out: backup/, cfg/ and data/


def project(root: Path, data: str, text: str = "names = data/obj.names\n") -> ConversionRequest:
    """Make a project with its .data file at `data`. Returns the request that names its weights alone."""
    make(root, "backup/yolo-obj_best.weights", "data/obj.names", "data/others.names", "data/train.txt")
    (root / "cfg").mkdir(exist_ok=True)
    (root / "cfg/yolo-obj.cfg").write_text("[net]\n[softmax]\n")
    (root / data).write_text(text)
    return ConversionRequest(model=root / "backup/yolo-obj_best.weights")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param("cfg/obj.data", "classes=2\nnames = data/obj.names\nbackup = backup/\n", id="as Darknet is run"),
        pytest.param("data/obj.data", "names = data/obj.names\n", id="the .data in data"),
        pytest.param("cfg/yolo-obj.data", "names = obj.names\n", id="its last name alone"),
        pytest.param("cfg/obj.data", "names = /home/me/darknet/data/obj.names\n", id="where it was trained"),
        pytest.param("cfg/obj.data", "names = {root}/data/obj.names\n", id="the whole path"),
    ],
)
def test_weights_in_backup_have_their_cfg_and_labels_in_the_project(tmp_path: Path, data: str, text: str) -> None:
    request = project(tmp_path, data, text.format(root=tmp_path))
    expected = (request.model, tmp_path / "cfg/yolo-obj.cfg", tmp_path / "data/obj.names")
    assert tuple(path.resolve() for path in files_of(request)) == expected
    assert files(request.model_copy(update={"cfg": tmp_path / "cfg/yolo-obj.cfg"}))[2].resolve() == expected[2]


def test_a_project_without_a_data_file_has_the_usual_labels(tmp_path: Path) -> None:
    request = project(tmp_path, "data/notes.md")
    assert files(request)[2] == tmp_path / "data/obj.names"


def test_a_cfg_in_a_project_names_what_lies_in_data(tmp_path: Path) -> None:
    request = project(tmp_path, "cfg/obj.data")
    make(tmp_path, "data/9k.tree")
    (tmp_path / "cfg/yolo-obj.cfg").write_text("[net]\n[region]\ntree=data/9k.tree\n")
    assert files(request)[3] == tmp_path / "data/9k.tree"


@pytest.mark.parametrize(
    "way",
    ["secret", "../secret", "data/../secret", "{root}/secret", "data/link", "link", "other/secret", "x/../secret"],
)
def test_no_file_of_a_project_but_in_its_three_folders_is_read(tmp_path: Path, way: str) -> None:
    request = project(tmp_path, "cfg/obj.data", f"names = {way.format(root=tmp_path)}\n")
    make(tmp_path, "secret", "other/secret")
    (tmp_path / "data/link").symlink_to(tmp_path / "secret")
    with pytest.raises(
        DarknetParseError, match=r"obj\.data:1: .*: there is no such file beside the cfg or the weights"
    ):
        files(request)


@pytest.mark.parametrize("folder", ["data", "cfg"])
def test_a_folder_of_a_project_that_is_a_link_is_none(tmp_path: Path, folder: str) -> None:
    request = project(tmp_path / "project", "cfg/obj.data")
    (tmp_path / "project" / folder).rename(tmp_path / folder)
    (tmp_path / "project" / folder).symlink_to(tmp_path / folder)
    with pytest.raises(ConversionError):
        files(request)


@pytest.mark.parametrize("folder", ["weights", "backup/old"])
def test_weights_elsewhere_are_no_projects(tmp_path: Path, folder: str) -> None:
    request = project(tmp_path, "cfg/obj.data")
    (tmp_path / folder).mkdir(parents=True)
    weights = request.model.rename(tmp_path / folder / request.model.name)
    with pytest.raises(ConversionError, match=r"no 'yolo-obj_best\.cfg' or 'yolo-obj\.cfg' beside"):
        files(ConversionRequest(model=weights))
    with pytest.raises(DarknetParseError, match="there is no such file beside the cfg or the weights"):
        files(ConversionRequest(model=weights, cfg=tmp_path / "cfg/yolo-obj.cfg"))


def test_a_missing_cfg_of_a_project_is_named_with_what_to_do(tmp_path: Path) -> None:
    request = project(tmp_path, "cfg/obj.data")
    (tmp_path / "cfg/yolo-obj.cfg").unlink()
    with pytest.raises(ConversionError) as caught:
        find_cfg(request.model)
    assert str(caught.value) == (
        f"no 'yolo-obj_best.cfg' or 'yolo-obj.cfg' beside '{request.model}' or in '{tmp_path / 'cfg'}'. "
        "Name the network's cfg with --cfg FILE"
    )


# --- what a cfg names


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("cfg/data/9k.tree", id="below the cfg"),
        pytest.param("cfg/9k.tree", id="beside the cfg"),
        pytest.param("w/data/9k.tree", id="below the weights"),
        pytest.param("w/9k.tree", id="beside the weights"),
    ],
)
def test_what_a_cfg_names_is_found_and_is_one_of_the_models_files(tmp_path: Path, place: str) -> None:
    make(tmp_path, place, "w/a.names")
    (tmp_path / "cfg").mkdir(exist_ok=True)
    cfg, weights = tmp_path / "cfg/a.cfg", tmp_path / "w/a.weights"
    cfg.write_text("[net]\n[region]\ntree=data/9k.tree\n[region]\ntree=data/9k.tree\n")
    request = ConversionRequest(model=weights, cfg=cfg)
    assert files(request) == (weights, cfg, tmp_path / "w/a.names", tmp_path / place)


def test_what_a_cfg_does_not_name_is_none(tmp_path: Path) -> None:
    assert beside(parse_cfg("[net]\n[region]\n")[1], "tree", tmp_path / "a.weights") is None


@pytest.mark.parametrize("name", ["data/9k.tree", "x" * 5000, "..", "/"])
def test_what_a_cfg_names_in_vain_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    section = parse_cfg(f"[net]\n[region]\ntree={name}\n", tmp_path / "a.cfg")[1]
    with pytest.raises(DarknetParseError, match=r"a\.cfg:3: \[region\] tree=.*: there is no such file beside the cfg"):
        beside(section, "tree", tmp_path / "a.weights")


# --- what is not the model's own

# As a model's files may name one that the worker's user may read, and nobody has asked for.
SECRET = "9k\n"
WAYS = ["{secret}", "../secret", "sub/../../secret", "{folder}/../secret", "link", "sub/link", "circle"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, and outside of it a file, which links lead to."""
    make(tmp_path, "m/sub/x")
    (tmp_path / "secret").write_text(SECRET)
    for link in ("m/link", "m/sub/link"):
        (tmp_path / link).symlink_to(tmp_path / "secret")
    (tmp_path / "m/circle").symlink_to("circle")
    return tmp_path / "m"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("option", ["tree", "map"])
def test_no_file_that_a_cfg_names_elsewhere_is_read(folder: Path, option: str, way: str) -> None:
    name = way.format(secret=folder.parent / "secret", folder=folder)
    (folder / "a.cfg").write_text(f"[net]\n[region]\n{option}={name}\n")
    make(folder, "a.names")
    with pytest.raises(DarknetParseError, match=r"a\.cfg:3: .*: there is no such file beside the cfg or the weights"):
        files(ConversionRequest(model=folder / "a.weights"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("option", ["names", "labels"])
def test_no_file_that_a_data_file_names_elsewhere_is_read(folder: Path, option: str, way: str) -> None:
    name = way.format(secret=folder.parent / "secret", folder=folder)
    (folder / "a.data").write_text(f"{option}={name}\n")
    with pytest.raises(DarknetParseError, match=r"a\.data:1: .*: there is no such file beside the cfg or the weights"):
        find_labels(folder / "a.weights", folder / "a.cfg")


@pytest.mark.parametrize("name", ["a.cfg", "a.names", "a.data", "obj.names", "other.names", "other.data"])
def test_no_file_that_lies_beside_as_a_link_is_read(folder: Path, name: str) -> None:
    if name != "a.cfg":
        (folder / "a.cfg").write_text("[net]\n")
    (folder / name).symlink_to(folder.parent / "secret")
    with pytest.raises(ConversionError, match=f"'{folder / name}' leads out of the folder of the model") as caught:
        files(ConversionRequest(model=folder / "a.weights"))
    assert SECRET.strip() not in str(caught.value).replace(str(folder), "")


def test_files_of_a_cache_that_keeps_them_by_content_are_found(tmp_path: Path) -> None:
    make(tmp_path, "blobs/1", "blobs/2", "snapshots/x/README.md")
    (tmp_path / "blobs/3").write_text("[net]\n[softmax]\n")
    for name, blob in (("a.weights", "1"), ("a.names", "2"), ("a.cfg", "3")):
        (tmp_path / "snapshots/x" / name).symlink_to(f"../../blobs/{blob}")
    model = tmp_path / "snapshots/x/a.weights"
    found = files_of(ConversionRequest(model=model))
    assert found == (model, model.with_suffix(".cfg"), model.with_suffix(".names"))
