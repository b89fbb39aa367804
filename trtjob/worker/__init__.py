"""The daemon on a node, and the worker processes that run the pipeline around the engine."""
