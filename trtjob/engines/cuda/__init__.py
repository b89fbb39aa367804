"""CUDA's driver, as far as our engines use it: GPUs, one context, memory and streams; by cuda-bindings or pycuda."""

from trtjob.engines.cuda.device import Device, gpus
from trtjob.engines.cuda.driver import driver
from trtjob.engines.cuda.interface import Driver, GpuInfo, Memory, Stream

__all__ = ["Device", "Driver", "GpuInfo", "Memory", "Stream", "driver", "gpus"]
