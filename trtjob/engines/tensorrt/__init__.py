"""TensorRT: build a plan for this machine's GPU once, keep it, and run it."""
