"""Darknet's .cfg and .weights -> a self-describing ONNX model."""
