"""`trtjob bench` and what it says."""

import json
import signal
from pathlib import Path

import pytest
from cli.conftest import Command
from terminal import Terminal
from worker.mean_model import write_model
from worker.plain_engine import write_images


@pytest.fixture(autouse=True)
def _one_image_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_IMAGE_PROCESSES", "1")  # each takes longer to begin than a bench of a tenth of a second


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of a kilobyte, on which nothing takes long."""
    return Path(write_model(tmp_path / "mean.onnx").path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 3)
    return tmp_path / "photos"


@pytest.mark.slow
def test_tables_and_a_sentence(trtjob: Command, model: Path, photos: Path) -> None:
    outcome = trtjob("bench", model, "--images", photos, "--seconds", "0.1", "--engine", "cpu", "--threads", 2)
    assert outcome.code == 0, outcome.err
    heading, engine, phases, rates, limit = outcome.out.split("\n\n")
    assert heading.splitlines()[:4] == [
        "model      mean, 8x8, fp32",
        "engine     ONNX Runtime on the CPU, called from 2 threads",
        heading.splitlines()[2],
        "images     photos: 3; each read again and again, so from the system's cache",
    ]
    assert first_words(engine) == ["ENGINE", "batch"]
    assert first_words(phases) == [
        *("MS", "prepare", "read", "decode", "resize", "inference"),
        *("result", "classes,", "record", "draw", "write", "thumbnail", "encode", "write", "measured"),
    ]
    assert [line.split("  ")[0] for line in rates.splitlines()] == [
        "FILES TO RESULTS",
        "photos, annotated",
        "photos, JSON only",
    ]
    assert limit.startswith("photos: bound by ")
    assert limit.endswith(".\n")


def first_words(table: str) -> list[str]:
    return [line.split()[0] for line in table.splitlines()]


@pytest.mark.slow
def test_json_is_one_document_with_everything(trtjob: Command, model: Path, photos: Path) -> None:
    arguments = ("--images", photos, "--seconds", "0.1", "--engine", "cpu", "--batch", "2,1", "--json")
    document = json.loads(trtjob("bench", model, *arguments).out)
    assert document["engine"]["name"] == "cpu"
    assert [rate["batch"] for rate in document["engine_alone"]] == [1, 2]
    (sample,) = document["samples"]
    assert (sample["name"], sample["listed"], sample["used"], sample["unusable"]) == ("photos", 3, 3, 0)
    assert list(sample["phases_ms"]) == ["prepare", "infer", "result", "draw", "write"]
    assert sample["annotated"]["images_per_s"] > 0
    assert sample["json_only"]["of_engine"] > 0
    assert sample["limit"].startswith("bound by ")


@pytest.mark.slow
def test_progress_is_on_standard_error(trtjob: Command, model: Path, photos: Path) -> None:
    outcome = trtjob("bench", model, "--images", photos, "--seconds", "0.1", "--engine", "cpu")
    assert "mean: warming up 0/4\n" in outcome.err
    assert "mean: measuring 0/20\n" in outcome.err


@pytest.mark.slow
def test_broken_images_are_counted_and_a_large_folder_is_not_used_whole(
    trtjob: Command, model: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "many", 70)
    (tmp_path / "many" / "0000.png").write_bytes(b"")
    out = trtjob("bench", model, "--images", tmp_path / "many", "--seconds", "0.1", "--engine", "cpu").out
    assert "images     many: 63 of 70 (1 more cannot be read); each read again" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--batch", "many"], "--batch 'many': expected whole numbers such as 1,8,32", id="no number"),
        pytest.param(["--batch", "0,8"], "--batch '0,8': expected numbers from 1 to 1024", id="too small a batch"),
        pytest.param(["--batch", "8,2000"], "expected numbers from 1 to 1024", id="too large a batch"),
        pytest.param(["--seconds", "0"], "--seconds", id="no time"),
        pytest.param(["--images", "nowhere"], "--images 'nowhere': no such folder", id="no images"),
        pytest.param(["--engine", "magic"], "--engine", id="an unknown engine"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_is_wrong(
    trtjob: Command, model: Path, arguments: list[str], said: str
) -> None:
    outcome = trtjob("bench", model, *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_an_unknown_model_ends_with_2(trtjob: Command) -> None:
    outcome = trtjob("bench", "nobody")
    assert outcome.code == 2
    assert outcome.err.startswith("error: no model 'nobody'.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.chaos)]
)
def test_a_signal_ends_it_and_leaves_nothing_behind(
    terminal: Terminal, digits: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = terminal.start("bench", digits, "--engine", "cpu", TMPDIR=str(temporary))
    assert process.stderr is not None
    while "warming up" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert "Stopping after the images in hand." in err
    assert list(temporary.glob("trtjob-*")) == []
