import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from converters.darknet.networks import onnx_from_darknet
from terminal import Terminal

from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import answer_of
from trtjob.imaging.decode import decode_image
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import prepare

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
SCENES = DIGITS / "scenes"
HEADER_BYTES = 20
TOP_LEFT, TOP_RIGHT = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)
NOWHERE = (200.0, 200.0, 210.0, 210.0)


@pytest.fixture(scope="module")
def evaluate() -> ModuleType:
    """The example's script as a module: examples are no package."""
    spec = importlib.util.spec_from_file_location("digits_evaluate", DIGITS / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _numbers_in_cfg() -> int:
    """Count what the convolutions of the cfg store, which is a chain but for two routes and two shortcuts."""
    channels: list[int] = []
    stored = 0
    for kind, body in re.findall(r"^\[(\w+)\]\n((?:[^\[]*\n)*)", (DIGITS / "digits.cfg").read_text(), re.MULTILINE):
        options = dict(re.findall(r"^(\w+)=(.*)$", body, re.MULTILINE))
        if kind == "net":
            before = int(options["channels"])
            continue
        if kind == "convolutional":
            filters, size = int(options["filters"]), int(options["size"])
            stored += filters * (4 if options.get("batch_normalize") == "1" else 1) + filters * before * size * size
            before = filters
        elif kind == "route":
            before = sum(channels[int(number)] for number in options["layers"].split(","))
        channels.append(before)
    return stored


def test_the_weights_fit_the_cfg_to_the_byte() -> None:
    assert (DIGITS / "digits.weights").stat().st_size == HEADER_BYTES + 4 * _numbers_in_cfg()


def test_the_model_stays_small() -> None:
    size = sum((DIGITS / f"digits{suffix}").stat().st_size for suffix in (".cfg", ".weights", ".names"))
    assert size <= 3_000_000


def test_every_scene_has_its_truth_and_no_truth_lacks_its_scene() -> None:
    names = {path.relative_to(SCENES).as_posix() for path in SCENES.rglob("*.jpg")}
    assert names == set(json.loads((SCENES / "truth.json").read_text()))
    assert len(names) == 12


def test_perfect_detections_have_an_average_precision_of_one(evaluate: ModuleType) -> None:
    wanted = [evaluate.Wanted("a", "3", TOP_LEFT), evaluate.Wanted("b", "3", TOP_RIGHT)]
    found = [evaluate.Found("a", "3", 0.9, TOP_LEFT), evaluate.Found("b", "3", 0.2, TOP_RIGHT)]
    assert evaluate.average_precision(found, wanted) == 1.0


def test_a_false_alarm_above_the_second_hit_costs_a_sixth(evaluate: ModuleType) -> None:
    wanted = [evaluate.Wanted("a", "3", TOP_LEFT), evaluate.Wanted("a", "3", TOP_RIGHT)]
    found = [
        evaluate.Found("a", "3", 0.9, TOP_LEFT),
        evaluate.Found("a", "3", 0.8, NOWHERE),
        evaluate.Found("a", "3", 0.7, TOP_RIGHT),
    ]
    # Recall 0 to 1/2 at precision 1, 1/2 to 1 at precision 2/3.
    assert evaluate.average_precision(found, wanted) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_precision_at_a_recall_is_the_best_one_from_there_on(evaluate: ModuleType) -> None:
    wanted = [evaluate.Wanted("a", "3", TOP_LEFT), evaluate.Wanted("a", "3", TOP_RIGHT)]
    found = [
        evaluate.Found("a", "3", 0.9, NOWHERE),
        evaluate.Found("a", "3", 0.8, TOP_LEFT),
        evaluate.Found("a", "3", 0.7, TOP_RIGHT),
    ]
    # The first hit has precision 1/2, but the second one, at a higher recall, 2/3.
    assert evaluate.average_precision(found, wanted) == pytest.approx(2 / 3)


def test_finding_the_same_digit_again_is_a_false_alarm(evaluate: ModuleType) -> None:
    wanted = [evaluate.Wanted("a", "3", TOP_LEFT), evaluate.Wanted("a", "3", TOP_RIGHT)]
    twice = [evaluate.Found("a", "3", score, TOP_LEFT) for score in (0.9, 0.8)]
    found = [*twice, evaluate.Found("a", "3", 0.7, TOP_RIGHT)]
    assert evaluate.average_precision(found, wanted) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_a_digit_that_is_never_found_limits_the_recall(evaluate: ModuleType) -> None:
    wanted = [evaluate.Wanted("a", "3", TOP_LEFT), evaluate.Wanted("a", "3", TOP_RIGHT)]
    assert evaluate.average_precision([evaluate.Found("a", "3", 0.9, TOP_LEFT)], wanted) == 0.5


@pytest.mark.parametrize(
    ("width", "expected"),
    [pytest.param(5.0, 1.0, id="overlap of exactly a half"), pytest.param(4.9, 0.0, id="overlap just below a half")],
)
def test_a_box_is_right_from_an_overlap_of_a_half(evaluate: ModuleType, width: float, expected: float) -> None:
    found = [evaluate.Found("a", "3", 0.9, (0.0, 0.0, width, 10.0))]
    assert evaluate.average_precision(found, [evaluate.Wanted("a", "3", TOP_LEFT)]) == expected


def test_a_detection_in_another_image_finds_nothing(evaluate: ModuleType) -> None:
    found = [evaluate.Found("b", "3", 0.9, TOP_LEFT)]
    assert evaluate.average_precision(found, [evaluate.Wanted("a", "3", TOP_LEFT)]) == 0.0


def test_the_mean_is_over_the_labels_of_the_truth(evaluate: ModuleType) -> None:
    wanted = [evaluate.Wanted("a", "3", TOP_LEFT), evaluate.Wanted("a", "8", TOP_RIGHT)]
    found = [evaluate.Found("a", "3", 0.9, TOP_LEFT), evaluate.Found("a", "5", 0.9, TOP_RIGHT)]
    assert evaluate.mean_average_precision(found, wanted) == 0.5


def test_the_mean_of_nothing_is_not_a_number(evaluate: ModuleType) -> None:
    assert math.isnan(evaluate.mean_average_precision([], []))


def test_an_image_that_failed_is_no_result_without_detections(evaluate: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text('{"image": "a.jpg", "error": {"kind": "decode", "message": "cut short", "attempts": 1}}\n')
    with pytest.raises(ValueError, match=r"'a\.jpg' has no detections"):
        evaluate.read_results(results)


def test_the_converted_model_finds_the_digits_of_the_sample_scenes(evaluate: ModuleType, tmp_path: Path) -> None:
    model = tmp_path / "digits.onnx"
    onnx_from_darknet(DIGITS / "digits.weights", model)
    found = []
    _, wanted = evaluate.read_truth(SCENES / "truth.json")
    with open_engine(model) as engine:
        for path in sorted(SCENES.rglob("*.jpg")):
            image = decode_image(path.read_bytes(), max_pixels=10_000_000)
            tensor, placement = prepare(image, engine.spec, engine.spec.resize)
            detections, _ = detections_from(
                answer_of(engine, tensor),
                placement,
                engine.spec,
                hw=(image.shape[0], image.shape[1]),
                min_score=engine.spec.min_score,
                iou=engine.spec.iou,
            )
            name = path.relative_to(SCENES).as_posix()
            found += [evaluate.Found(name, item.label, item.score, item.box) for item in detections]
    assert evaluate.mean_average_precision(found, wanted) >= 0.95


def test_the_recipe_shows_what_a_conversion_says(terminal: Terminal) -> None:
    recipes = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    shown = re.findall(
        r"^    ((?:model|from|task|input|outputs|labels|layers|precision|size) .*)$", recipes, re.MULTILINE
    )
    assert len(shown) == 9
    said = terminal.here("convert", DIGITS / "digits.weights", "--local").out.splitlines()
    assert [line for line in shown if line not in said] == []
