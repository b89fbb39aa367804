"""What the check of a GPU machine says, where there is none: its figures come from such a machine alone."""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import work_apart

from benchmarks.constant import ConstantEngine
from benchmarks.host import job_spec
from scripts.gpu_check import (
    answers,
    apart,
    bare,
    darknet,
    fed,
    feed,
    gpus,
    host,
    jpeg,
    need,
    parts,
    phases,
    rival,
    speed,
    suite,
    zoo,
)
from scripts.gpu_check.__main__ import keep, main, options_of, parser
from scripts.gpu_check.options import OPTIONS, CheckOptions
from scripts.gpu_check.predict import Predicted, predicted
from scripts.gpu_check.rows import (
    MARKER,
    NotRun,
    Row,
    State,
    as_markdown,
    as_text,
    failures,
    from_lines,
    merged,
    to_line,
)
from scripts.gpu_check.zoo import Variant
from scripts.gpu_models import yolo
from scripts.gpu_models.cfg import LOST, Cfg, variance_after
from scripts.gpu_models.skeleton import drawn
from trtjob.converters.parity import LIMITS, Comparison
from trtjob.engines.choice import EngineKind
from trtjob.engines.protocol import Outputs
from trtjob.errors import ConfigError, TrtjobError
from trtjob.jobs.spec import Annotate
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.limits import PipelineLimits

ROWS = [
    Row("copies", figure="50 GB/s", note="page-locked"),
    Row("plans", State.NOT_RUN, note="there is no GPU"),
    Row("graphs | streams", State.FAILED, note="two\nlines"),
]


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> CheckOptions:
    """Options with one home for all: each model is made and converted once."""
    return CheckOptions(tmp_path_factory.mktemp("gpu-check"), seconds=0.1, is_quick=True)


def test_rows_come_back_from_their_lines() -> None:
    assert from_lines("".join(map(to_line, ROWS))) == ROWS


def test_a_row_cut_off_by_the_end_of_its_process_is_left_out() -> None:
    assert from_lines(to_line(ROWS[0]) + to_line(ROWS[1])[:20]) == [ROWS[0]]


def test_the_text_has_a_line_for_each_row_whatever_is_in_it() -> None:
    lines = as_text({"One": ROWS[:1], "Two": ROWS[1:]}).splitlines()
    assert [line.split("  ")[0] for line in lines if line] == ["check", "ONE", "copies", "TWO", "plans", ROWS[2].check]


def test_a_bar_or_a_line_break_does_not_break_the_markdown_table() -> None:
    assert as_markdown({"One": ROWS}).splitlines()[-1] == "| graphs / streams | FAILED |  | two lines |"


def test_new_tables_leave_what_a_person_wrote_above_them_and_the_tables_of_other_parts() -> None:
    order = ["One", "Two"]
    first = merged("", as_markdown({"Two": ROWS[:1]}), order).replace(MARKER, f"Ours.\n{MARKER}")
    both = merged(first, as_markdown({"One": ROWS[1:2]}), order)
    assert both.startswith(f"# GPU: what was measured\n\nOurs.\n{MARKER}\n\n## One\n")
    assert both.index("| plans | not run |") < both.index("## Two") < both.index("| copies | ok |")
    assert merged(both, as_markdown({"One": ROWS[1:2]}), order) == both


def test_a_table_of_a_part_that_is_no_more_goes() -> None:
    old = merged("", as_markdown({"Old": ROWS[:1]}), ["Old"])
    assert "Old" not in merged(old, as_markdown({"New": ROWS[:1]}), ["New"])


def test_a_child_is_told_all_that_its_parent_was() -> None:
    options = CheckOptions(
        Path("/home"),
        1.5,
        3,
        True,
        True,
        (1, 4),
        ("yolov8n@fp16", "vgg16@TF32"),
        Path("/a"),
        Path("/b"),
        Path("/c"),
        Path("/d"),
        Path("/e"),
        Path("/f"),
    )
    wanted = parser().parse_args(options.arguments())
    assert set(OPTIONS) == set(CheckOptions.__dataclass_fields__)
    assert options_of(argparse.Namespace(**{**vars(wanted), "seconds": 3.0}), Path("/tmp")) == options


def test_only_the_models_that_are_named_are_built_and_timed(options: CheckOptions) -> None:
    whole = replace(options, is_quick=False)
    some = replace(whole, variants=("yolov8n@fp16", "vgg16@TF32"))
    assert len(zoo.variants(whole)) > 20
    assert {f"{variant.name}@{variant.title}" for variant in zoo.variants(some)} == set(some.variants)


def test_only_what_failed_counts_as_failed() -> None:
    assert failures({"One": ROWS[:2], "Two": ROWS}) == 1


def check_that_kills_itself(_: CheckOptions) -> Iterator[Row]:
    yield ROWS[0]
    os.kill(os.getpid(), signal.SIGKILL)


def check_that_cannot_run(_: CheckOptions) -> Iterator[Row]:
    yield ROWS[0]
    raise NotRun("there is no GPU")


def check_that_breaks(_: CheckOptions) -> Iterator[Row]:
    yield ROWS[0]
    raise ValueError("7")


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        pytest.param(check_that_cannot_run, Row("Title", State.NOT_RUN, note="there is no GPU"), id="not run"),
        pytest.param(check_that_breaks, Row("Title", State.FAILED, note="ValueError: 7"), id="failed"),
    ],
)
def test_what_ends_a_part_is_its_last_row(
    check: "parts.Check", expected: Row, options: CheckOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parts.PARTS, "part", parts.Part("Title", check, 1))
    parts.run_here("part", options, tmp_path / "rows")
    assert from_lines((tmp_path / "rows").read_text()) == [ROWS[0], expected]


def test_what_is_timed_is_alone_and_what_is_not_need_not_be() -> None:
    wanted = ["plans", "suite", "darknet", "answers", "growth", "speed", "keras"]
    together = ["darknet", "answers", "growth"]
    assert parts.groups(wanted) == [["plans"], ["suite"], together, ["speed"], ["keras"]]


@pytest.mark.slow
def test_what_a_part_has_found_is_told_while_it_runs(options: CheckOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LOOK_S", 0.01)
    told: list[list[Row]] = []
    rows = parts.run_part("machine", options, on_rows=told.append)
    assert told
    assert all(rows[: len(so_far)] == so_far for so_far in told)


def test_a_part_for_which_no_time_is_left_is_not_run(options: CheckOptions) -> None:
    (row,) = parts.run_part("machine", options, left_s=0)
    assert (row.state, row.note) == (State.NOT_RUN, "no time was left")


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_ended_and_has_failed(
    options: CheckOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parts.PARTS, "machine", parts.Part("Title", parts.PARTS["machine"].check, 0.01))
    assert parts.run_part("machine", options)[-1] == Row("Title", State.FAILED, note="not done after 0 s, and ended")


@pytest.mark.slow
def test_without_a_gpu_the_check_says_why_and_has_not_failed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if _has_gpu():
        pytest.skip("there is a GPU here")
    wanted = ["plans", "keras", "feed"]
    assert main(["--only", *wanted, "--home", str(tmp_path / "home"), "--markdown", str(tmp_path / "found.md")]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if "not run" in line]
    assert len(lines) == len(wanted) + 1  # of feed, one for each engine
    assert (tmp_path / "found.md").read_text().count("| not run |") == len(lines) - 1  # plans only prepare others
    assert sum("NVIDIA" in line for line in lines) == len(lines) - 1
    assert sum("--keras-python" in line for line in lines) == 1


@pytest.mark.extra
@pytest.mark.parametrize("name", ["suite", "answers", "growth", "levels", "faults", "feed", "gpus", "darknet"])
def test_without_a_gpu_a_part_that_needs_one_says_why(name: str, options: CheckOptions, tmp_path: Path) -> None:
    if _has_gpu():
        pytest.skip("there is a GPU here")
    parts.run_here(name, options, tmp_path / "rows")
    rows = from_lines((tmp_path / "rows").read_text())
    assert {row.state for row in rows} == {State.NOT_RUN}
    assert all(("--darknet" if name == "darknet" else "NVIDIA") in row.note for row in rows)


def _has_gpu() -> bool:
    try:
        need.gpu()
    except NotRun:
        return False
    return True


REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_ok[cuda]"/>
<testcase classname="tests.test_a" name="test_ok[tensorrt]"><failure message="1 != 2">trace</failure></testcase>
<testcase classname="tests.test_a" name="test_many[3-cuda]"/>
<testcase classname="tests.test_b" name="test_left"><skipped message="no torch"/></testcase>
</testsuite></testsuites>"""


def test_tests_are_counted_by_file_and_engine() -> None:
    found = list(suite.rows_of(suite.cases_of(REPORT)))
    assert [(row.check, row.state, row.figure) for row in found] == [
        ("tests.test_a cuda", State.OK, "2 of 2 passed"),
        ("tests.test_a tensorrt", State.FAILED, "0 of 1 passed"),
        ("tests.test_b", State.NOT_RUN, "0 of 1 passed"),
    ]
    assert found[1].note.startswith("failed: test_ok[tensorrt]: 1 != 2")


@pytest.mark.slow
def test_marked_tests_run_side_by_side_and_some_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "PROCESSES", 2)
    tests = """
        import os, pathlib, pytest
        pytestmark = pytest.mark.gpu
        HERE = pathlib.Path(__file__).parent
        @pytest.mark.parametrize("number", range(5))
        def test_one_of_many(number):
            (HERE / f"{number}.ran").write_text(str(os.getpid()))
            assert number != 3
        @pytest.mark.alone
        def test_that_must_be_alone():
            assert len(list(HERE.glob("*.ran"))) == 5
            assert os.environ["TOLD"] == "so"
        """
    (tmp_path / "test_some.py").write_text(textwrap.dedent(tests))
    (tmp_path / "test_others.py").write_text("def test_that_is_not_marked(): assert False")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu\n    alone\n")
    cases = suite.run([tmp_path / "test_some.py", tmp_path / "test_others.py"], {"TOLD": "so"}, tmp_path)
    outcomes = {case.name: case.outcome for case in cases}
    assert outcomes == {f"test_one_of_many[{n}]": "failure" if n == 3 else "passed" for n in range(5)} | {
        "test_that_must_be_alone": "passed"
    }
    processes = {path.read_text() for path in tmp_path.glob("*.ran")}
    assert len(processes) == min(2, need.workers())


def test_the_tests_that_need_a_gpu_are_found() -> None:
    names = {path.name for path in suite.gpu_test_files(Path(__file__).parent)}
    assert {"test_protocol.py", "test_cuda.py"} <= names


# -- processes of their own --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_work_apart_gives_its_value_or_says_why_not() -> None:
    given = apart.apart(work_apart.double, 3)
    assert (given.value, given.problem) == (6, "")
    for work, state, problem in (
        (work_apart.lacking, State.NOT_RUN, "there is no GPU"),
        (work_apart.wrong, State.FAILED, "7 is too much"),
        (work_apart.dying, State.FAILED, "the process ended with exit code -9"),
    ):
        answer = apart.apart(work, 3)
        assert (answer.value, answer.state, answer.problem) == (None, state, problem)
    assert apart.apart(work_apart.slow, 3, limit_s=1.0).problem == "not done after 1 s, and ended"


@pytest.mark.slow
def test_work_side_by_side_comes_in_order() -> None:
    found = [
        (case, answer.value) for case, answer in apart.side_by_side(work_apart.double, [(n,) for n in range(4)], 2)
    ]
    assert found == [((number,), 2 * number) for number in range(4)]


# -- models from seeds -------------------------------------------------------------------------------------------------


def test_a_models_weights_are_the_same_every_time_and_fit_their_cfg(tmp_path: Path) -> None:
    one, two = (yolo.yolov4_tiny(tmp_path / name, 96) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert onnx_of(one, tmp_path).graph.output[0].name == "boxes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "convolutions"),
    [pytest.param(yolo.yolov3, 75, id="yolov3"), pytest.param(yolo.yolov4, 110, id="yolov4")],
)
@pytest.mark.chaos
def test_the_large_networks_have_all_their_layers(make: "zoo.Make", convolutions: int, tmp_path: Path) -> None:
    model = onnx_of(make(tmp_path, 96), tmp_path)  # type: ignore[arg-type]
    assert sum(node.op_type == "Conv" for node in model.graph.node) == convolutions


def onnx_of(weights: Path, home: Path) -> onnx.ModelProto:
    from trtjob.converters.darknet.convert import convert
    from trtjob.converters.request import ConversionRequest

    return convert(ConversionRequest(model=weights)).model


@pytest.mark.slow
def test_answers_depend_on_the_image(options: CheckOptions) -> None:
    model = zoo.converted("yolov4-tiny", "fp32", options)
    images = answers.images_of("yolov4-tiny", model.spec, options)
    with need.opened(model, options, "cpu") as engine:
        answered = [engine.infer(image[None]).scores for image in images]
    counts = {int((scores > model.spec.conf).sum()) for scores in answered}
    assert len(counts) > 2
    assert 20 < sum(counts) < 2000


def test_drawn_weights_lose_a_part_of_their_mean_for_each_output() -> None:
    for shape, axis, others in (((8, 4, 3, 3), 0, (1, 2, 3)), ((36, 8), 1, (0,))):
        plain = np.random.default_rng(1).standard_normal(shape, np.float32)
        values = drawn(shape, 1, 0.1, axis)
        np.testing.assert_allclose(values.mean(others), 0.1 * (1 - LOST) * plain.mean(others), atol=1e-6)


def test_an_activations_variance_is_that_of_random_filters_outputs() -> None:
    random = np.random.default_rng(1)
    values = random.standard_normal((256, 2000))
    filters = random.standard_normal((500, 256))
    filters -= LOST * filters.mean(1, keepdims=True)
    outputs = filters @ np.maximum(values, 0.1 * values) / 16
    assert float((outputs**2).mean()) == pytest.approx(variance_after("leaky"), rel=0.05)


def test_a_section_knows_its_number() -> None:
    cfg = Cfg(32)
    first = cfg.conv(8, 3, 2)
    assert cfg.route(first, cfg.conv(8)) == 2
    assert cfg.channels == [8, 8, 16]


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_answers_are_compared_with_those_of_the_cpu(options: CheckOptions) -> None:
    (row,) = answers.rows_of("digits", ("cpu",), options)
    assert (row.check, row.state, row.note) == ("digits, cpu", State.OK, answers.SAME_BYTES)
    exact, half, same_half, int8, same_int8, tf32 = row.figure.split("; ")
    assert (exact, tf32) == ("fp32: 100.0%, 0 px, 0", "TF32: 100.0%, 0 px, 0")
    assert half.startswith("fp16: 100.0%, 0.1")
    assert int8.startswith("int8: 100.0%, 1")
    same = [f"of the CPU's in {precision}: 100.0%, 0 px, 0" for precision in ("fp16", "int8")]
    assert [same_half, same_int8] == same


def test_a_model_has_failed_where_one_of_its_variants_has() -> None:
    rows = [Row("fp32", figure="100%", note="same"), Row("fp16", State.FAILED, "50%", "same")]
    assert answers.joined("a", rows) == Row("a", State.FAILED, "fp32: 100%; fp16: 50%", "same")
    missing = [Row("fp32", State.NOT_RUN, note="no GPU"), Row("fp16", note="other")]
    assert answers.joined("a", missing) == Row("a", State.OK, note="fp32: no GPU; fp16: other")


def agreement(*, wanted: int = 100, found: int = 99, boxes: float = 1.2, scores: float = 0.01) -> answers.Agreement:
    """One image's, the last of whose detections is as far off."""
    differences = {"boxes": [0.0] * (found - 1) + [boxes], "scores": [0.0] * (found - 1) + [scores]}
    return answers.Agreement([Comparison(wanted, found, differences)])


def test_answers_out_of_their_tolerances_are_named() -> None:
    half, exact = Variant("digits", "fp16"), Variant("digits", "fp32")
    assert answers.out_of(half, agreement()) == []
    assert answers.out_of(exact, agreement()) == ["scores may differ by 0.005", "boxes may differ by 1"]
    assert answers.out_of(half, agreement(found=50)) == ["expected 98% or more"]
    assert answers.out_of(half, answers.Agreement([])) == ["expected 98% or more"]


def test_of_made_up_weights_the_median_is_judged_but_in_float32() -> None:
    assert answers.out_of(Variant("yolov4-tiny", "fp16"), agreement(boxes=100.0)) == []
    assert answers.out_of(Variant("yolov4-tiny", "fp16"), agreement(found=97)) == ["expected 98% or more"]
    all_off = Comparison(3, 3, {"scores": [0.5] * 3})
    assert answers.out_of(Variant("vgg16", "fp16"), answers.Agreement([all_off])) == ["scores may differ by 0.02"]
    exact = Variant("yolov4-tiny", "fp32")
    assert answers.out_of(exact, agreement(boxes=100.0, scores=0.0)) == ["boxes may differ by 1"]


@pytest.mark.slow
def test_what_convert_warns_of_is_not_judged(options: CheckOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "int8", LIMITS["fp32"])
    assert answers.against(Variant("digits", "fp32", tf32=True), options) == ""
    assert answers.against(Variant("digits", "int8"), options) == "not judged: convert warns of int8"
    assert answers.against(Variant("digits", "fp32"), options) == ""


class Leaky:
    """An engine whose answer to an image depends on the image after it."""

    max_batch = 16

    def infer(self, images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> "Outputs":
        means = images.reshape(len(images), -1).mean(1, dtype=np.float32)
        return Outputs(None, (means + 0.5 * np.roll(means, 1) * (len(images) > 8))[:, None].astype(np.float32))


def test_an_image_that_is_answered_otherwise_in_a_batch_is_noticed() -> None:
    images = [np.full((2, 2, 3), value, np.uint8) for value in (10, 20)]
    assert answers.in_batches(Leaky(), images) == "of 16 differ by up to 10"  # type: ignore[arg-type]


@pytest.mark.slow
def test_darknets_own_detections_are_found(shared: Path, options: CheckOptions) -> None:
    given = replace(
        options,
        official=shared / "models" / "yolov3-tiny.weights",
        images=shared / "images",
        darknet=shared / "darknet",
    )
    row = next(darknet.check(given))
    assert (row.check, row.state) == ("yolov3-tiny, cpu", State.OK)
    assert row.figure == "fp32: 14 of 14; fp16: 14 of 14; int8: 14 of 14"


# -- speed, phases and Keras -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_engine_alone_has_a_rate(options: CheckOptions) -> None:
    model = zoo.converted("digits", "fp32", options)
    with need.opened(model, options, "cpu") as engine:
        assert speed.rate(speed.part_of(model, engine, options, "cpu", 1), 0.1) > 1


class OrdinaryMemory:
    """A device's port where there is none: memory that is not page-locked."""

    def current(self) -> "contextlib.AbstractContextManager[None]":
        return contextlib.nullcontext()

    def pinned(
        self, shape: tuple[int, ...], dtype: "np.dtype[np.float32]"
    ) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
        return np.empty(shape, dtype)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available provider names")
def test_a_bare_loop_runs_a_session_of_its_own_in_two_threads(options: CheckOptions) -> None:
    model = zoo.converted("digits", "fp32", options)
    images = np.zeros((2, *model.spec.input_hw, 3), np.uint8)
    loops = bare.onnxruntime_loops(model.path, images, OrdinaryMemory(), tf32=True)  # type: ignore[arg-type]
    assert {name: loop(0.1) > 0 for name, loop in loops.items()} == {"run_with_iobinding": True, "run": True}


@pytest.mark.slow
def test_an_images_phases_are_those_of_bench(options: CheckOptions) -> None:
    def phase_that_takes_longest() -> int:
        row = phases.row_of("digits", "fp32", "cpu", options)
        values = [float(value) for value in row.figure.split(" / ")]
        assert len(values) == len(phases.PHASES)
        assert min(values) > 0
        assert float(row.note.split()[0]) == pytest.approx(sum(values), abs=0.1)
        return values.index(max(values))

    # Where others use the cores and the disk, writing may take longer once, but not every time.
    assert any(phases.PHASES[phase_that_takes_longest()] == "infer" for _ in range(5))


def test_the_fastest_of_kerass_ways_becomes_a_row() -> None:
    line: dict[str, object] = {"model": "vgg16", "keras": "3.15", "precision": "float32", "device": "NVIDIA H200"}
    lines: list[dict[str, object]] = [
        line | {"backend": "torch", "how": "call", "images_per_s": {"1": 99.6, "8": 400.2, "32": None}},
        line | {"backend": "jax", "how": "jitted call", "problem": "batch 1: RuntimeError"},
        line | {"backend": "torch", "how": "predict_on_batch", "images_per_s": {"1": 90.0, "8": 300.0, "32": None}},
    ]
    assert list(map(rival.row_of, rival.fastest(json.loads(json.dumps(lines))))) == [
        Row("vgg16, float32", figure="100 / 400 / -", note="Keras 3.15 on torch, call, NVIDIA H200")
    ]
    assert rival.row_of(lines[1]).state is State.NOT_RUN


def test_of_a_part_that_prepares_the_others_only_failures_are_kept(tmp_path: Path) -> None:
    document = tmp_path / "found.md"
    keep(document, "models", ROWS)
    assert [line for line in document.read_text().splitlines() if "ok" in line or "FAILED" in line] == [
        "| graphs / streams | FAILED |  | two lines |"
    ]
    keep(document, "models", ROWS[:2])
    assert "models" not in document.read_text()


@pytest.mark.slow
def test_opencv_is_measured_with_both_steps() -> None:
    files = jpeg.files_of("640x480")[:1]
    found = list(jpeg.on_cpu("640x480", files, 0.01))
    assert [row.check for row in found] == ["640x480, OpenCV: decode", "640x480, OpenCV: decode, resize to 416x416"]
    assert all(float(row.figure.split()[0]) > 0 for row in found)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        pytest.param(1, [1], id="one core"),
        pytest.param(6, [1, 2, 4, 6], id="six cores"),
        pytest.param(8, [1, 2, 4, 8], id="eight cores"),
    ],
)
def test_the_host_is_measured_with_ever_more_image_processes(cores: int, expected: list[int]) -> None:
    assert host.counts(cores) == expected


# -- two GPUs, and processes on the CPU in their place -----------------------------------------------------------------


def test_cores_are_listed_as_the_kernel_does() -> None:
    assert [gpus.ranges(cores) for cores in ({0, 1, 2, 5}, {7}, set())] == ["0-2,5", "7", ""]


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_two_processes_are_measured_and_give_the_same_bytes_as_one_also_when_one_is_killed(
    options: CheckOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.converted("digits", feed.PRECISION, options)
    only = [(feed.SMALL, Annotate.NONE)]
    monkeypatch.setattr(gpus, "CASES", {"cpu": {False: only}})
    monkeypatch.setattr(gpus, "PINNED", only)
    load = gpus.Load({feed.SMALL: 2000}, few=90)
    missing, *rows = gpus.rows("digits", "nowhere", replace(options, is_built=True), kind="cpu", load=load)
    assert missing == Row("nowhere", State.NOT_RUN, note="it is not converted")
    case = "cpu, digits@fp16, 640x480, JSON only"
    assert [(row.check, row.state) for row in rows] == [
        (case, State.OK),
        (f"{case}, pinned", State.OK),
        ("cpu, results of one", State.OK),
        ("cpu, results of two", State.OK),
        ("cpu, results of two, an engine process is killed", State.OK),
        ("cpu, two, an engine process is killed", State.OK),
        ("cpu, two jobs at once on two", State.NOT_RUN),
    ]
    assert all(float(rows[number].figure.strip("- /").split()[0]) > 0 for number in (0, 1, 5))
    assert [rows[number].figure for number in (3, 4)] == ["the same bytes"] * 2


# -- files to results --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "NAMES", 2 * host.FILES)
        patch.setattr(fed, "WARM_UP_S", 0.1)
        with feed.pictures() as folder:
            yield folder


def figures(row: Row) -> list[float]:
    return [float(value) for value in row.figure.split(" / ")]


@pytest.mark.slow
@pytest.mark.chaos
def test_a_light_models_rows_come_by_pictures_and_image_processes(
    options: CheckOptions, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PROCESSES", (1, 999))
    most = feed.bounds_of_host(options, pictures)
    *rows, death, on_gpu, few = feed.light("digits", "cpu", options, pictures, most)
    assert [row.check for row in rows] == [
        f"digits, cpu, {size}, {how}" for size in ("640x480", "1920x1080") for how in ("JSON only", "annotated")
    ]
    for row in (*rows, few):
        rate, of_engine, full, cores = figures(row)
        assert min(rate, of_engine, full, cores) > 0
        assert row.note.startswith("engine alone ")
    assert all("goal: " in row.note and "with 16 cores and a GPU" in row.note for row in (*rows, death))
    assert all(fed.images_per_s > 0 for fed in most.values())
    assert all(" of the bound; goal: " in row.note for row in rows)
    assert death.figure.endswith(" s lost")
    assert on_gpu.state is State.NOT_RUN
    assert "this worker uses none" in on_gpu.note
    assert few.check == "digits, cpu, 640x480, JSON only, 1 image processes"


@pytest.mark.slow
@pytest.mark.chaos
def test_a_heavy_model_is_beside_its_engine_alone(options: CheckOptions, pictures: Path) -> None:
    (row,) = feed.heavy("digits", "cpu", options, pictures)
    rate, of_engine, *_ = figures(row)
    told = float(row.note.split(";")[0].removeprefix("engine alone "))
    # Both are whole numbers, and small ones on a busy machine.
    assert (rate - 0.5) / (told + 0.5) - 0.01 < of_engine < (rate + 0.5) / (told - 0.5) + 0.01


@pytest.mark.slow
@pytest.mark.chaos
def test_a_model_is_beside_ultralytics_where_that_could_be_measured(options: CheckOptions, pictures: Path) -> None:
    theirs = Predicted("Ultralytics 1", {False: 1e-3, True: 1e9}, 12.0)
    without, with_pictures, *on_gpu = feed.beside("digits", "cpu", theirs, options, pictures)
    assert float(without.note.split("; ")[-1].split()[0]) > 100
    assert "0.0 times Ultralytics" in with_pictures.note
    assert [row.state for row in on_gpu] == [State.NOT_RUN, State.NOT_RUN]


@pytest.mark.chaos
def test_a_model_is_beside_nothing_where_ultralytics_could_not_be_measured(
    options: CheckOptions, pictures: Path
) -> None:
    assert all("Ultralytics" not in row.note for row in feed.beside("digits", "cpu", None, options, pictures))


@pytest.mark.slow
def test_where_ultralytics_is_missing_its_row_says_so(pictures: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("ultralytics"):
        pytest.skip("Ultralytics is here")
    with pytest.raises(NotRun, match="Ultralytics cannot be imported"):
        predicted(pictures / "640x480", tmp_path / "theirs", 0.1)


@pytest.mark.parametrize(
    ("cores", "kind", "expected"),
    [
        pytest.param(16, "cuda", (State.FAILED, "goal: a, b"), id="the machine that they are for"),
        pytest.param(15, "cuda", (State.OK, "goal: a, b, with 16 cores and a GPU"), id="fewer cores"),
        pytest.param(16, "cpu", (State.OK, "goal: a, b, with 16 cores and a GPU"), id="no gpu"),
    ],
)
def test_goals_count_on_the_machine_that_they_are_for(
    cores: int, kind: EngineKind, expected: tuple[State, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert feed.verdict({"a": True, "b": False}, kind) == expected


def rows_until(err: Exception) -> Iterator[Row]:
    yield ROWS[0]
    raise err


def test_what_ends_a_models_rows_is_the_last_of_them() -> None:
    assert list(feed.told("a", rows_until(NotRun("no plan")))) == [ROWS[0], Row("a", State.NOT_RUN, note="no plan")]
    assert list(feed.told("a", rows_until(ConfigError("7")))) == [ROWS[0], Row("a", State.FAILED, note="7")]


@pytest.mark.slow
def test_a_pipeline_whose_images_fail_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with ConstantEngine() as engine:
        pipeline = Pipeline(engine, PipelineLimits(processes=1, batch=1, slots=4))
        with contextlib.closing(pipeline), pytest.raises(TrtjobError, match=r"a\.jpg: "):
            fed.feed(pipeline, job_spec(tmp_path, tmp_path / "out"), 0.1)


def test_what_is_fed_has_a_plan_that_is_built_to_be_fast() -> None:
    assert all(Variant(name, feed.PRECISION).settings == {} for name in zoo.FED)
