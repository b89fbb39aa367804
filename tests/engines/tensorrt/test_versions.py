"""What a build asks of each version of TensorRT, by a stand-in that has the names of that version."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from converters.precision import nets
from engines import tiny
from engines.tensorrt import conversions
from engines.tensorrt.recording_tensorrt import VERSIONS, Recording

from trtjob.engines.spec import Task
from trtjob.engines.tensorrt import builder
from trtjob.engines.tensorrt.builder import BuildOptions, Built, build_plan
from trtjob.engines.tensorrt.flavour import Flavour

every_version = pytest.mark.parametrize("version", VERSIONS)


def build(
    model: Path, version: str, monkeypatch: pytest.MonkeyPatch, options: BuildOptions | None = None
) -> tuple[Recording, Built]:
    seen = Recording(version)
    found = Flavour("tensorrt", version, seen.module())
    monkeypatch.setattr(builder, "flavour", lambda: found)
    monkeypatch.setattr(builder, "logger", lambda: (None, SimpleNamespace(take=lambda: "")))
    return seen, build_plan(model, options or BuildOptions(), timing_cache=b"known")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "tiny.onnx", Task.CLASSIFY)


def lowered_to(precision: str, folder: Path) -> Path:
    found = conversions.small_detector(folder)
    made = conversions.lower_precision(found, precision, nets.images(2, (32, 32)))
    return conversions.write(made, found.spec, folder / f"{precision}.onnx")


@pytest.mark.parametrize(("version", "flags"), [("8.6.1", 1), ("10.9.0", 2), ("11.4.0", 1)])
def test_a_network_has_the_types_of_its_graph(
    version: str, flags: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, built = build(model, version, monkeypatch)
    assert seen.network_flags == flags
    assert built.plan == b"plan"


@pytest.mark.parametrize(("version", "opset"), [("8.6.1", 17), ("10.9.0", 18), ("11.4.0", 18)])
def test_only_8_6_is_given_a_lowered_graph(
    version: str, opset: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(model, version, monkeypatch)[0].opset == opset


@pytest.mark.parametrize(("version", "previews"), [("8.6.1", {"sharing"}), ("10.9.0", {"sharing"}), ("11.4.0", set())])
def test_contexts_may_share_a_profile(
    version: str, previews: set[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(model, version, monkeypatch)[0].previews == previews


@every_version
@pytest.mark.parametrize("is_on", [True, False])
def test_tf32_is_as_it_is_asked_for(version: str, is_on: bool, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, _ = build(model, version, monkeypatch, BuildOptions(tf32=is_on))
    assert seen.flags == ({"TF32"} if is_on else set())


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("fp16", {"FP16", "TF32", "PREFER_PRECISION_CONSTRAINTS"}), ("int8", {"INT8", "TF32"})],
)
def test_8_6_may_compute_in_the_types_of_the_graph(
    precision: str, flags: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, _ = build(lowered_to(precision, tmp_path), "8.6.1", monkeypatch)
    assert seen.flags == flags


@pytest.mark.parametrize("version", ["10.9.0", "11.4.0"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_later_versions_are_told_no_precision(
    version: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(lowered_to(precision, tmp_path), version, monkeypatch)[0].flags == {"TF32"}


def test_the_end_of_a_half_model_is_held_to_float32_by_8_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, _ = build(lowered_to("fp16", tmp_path), "8.6.1", monkeypatch)
    assert {"boxes", "scores", "candidates", "candidates/best"} <= set(seen.held)
    assert "candidates/indices" not in seen.held
    assert not [name for name in seen.held if "convolutional" in name]


@pytest.mark.parametrize(("version", "fed"), [("8.6.1", []), ("10.9.0", [b"known"]), ("11.4.0", [b"known"])])
def test_what_was_learnt_is_not_for_8_6(
    version: str, fed: list[bytes], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, built = build(model, version, monkeypatch)
    assert seen.fed_caches == fed
    assert built.timing_cache == (b"learnt" if fed else b"")


@pytest.mark.parametrize(("version", "is_there"), [("8.6.1", False), ("10.9.0", True), ("11.4.0", True)])
def test_a_build_is_watched_where_it_can_be(
    version: str, is_there: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(model, version, monkeypatch)[0].has_monitor is is_there


def test_a_parsers_error_names_the_node(model: Path) -> None:
    late = SimpleNamespace(desc=lambda: "no\nplugin", node_name=lambda: "strange", node_operator=lambda: "FooBar")
    early = SimpleNamespace(desc=lambda: "no plugin", node=lambda: 1)
    of_no_node = SimpleNamespace(desc=lambda: "no model", node=lambda: -1)
    assert builder.error_text(late, model) == "node 'strange' (FooBar): no plugin"
    assert builder.error_text(early, model) == "node 'scores' (ReduceMean): no plugin"
    assert builder.error_text(of_no_node, model) == "no model"
