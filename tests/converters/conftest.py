from pathlib import Path

import pytest
from engines import tiny

from trtjob.converters.registry import ModelRegistry


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def read_only(tmp_path: Path) -> ModelRegistry:
    """A registry in whose folder for files nothing can be made, not even by root."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "files").symlink_to("/proc/self/fdinfo")
    return ModelRegistry(folder)


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")
