"""What is refused before TensorFlow is needed."""

import logging
import os
import sys
import threading
from pathlib import Path

import pytest

from trtjob.converters.keras import packages
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert, files_of
from trtjob.errors import MissingDependencyError, ModelError


def test_a_missing_tensorflow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    path = tmp_path / "net.keras"
    path.write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"'tensorflow' is not installed.*trtjob\[keras\]"):
        convert(ConversionRequest(model=path))


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be converted"):
        convert(ConversionRequest(model=tmp_path / "net.kerass"))


def test_a_saved_model_depends_on_every_file_of_its_folder(tmp_path: Path) -> None:
    folder, labels = tmp_path / "net", tmp_path / "labels.txt"
    (folder / "variables").mkdir(parents=True)
    names = ["saved_model.pb", "variables/variables.index"]
    for name in names:
        (folder / name).write_bytes(b"")
    labels.write_text("cat\n")
    found = files_of(ConversionRequest(model=folder, labels=labels))
    assert found == (*(folder / name for name in names), labels)


def test_standard_error_is_left_to_the_main_thread(capfd: pytest.CaptureFixture[str]) -> None:
    def say() -> None:
        with packages.quiet():
            os.write(2, b"shown\n")

    thread = threading.Thread(target=say)
    thread.start()
    thread.join()
    assert capfd.readouterr().err == "shown\n"


def test_what_tensorflows_c_parts_print_goes_to_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), packages.quiet(), packages.quiet():
        os.write(2, b"I0000 00:00:1 port.cc:153] oneDNN custom operations are on.\n")
    assert capfd.readouterr().err == ""
    assert [vars(record)["remark"] for record in caplog.records] == [
        "I0000 00:00:1 port.cc:153] oneDNN custom operations are on."
    ]
