"""CUDA's driver, as far as our engines use it: GPUs, one context, memory and streams; by cuda-bindings or pycuda."""
