"""Shards, one after another: their images through the pipeline, their results to storage, their commits."""
