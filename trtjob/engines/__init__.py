"""Run one self-describing ONNX model fast on one device."""
