"""A job of a hundred thousand images, from submission to receipt: its cost is ten times that of ten thousand."""

import json
import subprocess
import sys
from typing import Any

import pytest
from terminal import ROOT

# On two cores, with an engine that costs nothing. A million: see docs/scale.md.
MOST_MB = 300
MOST_REDIS_MB = 5
PLANNED_PER_S = 20_000


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.million", "--json", "10000", "100000"]
    run = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cost_grows_with_the_images_in_a_straight_line(outcomes: list[dict[str, Any]]) -> None:
    small, large = outcomes
    for phase in ("plan", "shards", "finish"):
        assert large[phase]["cpu_s"] < 15 * small[phase]["cpu_s"], phase  # others may be at work here too
    assert large["images"] / large["plan"]["elapsed_s"] > PLANNED_PER_S


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_images(outcomes: list[dict[str, Any]]) -> None:
    small, large = outcomes
    for phase in ("plan", "shards", "finish"):
        assert large[phase]["rss_mb"] < min(MOST_MB, 1.2 * small[phase]["rss_mb"]), phase
    assert large["redis_mb"] < MOST_REDIS_MB
