"""What stands in a file's place is named for what it is, whichever file it is."""

import shutil
from pathlib import Path

import pytest

from trtjob.converters.registry import ModelRegistry
from trtjob.converters.request import ConversionRequest
from trtjob.converters.run import convert_model
from trtjob.converters.sources import files_of
from trtjob.errors import ConversionError

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for suffix in ("weights", "cfg", "names"):
        shutil.copyfile(DIGITS / f"digits.{suffix}", tmp_path / f"digits.{suffix}")
    return tmp_path / "digits.weights"


@pytest.mark.parametrize(("data", "message"), [(POINTER, "git lfs pull"), (PAGE, "is a web page")], ids=["LFS", "HTML"])
@pytest.mark.parametrize("name", ["m.weights", "m.onnx", "m.keras", "m.h5", "m.pb"])
def test_a_model_is_named_for_what_it_is(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ConversionError, match=message):
        convert_model(ConversionRequest(model=path, name="m"), registry=ModelRegistry(tmp_path / "models"))


@pytest.mark.parametrize("suffix", ["cfg", "names"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda _text: POINTER, "git lfs pull", id="LFS"),
        pytest.param(lambda _text: PAGE, "is a web page", id="HTML"),
        pytest.param(lambda text: text.encode("utf-16"), "text in UTF-16.*Save it as UTF-8", id="UTF-16"),
        pytest.param(lambda text: text.replace("\n", "\r").encode(), "carriage return alone", id="CR"),
    ],
)
def test_what_lies_beside_a_model_is_too(suffix: str, change: object, message: str, model: Path) -> None:
    path = model.with_suffix(f".{suffix}")
    path.write_bytes(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(ConversionError, match=message):
        files_of(ConversionRequest(model=model))


def test_windows_lines_and_marks_are_fine(model: Path) -> None:
    for suffix in (".cfg", ".names"):
        path = model.with_suffix(suffix)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(files_of(ConversionRequest(model=model))) == 3


def test_what_training_left_as_a_backup_is_weights(model: Path) -> None:
    backup = model.with_suffix(".backup")
    model.rename(backup)
    assert [path.name for path in files_of(ConversionRequest(model=backup))][:2] == ["digits.backup", "digits.cfg"]
