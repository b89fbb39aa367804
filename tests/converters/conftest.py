from pathlib import Path

import pytest
from engines import tiny

from trtjob.converters.registry import ModelRegistry


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx")
