"""Detectors by their families' own exporters, with random weights, and what their owners' code finds with them."""
