"""From a float32 graph to one that computes with fewer bits.

TensorRT is strongly typed from version 11 on: precision is what the graph says, so it is written into the graph, and
every engine computes the same.
"""
