"""Whether the ONNX Runtime for GPUs that is installed fits this machine's, and what to install where it does not."""

from collections.abc import Sequence

from trtjob.engines.cuda.interface import GpuInfo
from trtjob.engines.cuda.survey import survey
from trtjob.engines.onnxruntime.extras import NEEDS, can_use, extra_for, fitting_extra
from trtjob.engines.onnxruntime.package import changing, find
from trtjob.errors import EngineError


def advice_for(gpus: Sequence[GpuInfo] = ()) -> str:
    """Return the sentence that says how to get the ONNX Runtime for some GPUs; none: for all that are here."""
    here = survey()
    extra = fitting_extra(here.cuda[0], [gpu.compute_capability for gpu in gpus or here.gpus])
    if extra == "cpu":
        need = NEEDS["cuda12"]
        least = ".".join(map(str, need.capability))
        return f"None for GPUs fits: that needs driver {need.driver} and compute capability {least}. Use --engine cpu"
    return f"Put the one for GPUs in its place: {changing(extra)}"


def expect_gpus(version: str, gpus: Sequence[GpuInfo]) -> None:
    """Raise EngineError where a GPU, or its driver, is too old for the CUDA of what is installed; say what fits.

    version: of the installed ONNX Runtime, for the message.
    """
    package = find()
    if package is None or not package.cuda:
        return
    driver = survey().cuda
    extra = extra_for(package.cuda_major)
    title = f"the installed ONNX Runtime {version} is for CUDA {package.cuda_major}"
    for gpu in gpus:
        if can_use(extra, driver[0], gpu.compute_capability):
            continue
        raise EngineError(
            f"{title}, which {_unfit(gpu, driver, extra_needs=NEEDS[extra].capability)}. {advice_for(gpus)}"
        )


def _unfit(gpu: GpuInfo, driver: tuple[int, int], *, extra_needs: tuple[int, int]) -> str:
    if gpu.compute_capability >= extra_needs:
        return f"needs a newer driver: the one here runs CUDA up to {driver[0]}.{driver[1]}"
    has, needs = (f"{major}.{minor}" for major, minor in (gpu.compute_capability, extra_needs))
    return f"needs compute capability {needs}: {gpu.name} has {has}"
