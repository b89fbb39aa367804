"""Class names from every file that people have them in: understood, or refused with what is expected."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from trtjob.converters.labels import fitting_labels, read_labels, resolved_labels_file
from trtjob.errors import ConversionError

REFUSED = "are none that are understood: expected a text of names, one on each line"


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("a.names", "cat\nhot dog\n", id="lines"),
        pytest.param("classes.txt", "cat\nhot dog", id="no line end at the end"),
        pytest.param("a.names", b"\xef\xbb\xbfcat\r\n hot dog \r\n\r\n\n", id="as Windows has it, and empty lines"),
        pytest.param("a.yaml", "names: [cat, 'hot dog']\n", id="yaml list"),
        pytest.param("a.yaml", "# mine\npath: x\nnc: 2\nnames:\n- cat\n- hot dog # a food\n", id="yaml block list"),
        pytest.param("a.yml", "train: t\nnames:\n  0: cat\n  1: hot dog\n", id="Ultralytics"),
        pytest.param("a.yaml", "names: {1: hot dog, 0: cat}", id="yaml flow table"),
        pytest.param("a.json", '["cat", "hot dog"]', id="json list"),
        pytest.param("a.json", '{"0": "cat", "1": "hot dog"}', id="json table"),
        pytest.param("class_indices.json", '{"hot dog": 1, "cat": 0}', id="Keras' class_indices"),
        pytest.param("a.json", '{"0": ["n1", "cat"], "1": ["n2", "hot dog"]}', id="Keras' imagenet_class_index"),
        pytest.param("config.json", '{"id2label": {"0": "cat", "1": "hot dog"}, "x": 1}', id="Hugging Face"),
        pytest.param("a.json", '{"names": ["cat", "hot dog"]}', id="json names"),
        pytest.param("synset.txt", "{0: 'cat',\n 1: 'hot dog'}", id="Python"),
    ],
)
def test_labels_are_understood(name: str, text: str | bytes, tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, name, text)) == ("cat", "hot dog")


def test_yaml_has_no_labels_but_texts(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "a.yaml", "names: [no, 1e3, null, 007]")) == ("no", "1e3", "null", "007")


def test_labels_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "a.names", "größe\u2028x\n猫\x85猫\n")) == ("größe\u2028x", "猫\x85猫")


# Nine to the power of eight, for who takes it apart.
LISTS_OF_LISTS = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in pairwise("abcdefghi")
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("obj.names", "classes= 2\nnames = data/obj.names\n", REFUSED, id="options under another name"),
        pytest.param("net.cfg", "[net]\nwidth=4\n", REFUSED, id="cfg"),
        pytest.param("a.csv", "id,name\n0,cat\n", REFUSED, id="csv"),
        pytest.param("label_map.pbtxt", "item { id: 1 name: 'cat' }", REFUSED, id="pbtxt"),
        pytest.param("a.yaml", "train: x\n", REFUSED, id="yaml without names"),
        pytest.param("a.yaml", "names: {0: cat, 2: dog}", REFUSED, id="a gap"),
        pytest.param("a.yaml", "names: [cat, [dog, [cow]]]", REFUSED, id="nested"),
        pytest.param("a.yaml", "names: [cat", "are no YAML", id="broken yaml"),
        pytest.param("a.json", '["cat"', "are no JSON", id="broken json"),
        pytest.param("a.json", json.dumps([{"id": 1, "name": "cat"}]), REFUSED, id="list of objects"),
        pytest.param("a.json", "[]", REFUSED, id="empty list"),
        pytest.param("a.json", "[" * 100_000, "are no JSON", id="deep"),
        pytest.param("a.names", "", ":1: the line is empty or binary", id="empty"),
        pytest.param("a.names", "cat\n \ndog\n", ":2: the line is empty or binary", id="a line between"),
        pytest.param("a.names", "cat\nd\0g\n", ":2: the line is empty or binary", id="binary"),
        pytest.param("a.names", b"cat\ngr\xf6\xdfe\n", "are no text in UTF-8", id="an old encoding"),
        pytest.param("a.names", b"x" * 10_000_001, "are larger than 10,000,000 bytes", id="large"),
        pytest.param("a.json", '{"' + "9" * 5000 + '": "cat"}', REFUSED, id="a long number"),
        pytest.param("a.yaml", "[" * 10_000, "are no YAML", id="deep YAML"),
        pytest.param("a.yaml", LISTS_OF_LISTS, REFUSED, id="lists of lists by name"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=re.escape(message)):
        read_labels(written(tmp_path, name, text))


@pytest.mark.parametrize(("name", "reason"), [("missing.names", "No such file or directory"), (".", "Is a directory")])
def test_labels_that_cannot_be_read_are_named(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=rf"^the labels '.*' cannot be read: {reason}$"):
        read_labels(tmp_path / name)


# -- .data files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["data/obj.names", "obj.names"])
def test_a_data_file_means_the_file_that_it_names(place: str, tmp_path: Path) -> None:
    data = written(tmp_path, "obj.data", "classes= 2\ntrain  = data/train.txt\nnames = data/obj.names\n")
    written(tmp_path, place, "cat\ndog\n")
    assert resolved_labels_file(data) == tmp_path / place
    assert read_labels(resolved_labels_file(data)) == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("classes= 2\n", "has no line `names = FILE`", id="no names"),
        pytest.param("classes= 2\nnames = x.names\n", "obj.data:2: names=x.names: there is no such file", id="no file"),
        pytest.param("names = ../secret\n", "there is no such file beside it", id="outside"),
        pytest.param("names = link\n", "there is no such file beside it", id="a link outside"),
        pytest.param("names = /etc/hostname\n", "there is no such file beside it", id="absolute"),
        pytest.param("names = circle\n", "there is no such file beside it", id="a link in a circle"),
    ],
)
def test_a_data_file_without_labels_beside_it_is_refused(text: str, message: str, tmp_path: Path) -> None:
    secret = written(tmp_path, "secret", "cat\ndog\n")
    data = written(tmp_path, "model/obj.data", text)
    (tmp_path / "model" / "link").symlink_to(secret)
    (tmp_path / "model" / "circle").symlink_to("circle")
    with pytest.raises(ConversionError, match=re.escape(message)):
        resolved_labels_file(data)


# -- how many ----------------------------------------------------------------------------------------------------------


def test_labels_that_were_asked_for_have_to_fit(tmp_path: Path) -> None:
    path = written(tmp_path, "a.names", "cat\ndog\n")
    assert fitting_labels(path, 2, Path("net.onnx"), is_asked=True) == (("cat", "dog"), "")
    with pytest.raises(ConversionError, match=r"gives scores of 3 classes, but there are 2 labels"):
        fitting_labels(path, 3, Path("net.onnx"), is_asked=True)


def test_labels_that_were_found_and_do_not_fit_are_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "a.names", "cat\ndog\n")
    labels, warning = fitting_labels(path, 3, Path("net.onnx"), is_asked=False)
    assert labels == ("class_0", "class_1", "class_2")
    assert warning.startswith("'a.names' beside the model has 2 names, but the model has 3 classes. It is not used")


def test_a_list_of_all_of_imagenet_may_be_longer_than_the_classes(tmp_path: Path) -> None:
    path = written(tmp_path, "imagenet.shortnames.list", "cat\ndog\ncow\n")
    assert fitting_labels(path, 2, Path("net.weights"), is_asked=False) == (("cat", "dog"), "")
