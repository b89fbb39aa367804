"""`trtjob convert` and what it says of a model."""

import hashlib
import json
import signal
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from cli.conftest import Command
from loop_model import write_endless
from terminal import DIGITS, Terminal, wait_for

from trtjob.cli import convert
from trtjob.converters.request import ConversionRequest

WEIGHTS = DIGITS / "digits.weights"


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def row(out: str, name: str) -> str:
    """Return what a table says beside a name."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
    return line.removeprefix(name).strip()


def test_the_table_says_what_the_model_is(trtjob: Command) -> None:
    out = trtjob("convert", WEIGHTS, "--local", "--name", "mine").out
    assert row(out, "model") == "mine"
    assert row(out, "from") == "digits.cfg, digits.weights, digits.names"
    assert row(out, "task") == "detect"
    assert row(out, "input") == "320x320 rgb, stretch"
    assert row(out, "labels") == "10 (0, 1, 2, 3, 4, ...)"
    assert row(out, "layers") == "24, 443,666 parameters"
    assert row(out, "precision") == "fp32"


def test_a_detector_gives_as_many_candidates_as_it_is_asked_for(trtjob: Command) -> None:
    out = trtjob("convert", WEIGHTS, "--local", "--candidates", 50).out
    assert row(out, "outputs") == "boxes [N, 50, 4], scores [N, 50, 10], candidates [N, 50, 6]"


def test_show_says_the_same_as_the_conversion(trtjob: Command) -> None:
    assert trtjob("convert", WEIGHTS, "--local").out == trtjob("models", "show", "digits").out


def test_json_is_everything_that_is_known(trtjob: Command) -> None:
    document = json.loads(trtjob("convert", WEIGHTS, "--local", "--json").out)
    assert document | {"plans": []} == json.loads(trtjob("models", "show", "digits", "--json").out)
    assert document["sha256"] == sha256_of(Path(document["path"]))
    assert document["spec"]["input_hw"] == [320, 320]
    assert document["facts"]["layers"] == 24


def test_the_stages_are_lines_where_there_is_no_terminal(trtjob: Command) -> None:
    assert trtjob("convert", WEIGHTS, "--local").err == "digits.weights: converting\n"
    assert trtjob("convert", WEIGHTS, "--local").err == ""  # it was converted before


@pytest.mark.slow
def test_a_worker_converts_to_the_same_bytes_as_this_process(terminal: Terminal, tmp_path: Path) -> None:
    process = terminal.start("convert", WEIGHTS, "--name", "mine", "-o", tmp_path / "queue.onnx", "--json")
    assert process.stderr is not None
    assert "trtjob worker" in process.stderr.readline()
    terminal.start("worker")
    out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert (document["name"], document["sha256"]) == ("mine", sha256_of(tmp_path / "queue.onnx"))
    here = Terminal(tmp_path / "other home")
    assert here.run("convert", WEIGHTS, "-o", tmp_path / "local.onnx", "--local").code == 0
    assert (tmp_path / "local.onnx").read_bytes() == (tmp_path / "queue.onnx").read_bytes()


@pytest.mark.slow
def test_a_worker_that_cannot_convert_says_why(terminal: Terminal, tmp_path: Path) -> None:
    for name in ("digits.cfg", "digits.names"):
        (tmp_path / name).write_bytes((DIGITS / name).read_bytes())
    (tmp_path / "digits.weights").write_bytes(WEIGHTS.read_bytes()[:-4])
    terminal.start("worker")
    outcome = terminal.here("convert", tmp_path / "digits.weights")
    assert outcome.code == 1
    assert "the file ends in layer" in outcome.err
    assert outcome.out == ""


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_conversion_that_never_ends_shows_as_work_and_frees_its_worker_when_it_is_not_wanted(
    terminal: Terminal, tmp_path: Path
) -> None:
    terminal.start("worker")
    endless = write_endless(tmp_path / "endless.onnx")

    def doing() -> str:
        return next((worker["doing"] for worker in terminal.status()["workers"] if worker["state"] == "busy"), "")

    for how in ("cancel", "Ctrl-C"):
        client = terminal.start("convert", endless, "--preprocess", "unit")
        name, _, what = wait_for(lambda: "converting" in doing() and doing(), "the conversion").partition(": ")
        assert what == "endless.onnx, converting"
        assert f"{name}: {what}" in terminal.here("status").out
        if how == "cancel":
            assert terminal.here("cancel", name).out == f"{name}: cancelled\n"
        else:
            client.send_signal(signal.SIGINT)
        _, err = client.communicate(timeout=20)
        assert (client.returncode, err.splitlines()[-1]) == (
            (1, f"error: the conversion {name} was cancelled")
            if how == "cancel"
            else (130, "Cancelling the conversion ...")
        )
        wait_for(lambda: not doing(), "the worker to be idle")
        assert terminal.here("cancel", name).out == f"{name}: nobody waits for it (any more)\n"


@pytest.mark.parametrize(
    ("option", "field"),
    [("precision", "precision"), ("preprocess", "preprocess"), ("calibrate_method", "calibrate_method")],
)
def test_the_choices_are_those_of_a_request(option: str, field: str) -> None:
    wanted = ConversionRequest.model_fields[field].annotation
    assert set(_choices(get_type_hints(convert.convert)[option])) == set(_choices(wanted))


def _choices(hint: object) -> list[object]:
    """Return the values of a Literal, or of the Literal in a union."""
    parts = get_args(hint)
    return [part for part in parts if isinstance(part, str)] or _choices(next(p for p in parts if get_args(p)))


@pytest.mark.parametrize("order", [("--families", "--json"), ("--json", "--families")], ids=" ".join)
def test_the_families_are_listed_for_machines_too(order: tuple[str, str], trtjob: Command) -> None:
    families = json.loads(trtjob("convert", *order).out)["families"]
    assert {"name": "yolov6", "title": "YOLOv6"}.items() <= families[15].items()
    assert all(family["needs"] and family["gives"] for family in families)


@pytest.mark.parametrize(
    ("text", "hw"),
    [
        pytest.param(None, None, id="the model's own"),
        pytest.param("608x352", (352, 608), id="width x height"),
        pytest.param("608X352", (352, 608), id="a capital X"),
        pytest.param("352,608,3", (352, 608), id="as Keras has it"),
        pytest.param("28,28,1", (28, 28), id="grey"),
        pytest.param("352,608", (352, 608), id="without channels"),
    ],
)
def test_a_size_is_height_and_width(text: str | None, hw: tuple[int, int] | None) -> None:
    assert convert.size_hw(text) == hw


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["nowhere.weights"], "no model file '", id="no file"),
        pytest.param(
            [WEIGHTS, "--candidates", "3841"],
            "--candidates 3841: TensorRT can choose the best 3840, and no more",
            id="candidates",
        ),
        pytest.param([WEIGHTS, "--size", "big"], "--size 'big': expected WIDTHxHEIGHT such as 608x352", id="size"),
        pytest.param([WEIGHTS, "--mean", "1,two"], "--mean '1,two': expected a number", id="mean"),
        pytest.param([WEIGHTS, "--std", ""], "--std '': expected a number", id="std"),
        pytest.param([WEIGHTS, "--precision", "int4"], "int4", id="precision"),
        pytest.param([WEIGHTS, "--classes", "0"], "--classes", id="classes"),
        pytest.param([DIGITS / "digits.cfg"], "a network without its weights", id="a cfg"),
        pytest.param([DIGITS / "scenes"], "cannot be converted", id="a folder that is no model"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_is_wrong(
    trtjob: Command, arguments: list[str | Path], said: str
) -> None:
    outcome = trtjob("convert", *arguments, "--local")
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("yolov8n.pt", "yolo export model=yolov8n.pt format=onnx", id="PyTorch"),
        pytest.param("net.pth", "torch.onnx.export", id="a state dict"),
        pytest.param("net.torchscript", "never opened", id="TorchScript"),
        pytest.param("vgg16.uff", "TensorRT has dropped UFF. Convert the .pb or .h5", id="UFF"),
        pytest.param("net.engine", "runs only on the machine it was built for", id="a plan"),
        pytest.param("net.tflite", "TensorFlow Lite is not supported", id="TensorFlow Lite"),
        pytest.param("net.zip", "expected Darknet .weights or .backup, Keras", id="anything else"),
    ],
)
def test_a_file_of_another_kind_gets_an_answer_that_helps(
    trtjob: Command, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    outcome = trtjob("convert", tmp_path / name)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
