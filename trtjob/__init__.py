"""Run a detector or classifier over a folder of images, and be able to trust that nothing was lost."""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # a tenth of what starting a process takes: only for who asks

        return version("trtjob")
    raise AttributeError(f"module 'trtjob' has no attribute {name!r}")
