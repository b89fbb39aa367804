"""A model is found on the disk, or fetched once from where it was shipped."""

from pathlib import Path

import pytest
from worker.mean_model import write_model

from trtjob.config import Settings
from trtjob.errors import ModelError
from trtjob.jobs.spec import ModelRef
from trtjob.worker.interrupter import Interrupted
from trtjob.worker.model_files import model_file


def never(trouble: str) -> None:
    raise AssertionError(trouble)


@pytest.fixture
def shipped(tmp_path: Path) -> ModelRef:
    """A model that lies at its URI, and not at its path."""
    (tmp_path / "models").mkdir()
    model = write_model(tmp_path / "models" / "mean.onnx")
    return model.model_copy(update={"path": "/elsewhere/mean.onnx", "uri": str(tmp_path / "models" / "mean.onnx")})


def test_a_model_that_is_there_is_not_fetched(settings: Settings, tmp_path: Path) -> None:
    model = write_model(tmp_path / "mean.onnx").model_copy(update={"uri": "/nowhere/mean.onnx"})
    assert model_file(model, settings, never) == tmp_path / "mean.onnx"


def test_a_file_outside_of_the_allowed_places_is_not_even_opened(settings: Settings, tmp_path: Path) -> None:
    model = write_model(tmp_path / "mean.onnx")
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "mean.onnx").write_bytes((tmp_path / "mean.onnx").read_bytes())
    strict = settings.model_copy(update={"roots": (str(tmp_path / "allowed"),)})
    with pytest.raises(ModelError, match="in none of the places allowed here"):
        model_file(model, strict, never)
    shipped = model.model_copy(update={"uri": str(tmp_path / "allowed" / "mean.onnx")})
    assert model_file(shipped, strict, never).is_relative_to(settings.home)


def test_a_model_from_elsewhere_is_fetched_once(settings: Settings, shipped: ModelRef) -> None:
    copy = model_file(shipped, settings, never)
    assert copy.read_bytes() == Path(shipped.uri).read_bytes()
    assert copy.is_relative_to(settings.home)
    Path(shipped.uri).unlink()
    assert model_file(shipped, settings, never) == copy


def test_a_copy_that_is_damaged_is_fetched_again(settings: Settings, shipped: ModelRef) -> None:
    copy = model_file(shipped, settings, never)
    copy.write_bytes(b"damaged")
    assert model_file(shipped, settings, never).read_bytes() == Path(shipped.uri).read_bytes()


def test_what_is_fetched_must_be_the_model(settings: Settings, shipped: ModelRef) -> None:
    Path(shipped.uri).write_bytes(b"another")
    with pytest.raises(ModelError, match="is not the model 'mean'"):
        model_file(shipped, settings, never)
    assert list((settings.home / "cache" / "models").iterdir()) == []


def test_a_model_that_is_nowhere_is_named(settings: Settings, shipped: ModelRef) -> None:
    Path(shipped.uri).unlink()
    with pytest.raises(ModelError, match=r"is not at .*mean\.onnx any more"):
        model_file(shipped, settings, never)


@pytest.mark.slow
def test_a_fetch_from_a_place_that_fails_is_left_when_the_worker_must_stop(
    settings: Settings, shipped: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def stop(_trouble: str) -> None:
        raise Interrupted("stop")

    with pytest.raises(Interrupted, match="stop"):
        model_file(shipped.model_copy(update={"uri": "s3://bucket/mean.onnx"}), settings, stop)
