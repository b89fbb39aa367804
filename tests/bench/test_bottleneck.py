"""What limits the speed, from what was measured."""

from dataclasses import replace

import pytest

from trtjob.bench.bottleneck import Load, describe_bottleneck

STAGES_MS = {"read": 0.2, "decode": 6.0, "resize": 1.0, "infer": 90.0, "nms": 0.3, "record": 0.1, "encode": 2.0}
# A model that takes most of the work of two full cores.
ON_CPU = Load(
    images_per_s=20.0,
    of_engine=0.85,
    host_cpu_ms=20.0,
    engine_cpu_ms=80.0,
    cores=2,
    cores_busy=0.98,
    stages_ms=STAGES_MS,
)
# A GPU that needs little of sixteen cores.
ON_GPU = replace(ON_CPU, images_per_s=400.0, of_engine=0.97, engine_cpu_ms=0.3, cores=16, cores_busy=0.55)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        pytest.param(
            ON_CPU,
            "bound by the engine: everything around it takes 20% of an image's CPU time",
            id="an engine on the cores",
        ),
        pytest.param(
            ON_GPU,
            "bound by the engine: everything around it takes 50% of the time of 16 cores",
            id="a GPU that is fully used",
        ),
        pytest.param(
            replace(ON_GPU, of_engine=0.82),
            "bound by the engine: everything around it takes 50% of the time of 16 cores",
            id="a GPU that is nearly fully used",
        ),
        pytest.param(
            replace(ON_GPU, cores=1, images_per_s=40.0),
            "bound by the engine: everything around it takes 80% of the time of 1 core",
            id="one core",
        ),
        pytest.param(
            replace(ON_GPU, of_engine=0.4, cores_busy=0.97),
            "bound by decoding the images on 16 cores: 62% of the work around the engine, which alone would do 2.5 "
            "times as many images",
            id="cores that cannot feed a GPU",
        ),
        pytest.param(
            replace(ON_CPU, of_engine=0.5, host_cpu_ms=90.0, stages_ms={"decode": 1.0, "encode": 3.0, "infer": 9.0}),
            "bound by encoding the annotated copies on 2 cores: 75% of the work around the engine, which alone would "
            "do 2.0 times as many images",
            id="a small model on the cores",
        ),
        pytest.param(
            replace(ON_GPU, of_engine=0.6),
            "bound by neither the engine (60% of its rate alone) nor 16 cores (55% busy): files come slowly, or more "
            "threads or worker processes could use the cores (trtjob worker --threads, --processes)",
            id="nothing at its limit",
        ),
    ],
)
def test_the_sentence_names_what_is_at_its_limit(load: Load, said: str) -> None:
    assert describe_bottleneck(load) == said
