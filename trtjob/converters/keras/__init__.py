"""Keras models and TensorFlow graphs -> a self-describing ONNX file."""
