"""Run a detector or classifier over a folder of images, and be able to trust that nothing was lost."""

from importlib.metadata import version

__version__ = version("trtjob")
__all__ = ["__version__"]
