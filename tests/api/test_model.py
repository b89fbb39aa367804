"""A model in the caller's own process answers as a job does."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from terminal import DIGITS

import trtjob
from trtjob.errors import ConfigError, EngineError, FailureKind, ImageError

SCENE = DIGITS / "scenes" / "day" / "0000.jpg"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def model(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trtjob.Model]:
    monkeypatch.setenv("TRTJOB_HOME", str(home))
    with trtjob.load(DIGITS / "digits.weights", progress=False, engine="cpu") as model:
        yield model


def test_a_path_pixels_and_pillow_give_the_same(model: trtjob.Model) -> None:
    assert (model.labels[3], model.task, model.device) == ("3", "detect", "CPU")
    found = model.predict(SCENE)
    assert (found.image, found.width, found.height) == (str(SCENE), 640, 480)
    assert found.detections
    pixels = np.asarray(cv2.imread(str(SCENE)), np.uint8)
    with Image.open(SCENE) as image:
        several = model.predict([pixels, image, str(SCENE)])
    assert [each.detections for each in several] == [found.detections] * 3
    assert [each.record.sha256 is None for each in several] == [True, True, False]


def test_a_name_that_no_file_and_no_user_has_is_that_of_an_image_that_is_not_there(model: trtjob.Model) -> None:
    results = model.predict(["~nobody-is-called-so/a.jpg", "a\0b.jpg", SCENE])
    assert [each.error and each.error.kind for each in results] == [FailureKind.MISSING, FailureKind.MISSING, None]


def test_one_image_that_cannot_be_read_is_an_error_and_of_several_a_record(model: trtjob.Model, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"a\.jpg: it is not an image") as caught:
        model.predict(tmp_path / "a.jpg")
    assert caught.value.kind is FailureKind.DECODE
    broken, missing, whole = model.predict([tmp_path / "a.jpg", tmp_path / "b.jpg", SCENE])
    assert broken.error is not None
    assert missing.error is not None
    assert (broken.error.kind, missing.error.kind) == (FailureKind.DECODE, FailureKind.MISSING)
    assert whole.detections


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4)),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4), np.uint8),
        7,
        b"JPEG",
        bytearray(b"JPEG"),
        memoryview(b"JPEG"),
    ],
)
def test_what_is_no_image_is_refused(model: trtjob.Model, image: object) -> None:
    with pytest.raises(ImageError, match=r"^the image: got .*: expected"):
        model.predict(image)  # type: ignore[call-overload]


def test_a_model_that_is_closed_says_so(model: trtjob.Model) -> None:
    model.close()
    with pytest.raises(EngineError):
        model.predict(SCENE)


def test_options_are_checked_in_our_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_HOME", str(home))
    with pytest.raises(ConfigError, match=r"^--min-score 2: expected 1 or less$"):
        trtjob.load(DIGITS / "digits.weights", progress=False, min_score=2)
    with pytest.raises(ConfigError, match=r"^--scores 'best': expected 'softmax', 'sigmoid' or 'none'$"):
        trtjob.load(DIGITS / "digits.weights", progress=False, scores="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^--threads -1: expected 0 or more; --gpus 0: expected text$"):
        trtjob.load("digits", threads=-1, gpus=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^--engine '': expected 'auto', 'tensorrt', 'cuda' or 'cpu'$"):
        trtjob.load("digits", engine="")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'clases'\. Is it classes\?"):
        trtjob.load("digits", clases="1")  # type: ignore[call-arg]
