"""A job of many images, from submission to receipt: its cost is ten times that of a tenth of them."""

import json
import subprocess
import sys
from typing import Any

import pytest
from terminal import ROOT

from benchmarks.million import SAMPLE_S

# On two cores, with an engine that costs nothing. A million: see docs/scale.md.
MOST_MB = 300
MOST_REDIS_MB = 5
PLANNED_PER_S = 20_000


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=[pytest.param(20_000), pytest.param(100_000, marks=pytest.mark.chaos)])
def outcomes(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    # What grows is the host's work: an engine of few pixels costs it less.
    sizes = f"{request.param // 10}", f"{request.param}"
    command = [sys.executable, "-m", "benchmarks.million", "--json", "--side", "64", *sizes]
    run = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_a_jobs_cost_grows_with_its_images_in_a_straight_line(outcomes: list[dict[str, Any]]) -> None:
    small, large = outcomes
    for phase in ("plan", "shards", "finish"):
        # Others may be at work here too; and a phase is seen to begin so late, which is half of the shortest.
        assert large[phase]["cpu_s"] < 15 * (small[phase]["cpu_s"] + SAMPLE_S), phase
        assert large[phase]["rss_mb"] < min(MOST_MB, 1.2 * small[phase]["rss_mb"]), phase
    assert large["images"] / large["plan"]["cpu_s"] > PLANNED_PER_S
    assert large["redis_mb"] < MOST_REDIS_MB
