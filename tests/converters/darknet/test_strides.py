import pytest

from trtjob.converters.darknet.cfg import Section, parse_cfg
from trtjob.converters.darknet.strides import check_size, has_resampled_shortcut, total_strides
from trtjob.errors import ConversionError, DarknetParseError

# Down to an eighth, and up to a quarter.
DETECTOR = """\
[conv]
stride=2
[maxpool]
stride=2
[conv]
stride=2
[yolo]
[route]
layers=-2
[upsample]
[route]
layers=-1,1
[yolo]
"""


def sections(text: str) -> list[Section]:
    return parse_cfg(f"[net]\n{text}")[1:]


@pytest.mark.parametrize(
    ("text", "strides"),
    [
        pytest.param(DETECTOR, (8, 8), id="a detector"),
        pytest.param("[conv]\nstride_x=2\nstride_y=3\n[maxpool]\nstride=2\nstride_y=1\n", (3, 4), id="by name"),
        pytest.param("[reorg]\nstride=2\n[reorg3d]\nstride=4\n[reorg]\nstride=4\nreverse=1\n", (8, 8), id="reorg"),
        pytest.param("[upsample]\n[conv]\nstride=2\n", (1, 1), id="up and down"),
    ],
)
def test_the_total_stride_is_that_of_the_coarsest_layer(text: str, strides: tuple[int, int]) -> None:
    assert total_strides(sections(text)) == strides


def test_a_network_that_enlarges_its_input_takes_every_size() -> None:
    check_size(sections("[upsample]\nstride=2\n[conv]\nfilters=7\n[region]\nclasses=2\n"), (31, 17))


def test_a_multiple_of_the_total_stride_is_a_size() -> None:
    check_size(sections(DETECTOR), (8, 24))


@pytest.mark.parametrize(
    ("hw", "message"),
    [
        ((16, 20), "size: a width of 20 is no multiple of 8, the network's total stride. Try 16 or 24"),
        ((30, 16), "size: a height of 30 is no multiple of 8, the network's total stride. Try 24 or 32"),
        ((7, 16), "size: a height of 7 is no multiple of 8, the network's total stride. Try 8"),
    ],
)
def test_a_size_between_is_refused_with_those_beside_it(hw: tuple[int, int], message: str) -> None:
    with pytest.raises(ConversionError) as caught:
        check_size(sections(DETECTOR), hw)
    assert str(caught.value) == message


def test_a_classifier_that_ends_in_a_mean_takes_any_size() -> None:
    check_size(sections("[conv]\nstride=32\n[avgpool]\n[connected]\n[softmax]\n"), (100, 37))


@pytest.mark.parametrize("kind", ["connected", "local", "detection"])
def test_weights_for_each_place_fix_the_size(kind: str) -> None:
    with pytest.raises(DarknetParseError) as caught:
        check_size(sections(f"[conv]\nstride=32\n[{kind}]\n"), (64, 64))
    assert str(caught.value) == (
        f"<cfg>:4: [{kind}] has weights for each place of its input, so the size cannot be changed"
    )


@pytest.mark.parametrize(
    ("text", "is_resampled"),
    [
        pytest.param("[conv]\n[conv]\nstride=2\n[shortcut]\nfrom=-2\n", True, id="from a larger layer"),
        pytest.param("[conv]\n[conv]\n[shortcut]\nfrom=0\n", False, id="from a layer of the same size"),
        pytest.param("[conv]\n[conv]\nstride=2\n[upsample]\n[shortcut]\nfrom=-3\n", False, id="back to the size"),
        pytest.param("[conv]\n[conv]\n[shortcut]\nfrom=-9\n", False, id="from no layer"),
    ],
)
def test_a_shortcut_between_sizes_is_seen(text: str, is_resampled: bool) -> None:
    assert has_resampled_shortcut(sections(text)) is is_resampled
