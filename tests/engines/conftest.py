"""The engines that the tests here open, and one folder of plans for all of them: a plan takes TensorRT a minute.

TRTJOB_GPU_ENGINES names the engines that must be there where `gpu` tests run, `cuda,tensorrt` unless it is set: no two
packages of ONNX Runtime fit into one environment. TRTJOB_GPU_PLANS names a folder for plans that outlives the tests.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trtjob.engines.onnxruntime import cpu
from trtjob.engines.protocol import Engine
from trtjob.engines.spec import load_spec
from trtjob.engines.tensorrt.builder import BatchProfile, BuildOptions
from trtjob.engines.tensorrt.plans import PlanCache

Opener = Callable[[Path], Engine]

# Read before a fixture hides the user's settings from the tests.
EXPECTED = frozenset(os.environ.get("TRTJOB_GPU_ENGINES", "cuda,tensorrt").split(","))
PLANS = os.environ.get("TRTJOB_GPU_PLANS")

BATCHES = BatchProfile(1, 2, 4)  # less than the largest batch of the tests, which is run in two parts


@pytest.fixture(scope="session")
def plans(tmp_path_factory: pytest.TempPathFactory) -> PlanCache:
    """The plans of all tests: the same model has the same bytes, and so the same plan."""
    return PlanCache(Path(PLANS) if PLANS else tmp_path_factory.mktemp("plans"))


@pytest.fixture(
    params=[
        pytest.param("cpu"),
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.timeout(300)]),
        pytest.param("tensorrt", marks=[pytest.mark.gpu, pytest.mark.timeout(300)]),
    ]
)
def open_model(request: pytest.FixtureRequest, plans: PlanCache) -> Opener:
    """Opens a model with each engine in turn."""
    kind: str = request.param
    if kind == "cpu":
        return cpu.open_engine
    if kind not in EXPECTED:
        pytest.skip(f"{kind} is not among TRTJOB_GPU_ENGINES={','.join(sorted(EXPECTED))}")
    return _open_cuda if kind == "cuda" else lambda path: _open_tensorrt(path, plans)


def _open_cuda(path: Path) -> Engine:
    from trtjob.engines.onnxruntime.cuda import CudaOptions, open_engine

    return open_engine(path, CudaOptions(batch=BATCHES.largest))


def _open_tensorrt(path: Path, plans: PlanCache) -> Engine:
    from trtjob.engines.tensorrt.engine import TensorRtOptions, open_engine

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    build = BuildOptions(BATCHES, optimization_level=0)
    return open_engine(path, load_spec(path), sha256, TensorRtOptions(plans, build=build))
