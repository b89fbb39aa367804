"""Damaged graphs of every family of detectors: refused in one line, or converted where the damage is harmless."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from converters.onnx import damaged_graphs, graphs
from onnx import helper

from trtjob.memory import bounded_allocations

SEED = 20260101
COUNT, A_FEW = 1000, 75
TIMEOUT_S = 590


def test_a_damaged_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    sources = list(damaged_graphs.sources(tmp_path, []))
    kinds, refused = set(), 0
    with bounded_allocations(damaged_graphs.HEADROOM_BYTES):
        for number in range(A_FEW):
            _, data, request = sources[number % len(sources)]
            kind, spoilt = damaged_graphs.damaged_file(data, np.random.default_rng([SEED, number]))
            request.model.write_bytes(spoilt)
            refused += damaged_graphs.refusal(request) is not None
            kinds.add(kind)
    assert len(kinds) > len(damaged_graphs.DAMAGES) * 0.8
    assert A_FEW / 2 < refused < A_FEW


def test_a_graph_whose_graphs_read_themselves_many_times_is_refused_at_once(tmp_path: Path) -> None:
    made = graphs.detector()
    inner = graphs.node("Concat", " ".join(["centres"] * 20_000), "x", axis=0)
    body = helper.make_graph([inner], "inner", [], [])
    node = next(node for node in made.graph.node if "centres" in node.output)
    node.attribute.append(helper.make_attribute("body", body))
    message = damaged_graphs.refusal(graphs.save(made, tmp_path / "net.onnx"))
    assert message is not None
    assert "is no valid ONNX model" in message


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(TIMEOUT_S + 10)
def test_a_thousand_damaged_graphs_are_refused_in_one_line(tmp_path: Path, shared: Path) -> None:
    models = sorted(path.parent for path in (shared / "detectors").glob("*/expected.json"))
    done = subprocess.run(
        [sys.executable, damaged_graphs.__file__, str(COUNT), str(SEED), str(tmp_path), *map(str, models)],
        env={**os.environ, "PYTHONPATH": str(Path(damaged_graphs.__file__).parents[2]), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert COUNT / 2 < int(done.stdout.split()[0]) < COUNT
