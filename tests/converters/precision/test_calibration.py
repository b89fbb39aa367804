import numpy as np
import pytest
from converters.precision import nets
from hypothesis import given, settings
from hypothesis import strategies as st

from trtjob.converters.precision.calibration import METHODS, PERCENTILE, Histogram, observe
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import SCORES_NAME
from trtjob.errors import ConversionError


def histogram_of(*parts: FloatArray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def normal(count: int, scale: float = 1.0, seed: int = 0) -> FloatArray:
    return (np.random.default_rng(seed).standard_normal(count) * scale).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(scales=st.lists(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 2.0, 700.0]), min_size=1, max_size=6), data=st.data())
def test_the_order_of_the_images_does_not_matter(scales: list[float], data: st.DataObject) -> None:
    parts = [normal(100, scale, seed) for seed, scale in enumerate(scales)]
    one, other = histogram_of(*parts), histogram_of(*data.draw(st.permutations(parts)))
    np.testing.assert_array_equal(one.counts, other.counts)
    assert (one.width, one.largest) == (other.width, other.largest)


@settings(max_examples=30, deadline=None)
@given(scales=st.lists(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 700.0]), min_size=1, max_size=6))
def test_no_value_is_lost(scales: list[float]) -> None:
    histogram = histogram_of(*(normal(100, scale, seed) for seed, scale in enumerate(scales)))
    assert histogram.counts.sum() == 100 * len(scales)


@pytest.mark.parametrize("count", [1000, 300_000])
def test_the_percentile_is_that_of_all_magnitudes(count: int) -> None:
    values = normal(count)
    histogram = histogram_of(*np.array_split(values, 7))
    exact = np.percentile(np.abs(values), PERCENTILE, method="inverted_cdf")
    assert METHODS["percentile"](histogram) == pytest.approx(exact, abs=2 * histogram.width)


def test_minmax_cuts_nothing_off() -> None:
    assert METHODS["minmax"](histogram_of(np.array([1, -7.25, 3], np.float32))) == 7.25


@pytest.mark.parametrize(("method", "most"), [("percentile", 10), ("entropy", 50)])
def test_a_single_value_far_out_is_cut_off(method: str, most: float) -> None:
    cut = METHODS[method](histogram_of(normal(500_000), np.array([1000], np.float32)))
    assert 2 < cut < most


@pytest.mark.parametrize("method", METHODS)
def test_what_is_spread_evenly_is_kept_whole(method: str) -> None:
    values = np.linspace(-3, 3, 200_001, dtype=np.float32)
    assert METHODS[method](histogram_of(values)) == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.0, 0.0], id="zeros"),
        pytest.param([2.5], id="one value"),
        pytest.param([1e-30], id="next to nothing"),
        pytest.param([1e-36, 0.0], id="the bins of which float32 does not count"),
        pytest.param([1e-42], id="too little for a normal float32"),
    ],
)
def test_few_different_values_give_the_largest(method: str, values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert METHODS[method](histogram_of(array)) == pytest.approx(array.max(), rel=1e-3, abs=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not a number"):
        Histogram().add(np.array([1, value], np.float32))


# --- running the model


def test_of_a_model_without_layers_nothing_is_observed() -> None:
    assert observe(nets.plain_classifier(), [], nets.images(1), lambda _: None) == {}


def test_values_are_observed_inside_the_model_and_at_its_end() -> None:
    model, images = nets.plain_classifier(), nets.images(3)
    histograms = observe(model, ["act0", SCORES_NAME], images, lambda _: None)
    scores = nets.run(model, images)[SCORES_NAME]
    assert histograms[SCORES_NAME].largest == pytest.approx(scores.max(), rel=1e-6)
    assert histograms["act0"].counts.sum() == 3 * 6 * 16 * 16


def test_each_image_is_a_step() -> None:
    steps: list[int] = []
    observe(nets.plain_classifier(), ["act0"], nets.images(3), steps.append)
    assert steps == [1, 2, 3]


def test_a_model_that_gives_no_numbers_is_refused_by_the_values_name() -> None:
    nodes = [
        nets.layer("Log", ["pixels"], "logs"),
        nets.layer("GlobalAveragePool", ["logs"], "mean"),
        nets.layer("Flatten", ["mean"], SCORES_NAME),
    ]
    model = nets.classifier(nodes, {}, 3)
    with pytest.raises(ConversionError, match="the model's value 'logs' is infinite or not a number"):
        observe(model, ["logs"], nets.images(1) * 0, lambda _: None)
