import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from engines.tiny import detector, spec_of, write_model, write_onnx
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trtjob.engines.spec import (
    ModelSpec,
    NmsKind,
    Parity,
    ResizeMode,
    Sampling,
    SourceFile,
    Task,
    load_spec,
    parse_spec,
)
from trtjob.errors import ModelError

PATH = Path("a.onnx")
REMEDY = "Convert the original model with: trtjob convert"

FULL = ModelSpec(
    task=Task.DETECT,
    labels=("cat", "größe"),
    input_hw=(416, 608),
    channels=1,
    color="gray",
    resize=ResizeMode.LETTERBOX,
    sampling=Sampling.ALIGN_CORNERS,
    pad_value=128,
    multi_label=True,
    candidates=512,
    min_score=0.01,
    conf=0.3,
    iou=0.5,
    nms_kind=NmsKind.DIOU,
    nms_beta=0.8,
    precision="fp16",
    converter="trtjob 0",
    sources=(SourceFile(name="a.cfg", sha256="ab" * 32, size_bytes=7),),
    parity=Parity(reference="Darknet", inputs="1 image", images=1, max_abs={"boxes": 0.1}, matched=1.0),
)


def document(**changes: Any) -> str:
    return json.dumps({**json.loads(FULL.model_dump_json()), **changes})


@pytest.mark.parametrize("spec", [pytest.param(FULL, id="full"), pytest.param(spec_of(Task.CLASSIFY), id="defaults")])
def test_a_spec_survives_the_round_trip(spec: ModelSpec) -> None:
    assert parse_spec(spec.model_dump_json(), PATH) == spec


@given(
    st.builds(
        ModelSpec,
        task=st.sampled_from(Task),
        labels=st.lists(st.text(st.characters(codec="utf-8")), max_size=3).map(tuple),
        input_hw=st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
        iou=st.floats(0, 1),
        nms_beta=st.floats(0, 9, exclude_min=True),
    )
)
def test_any_spec_survives_the_round_trip(spec: ModelSpec) -> None:
    assert parse_spec(spec.model_dump_json(), PATH) == spec


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FULL.conf = 0.9  # type: ignore[misc]


def test_a_model_without_a_description_says_what_to_do() -> None:
    with pytest.raises(ModelError) as caught:
        parse_spec(None, PATH)
    assert str(caught.value) == f"'a.onnx' is an ONNX file without trtjob's description. {REMEDY}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param("", "Invalid JSON: EOF", id="empty"),
        pytest.param(document()[:-9], "Invalid JSON: EOF", id="cut off"),
        pytest.param("[]", "Input should be an object", id="no object"),
        pytest.param(document(schema_version=3), "schema_version: expected 2", id="of a later version"),
        pytest.param(document(schema_version=1), "schema_version: expected 2", id="of an earlier version"),
        pytest.param(document(extra=1), "extra: it is not known", id="a name that is not known"),
        pytest.param(document(task="segment"), "task: expected 'detect' or 'classify'", id="another task"),
        pytest.param(document(input_hw=[1]), "input_hw: 1: it is missing", id="half a size"),
        pytest.param(document(nms_beta=0), "nms_beta: expected more than 0", id="out of range"),
        pytest.param(document(candidates=3841), "candidates: expected 3840 or less", id="more than TensorRT takes"),
        pytest.param(document(labels=[1]), "labels: 0: expected text", id="labels of another type"),
    ],
)
def test_a_damaged_description_is_refused_in_one_line_that_says_where(text: str, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_spec(text, PATH)
    message = str(caught.value)
    assert message.startswith(f"'a.onnx' carries a description that this version of trtjob cannot read: {what}")
    assert message.endswith(f". {REMEDY}")
    assert "\n" not in message


def test_everything_that_is_wrong_is_named() -> None:
    with pytest.raises(ModelError, match=r"task: expected .*; conf: expected 1 or less"):
        parse_spec(document(task="x", conf=2), PATH)


@pytest.mark.slow
@given(st.text() | st.recursive(st.none() | st.booleans(), st.lists).map(json.dumps))
def test_any_text_is_refused_as_a_model_error(text: str) -> None:
    with pytest.raises(ModelError):
        parse_spec(text, PATH)


def test_the_spec_is_read_out_of_a_file(tmp_path: Path) -> None:
    assert load_spec(write_model(tmp_path / "a.onnx")) == spec_of(Task.DETECT)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", detector(), None)
    with pytest.raises(ModelError, match=f"is an ONNX file without trtjob's description. {REMEDY}$"):
        load_spec(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_spec(tmp_path / "a.onnx")
    assert str(caught.value) == f"no model file '{tmp_path / 'a.onnx'}'"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<!DOCTYPE html>\n<html>", id="a web page"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 99, id="an image"),
        pytest.param(detector().SerializeToString()[:300], id="cut off"),
    ],
)
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"^'{re.escape(str(path))}' is not an ONNX file: .+ {REMEDY}$") as caught:
        load_spec(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_onnx_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not an ONNX file: .*Is a directory"):
        load_spec(tmp_path)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "sub/../../secret", "link", "circle", "\0"])
def test_a_model_whose_weights_lie_outside_its_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(10_000))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "circle").symlink_to("circle")
    model = onnx.load(write_model(folder / "a.onnx"))
    onnx.external_data_helper.convert_model_to_external_data(model, location="a.data", size_threshold=0)
    onnx.save(model, folder / "a.onnx")
    assert load_spec(folder / "a.onnx") == spec_of(Task.DETECT)
    model = onnx.load(folder / "a.onnx", load_external_data=False)
    places = [entry for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"]
    places[-1].value = location
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder: such a file is not read"):
        load_spec(folder / "a.onnx")


def test_a_model_whose_weights_lie_where_no_text_names_is_damaged(tmp_path: Path) -> None:
    model = onnx.load(write_model(tmp_path / "a.onnx"))
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights", size_threshold=0)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString().replace(b"weights", b"weight\xff"))
    with pytest.raises(ModelError, match="is damaged: it holds names that are no text"):
        load_spec(tmp_path / "a.onnx")
