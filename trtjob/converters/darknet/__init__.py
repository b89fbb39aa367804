"""Darknet's .cfg and .weights -> a self-describing ONNX model."""

from trtjob.converters.darknet.convert import onnx_from_darknet

__all__ = ["onnx_from_darknet"]
