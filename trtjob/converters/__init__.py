"""Foreign model -> one self-describing ONNX file."""
