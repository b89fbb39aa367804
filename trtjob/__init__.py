"""Run a detector or classifier over a folder of images, and be able to trust that nothing was lost.

>>> import trtjob
>>> results = trtjob.results("results/photos-1a2b3c4d")
>>> [(result.image, len(result.detections)) for result in results]
[('a.jpg', 1), ('b.jpg', 0)]
"""

TYPE_CHECKING = False  # which type checkers take for true: `import trtjob` loads nothing at all
if TYPE_CHECKING:
    from trtjob.api.image_result import ImageResult
    from trtjob.api.job import Job, job, run, submit
    from trtjob.api.model import Model, load
    from trtjob.api.results import Results, results

    __version__: str

__all__ = ["ImageResult", "Job", "Model", "Results", "__version__", "job", "load", "results", "run", "submit"]

# Loaded when first used: `import trtjob` costs a program nothing.
_MODULES = {
    "ImageResult": "image_result",
    "Job": "job",
    "Model": "model",
    "Results": "results",
    "job": "job",
    "load": "model",
    "results": "results",
    "run": "job",
    "submit": "job",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # a tenth of what starting a process takes: only for who asks

        return version("trtjob")
    if name in _MODULES:
        from importlib import import_module

        found: object = getattr(import_module(f"trtjob.api.{_MODULES[name]}"), name)
        return found
    raise AttributeError(f"module 'trtjob' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
