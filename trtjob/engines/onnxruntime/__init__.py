"""ONNX Runtime: on the CPU, the engine that is always there and the reference for the others; and on CUDA."""
