"""The files behind an ONNX model: itself, its labels, and weights that lie beside it; and files that are none."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from converters.onnx import graphs
from engines import tiny

from trtjob.converters.artefact import serialised
from trtjob.converters.onnx.convert import convert
from trtjob.converters.onnx.files import files
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import files_of
from trtjob.engines.spec import Task, load_spec
from trtjob.errors import ConfigError, ConversionError, ModelError, TrtjobError


def test_finding_files_imports_nothing_heavy() -> None:
    code = "import sys, trtjob.converters.onnx.files as _; sys.exit(bool({'onnx', 'onnxruntime'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- a model of ours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [pytest.param(task, id=task.value) for task in Task])
def test_a_model_of_ours_is_kept_as_it_is(task: Task, tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "tiny.onnx", task)
    found = convert(ConversionRequest(model=path))
    assert found.spec == load_spec(path)
    assert onnx.load_from_string(serialised(found.model, found.spec)).graph == onnx.load(path).graph


def test_a_model_of_ours_with_a_damaged_description_is_refused(tmp_path: Path) -> None:
    made = graphs.detector(metadata={"trtjob": "{}"})
    with pytest.raises(ModelError, match="carries a description that this version of trtjob cannot read"):
        convert(graphs.save(made, tmp_path / "net.onnx"))


def test_labels_do_not_count_for_a_model_of_ours(tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "tiny.onnx")
    assert files(ConversionRequest(model=path, labels=tmp_path / "labels.txt")) == (path,)


@pytest.mark.parametrize("option", [{"labels": Path("a,b")}, {"scores": "sigmoid"}, {"size": (64, 64)}])
def test_what_a_model_of_ours_says_itself_is_not_asked_for_again(tmp_path: Path, option: dict[str, Any]) -> None:
    path = tiny.write_model(tmp_path / "tiny.onnx", Task.CLASSIFY)
    with pytest.raises(ConfigError, match=f"--{next(iter(option))}: .* was converted by trtjob, and holds that"):
        convert(ConversionRequest(model=path, **option))


# -- weights beside the model ------------------------------------------------------------------------------------------


def with_external(folder: Path, location: str = "net.onnx.data") -> ConversionRequest:
    """Write a detector whose weights lie in a file beside it."""
    made = graphs.detector()
    request = ConversionRequest(model=folder / "net.onnx")
    onnx.save(made, request.model, save_as_external_data=True, location=location, size_threshold=0)
    return request


def entry(made: onnx.ModelProto, key: str) -> onnx.StringStringEntryProto:
    entries: list[onnx.StringStringEntryProto] = list(made.graph.initializer[0].external_data)
    return next(entry for entry in entries if entry.key == key)


def test_weights_beside_the_model_are_read_in(tmp_path: Path) -> None:
    found = convert(with_external(tmp_path))
    plain = convert(graphs.save(graphs.detector(), tmp_path / "plain.onnx"))
    assert [tensor.raw_data for tensor in found.model.graph.initializer] == [
        tensor.raw_data for tensor in plain.model.graph.initializer
    ]
    assert not onnx.external_data_helper.uses_external_data(found.model.graph.initializer[0])
    assert [source.name for source in found.spec.sources] == ["net.onnx", "net.onnx.data"]


def test_all_files_are_listed(tmp_path: Path) -> None:
    request = with_external(tmp_path)
    labels = graphs.labels_file(tmp_path)
    asked = request.model_copy(update={"labels": labels})
    assert files(asked) == (tmp_path / "net.onnx", tmp_path / "net.onnx.data", labels)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    request = with_external(tmp_path)
    (tmp_path / "net.onnx.data").unlink()
    for function in (files, convert):
        with pytest.raises(ConversionError, match=r"keeps its weights in 'net\.onnx\.data', and there is no such file"):
            function(request)


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    request = with_external(tmp_path)
    data = tmp_path / "net.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ConversionError, match="is cut off or belongs to another model"):
        convert(request)


@pytest.mark.parametrize("location", ["../other.data", "/etc/hostname", "sub/../../other.data", "link.data"])
def test_weights_outside_the_models_folder_are_not_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "other.data").write_bytes(bytes(10_000))
    (folder / "link.data").symlink_to(tmp_path / "other.data")
    request = with_external(folder)
    made = onnx.load(request.model, load_external_data=False)
    entry(made, "location").value = location
    request.model.write_bytes(made.SerializeToString())
    with pytest.raises(ConversionError, match="outside its folder: such a file is not read"):
        files(request)


def test_labels_that_lie_beside_as_a_link_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("cat\n")
    request = with_external(folder)
    made = onnx.load(request.model, load_external_data=False)
    del made.metadata_props[:]  # which have names, too
    request.model.write_bytes(made.SerializeToString())
    (folder / "net.names").symlink_to(tmp_path / "secret")
    with pytest.raises(ConversionError, match=r"net\.names' leads out of the folder of the model"):
        files(request)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        pytest.param("offset", "nowhere", "have no place in", id="no number"),
        pytest.param("offset", "-4", "is cut off or belongs to another", id="before"),
        pytest.param("length", "99999999", "is cut off or belongs to another", id="beyond"),
        pytest.param("length", "3000000000000", "is cut off or belongs to another", id="far beyond"),
        pytest.param("location", "", "a file without a name", id="no name"),
        pytest.param("location", "x" * 300, "cannot be read|no such file", id="a long name"),
    ],
)
def test_places_that_cannot_be_are_refused(key: str, text: str, message: str, tmp_path: Path) -> None:
    request = with_external(tmp_path)
    made = onnx.load(request.model, load_external_data=False)
    entry(made, key).value = text
    request.model.write_bytes(made.SerializeToString())
    with pytest.raises(ConversionError, match=message):
        convert(request)


# -- files that are none -----------------------------------------------------------------------------------------------


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file"):
        files(ConversionRequest(model=tmp_path / "net.onnx"))


def test_labels_that_are_no_file_are_said(tmp_path: Path) -> None:
    request = graphs.save(graphs.classifier(), tmp_path / "net.onnx", labels=tmp_path / "no,yes")
    with pytest.raises(ConversionError, match=r"^--labels: there is no file '.*/no,yes'\. Write the names into one"):
        files_of(request)


def test_a_graph_without_an_output_is_refused(tmp_path: Path) -> None:
    made = graphs.classifier()
    del made.graph.output[:]
    with pytest.raises(ConversionError, match=r"it has no output\. Name the value with the scores with --output NAME"):
        convert(graphs.save(made, tmp_path / "net.onnx"))


@pytest.mark.parametrize("data", [pytest.param(b"", id="empty"), pytest.param(b"\xff" * 99, id="noise")])
def test_a_file_that_is_no_onnx_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    for function in (files, convert):
        with pytest.raises(ModelError, match="is not an ONNX file"):
            function(ConversionRequest(model=path))


@pytest.mark.parametrize(
    ("opset", "message"),
    [
        pytest.param(6, r"uses opset 6: expected 7 to \d+", id="old"),
        pytest.param(999, r"uses opset 999: expected 7 to \d+", id="of the future"),
        pytest.param(None, "uses no opset of ONNX's own operators", id="none"),
    ],
)
def test_opsets_that_cannot_be_read_are_refused(opset: int | None, message: str, tmp_path: Path) -> None:
    made = graphs.detector()
    del made.opset_import[:]
    if opset is not None:
        made.opset_import.append(onnx.helper.make_opsetid("", opset))
    with pytest.raises(ConversionError, match=message):
        convert(graphs.save(made, tmp_path / "net.onnx"))


def test_operators_of_strangers_are_refused(tmp_path: Path) -> None:
    made = graphs.detector()
    made.graph.node[0].domain = "com.example"
    made.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    with pytest.raises(ConversionError, match=r"needs the operator 'Conv' of the domain 'com\.example'"):
        convert(graphs.save(made, tmp_path / "net.onnx"))


def test_a_graph_that_breaks_the_rules_is_refused(tmp_path: Path) -> None:
    made = graphs.detector()
    made.graph.node[0].input[0] = "nothing"
    with pytest.raises(ConversionError, match="is no valid ONNX model: "):
        convert(graphs.save(made, tmp_path / "net.onnx"))


@pytest.mark.parametrize("batch", [1 << 15, 1 << 40, (1 << 63) - 1])
def test_a_graph_for_too_many_images_at_once_is_refused(batch: int, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"takes [\d,]+ images at once: expected up to 1,024\. Export it for one"):
        convert(graphs.save(graphs.detector(batch=batch), tmp_path / "net.onnx"))


def test_a_graph_that_onnx_runtime_cannot_run_is_refused(tmp_path: Path) -> None:
    made = graphs.detector()
    made.graph.initializer[0].CopyFrom(graphs.constant("kernel", np.ones((7, 5, 1, 1))))
    with pytest.raises(ConversionError, match=r"ONNX Runtime [0-9.]+ cannot load|ONNX Runtime cannot run"):
        convert(graphs.save(made, tmp_path / "net.onnx"))


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Return the file cut off, with other bytes, or with a number blown up."""
    at = int(random.integers(len(data)))
    kinds = (
        data[:at],
        data[:at] + random.bytes(8) + data[at + 8 :],
        data[:at] + bytes([data[at] ^ 1 << int(random.integers(8))]) + data[at + 1 :],
        data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :],
    )
    return kinds[int(random.integers(len(kinds)))]


@pytest.mark.parametrize("layout", ["columns", "final"])
def test_a_damaged_file_is_refused_in_one_line(layout: str, tmp_path: Path) -> None:
    request = graphs.save(graphs.detector(layout), tmp_path / "net.onnx")
    whole, messages = request.model.read_bytes(), []
    for number in range(150):
        request.model.write_bytes(damaged(whole, np.random.default_rng([20260101, number])))
        try:
            convert(request)
        except TrtjobError as err:
            messages.append(str(err))
    assert len(messages) > 15
    assert not [message for message in messages if "\n" in message or not 0 < len(message) <= 2000]
