"""ONNX files made elsewhere -> a self-describing ONNX file."""
