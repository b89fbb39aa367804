"""`trtjob models`, as far as it goes without a GPU."""

import json
from pathlib import Path

import pytest
from cli.conftest import Command
from engines import tiny

from trtjob.config import load_settings
from trtjob.converters.registry import ModelRegistry
from trtjob.engines.spec import Parity, Task


@pytest.mark.parametrize("batches", ["8:4:2", "8:4", "x", "1:1:4096"])
def test_batches_that_no_plan_can_have_are_refused_as_wrong_usage(trtjob: Command, batches: str) -> None:
    outcome = trtjob("models", "build", "yolov3", "--batch", batches)
    assert outcome.code == 2
    assert f"--batch '{batches}': expected 1 <= smallest" in outcome.err


@pytest.mark.parametrize(("name", "value"), [("TRTJOB_PLAN_BATCHES", "8:4:2"), ("TRTJOB_PLAN_STORE", "ftp://x")])
def test_a_wrong_setting_of_plans_is_refused_before_any_job_runs(
    trtjob: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    outcome = trtjob("models")
    assert outcome.code == 2
    assert f"{name} = '{value}'" in outcome.err


@pytest.mark.parametrize("command", [["list"], ["show", "tiny"], ["remove", "tiny"]])
def test_what_is_wrong_with_the_environment_is_said_once(
    trtjob: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    ModelRegistry(load_settings().models_dir).add("tiny", tiny.write_model(tmp_path / "tiny.onnx"))
    monkeypatch.setenv("TRTJOB_THREAD", "2")
    outcome = trtjob("models", *command)
    assert outcome.code == 0
    assert outcome.err.count("TRTJOB_THREAD is no setting") == 1


def test_a_damaged_model_is_named_below_the_others(trtjob: Command, tmp_path: Path) -> None:
    registry = ModelRegistry(load_settings().models_dir)
    registry.add("whole", tiny.write_model(tmp_path / "tiny.onnx"))
    (registry.folder / "names" / "broken.json").write_text("{")
    table, document = trtjob("models", "list"), trtjob("models", "list", "--json")
    assert "whole" in table.out
    assert [model["name"] for model in json.loads(document.out)] == ["whole"]
    for outcome in (table, document):
        assert outcome.code == 1
        assert outcome.err.startswith("error: the registered model 'broken' is damaged")
        assert outcome.err.endswith("Remove it with: trtjob models remove broken\n")
    assert "'broken' is damaged" in trtjob("doctor").out


def test_a_name_that_would_move_is_refused_and_moved_when_asked_for(trtjob: Command, tmp_path: Path) -> None:
    first, second = tiny.write_model(tmp_path / "a.onnx"), tiny.write_model(tmp_path / "b.onnx", Task.CLASSIFY)
    assert trtjob("convert", first, "--local", "--name", "best").code == 0
    refused = trtjob("convert", second, "--local", "--name", "best")
    assert (refused.code, "--replace" in refused.err) == (2, True)
    assert trtjob("convert", second, "--local", "--name", "best", "--replace").code == 0
    (model,) = json.loads(trtjob("models", "list", "--json").out)
    assert model["spec"]["task"] == "classify"


@pytest.mark.parametrize("arguments", [[], ["best", "--unnamed"]])
def test_one_model_is_removed_or_those_without_a_name(trtjob: Command, arguments: list[str]) -> None:
    assert trtjob("models", "remove", *arguments).code == 2
    outcome = trtjob("models", "remove", "--unnamed")
    assert (outcome.code, outcome.out) == (0, "0 models without a name: removed\n")


def test_what_a_model_gives_beside_boxes_is_shown(trtjob: Command, tmp_path: Path) -> None:
    ModelRegistry(load_settings().models_dir).add("outlines", tiny.write_segmenter(tmp_path / "tiny.onnx"))
    outcome = trtjob("models", "show", "outlines")
    assert outcome.code == 0
    assert ["gives", "masks"] in [line.split() for line in outcome.out.splitlines()]


def test_where_nothing_could_be_compared_with_the_original_it_is_said(trtjob: Command, tmp_path: Path) -> None:
    parity = Parity(reference="a.onnx", inputs="8 generated images", images=8, max_abs={})
    spec = tiny.spec_of(Task.DETECT).model_copy(update={"parity": parity})
    file = tiny.write_onnx(tmp_path / "tiny.onnx", tiny.detector(), spec.model_dump_json())
    ModelRegistry(load_settings().models_dir).add("empty", file)
    outcome = trtjob("models", "show", "empty")
    assert "nothing to compare; against a.onnx, on 8 generated images" in outcome.out
