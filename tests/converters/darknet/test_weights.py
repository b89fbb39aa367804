import re
import struct
from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import CFG, CFG_NUMBERS, HEADER, normal, write_model, write_weights

from trtjob.converters.darknet.convert import convert
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import FloatArray
from trtjob.errors import DarknetWeightsError

PLACE = "layer 3 ([convolutional], line 9 of a.cfg)"
QUESTION = "Is it the cfg that these weights were trained with?"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.weights"


def header(major: int, minor: int, *, seen_bytes: int) -> bytes:
    return struct.pack("<iii", major, minor, 5) + b"\x07" * seen_bytes


def take(reader: WeightsReader, *shape: int, name: str = "biases") -> FloatArray:
    return reader.take(3, PLACE, name, shape)


def test_numbers_are_handed_out_in_order_and_in_shape(path: Path) -> None:
    numbers = np.arange(9, dtype=np.float32)
    reader = WeightsReader(write_weights(path, numbers))
    assert take(reader, 3).tolist() == [0, 1, 2]
    assert take(reader, 2, 3).tolist() == [[3, 4, 5], [6, 7, 8]]
    reader.finish(3)


def test_numbers_cannot_be_changed_by_a_layer(path: Path) -> None:
    reader = WeightsReader(write_weights(path, normal(4)))
    with pytest.raises(ValueError, match="read-only"):
        take(reader, 4)[0] = 1


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(path: Path) -> None:
    reader = WeightsReader(write_weights(path, normal(4)))
    path.write_bytes(path.read_bytes()[:-4])
    take(reader, 3)
    with pytest.raises(DarknetWeightsError, match=r"became shorter while it was read\. Convert it again$"):
        take(reader, 1)


def test_a_file_that_is_gone_while_it_is_read_is_named(path: Path) -> None:
    reader = WeightsReader(write_weights(path, normal(4)))
    path.unlink()
    with pytest.raises(DarknetWeightsError, match=r"cannot be read: No such file or directory$"):
        take(reader, 1)


@pytest.mark.parametrize(
    ("major", "minor", "seen_bytes"),
    [
        pytest.param(0, 1, 4, id="0.1, as the first Darknet wrote it"),
        pytest.param(0, 2, 8, id="0.2, as all write it today"),
        pytest.param(0, 3, 8, id="0.3"),
        pytest.param(1, 0, 8, id="1.0"),
        pytest.param(0, 0, 4, id="0.0"),
    ],
)
def test_the_count_of_images_seen_is_longer_from_version_0_2_on(
    path: Path, major: int, minor: int, seen_bytes: int
) -> None:
    write_weights(path, np.array([1.5, 2.5], np.float32), header=header(major, minor, seen_bytes=seen_bytes))
    reader = WeightsReader(path)
    assert take(reader, 2).tolist() == [1.5, 2.5]
    reader.finish(3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is no weights file: it has 0 bytes, less than the header", id="empty"),
        pytest.param(HEADER[:15], "is no weights file: it has 15 bytes, less than the header", id="half a header"),
        pytest.param(HEADER, "20 bytes are a header of 20 and no whole number of float32", id="only a header"),
        pytest.param(HEADER[:16], "16 bytes are a header of 20 and no whole number of float32", id="a short header"),
        pytest.param(HEADER + b"\0" * 7, "27 bytes are a header of 20 and no whole number", id="cut in a number"),
        pytest.param(
            b"<!DOCTYPE html>" + b" " * 99, "begins with b'<!DOCTYPE ht', which is no version", id="a web page"
        ),
        pytest.param(b"PK\x03\x04" + b"\0" * 99, "is no Darknet weights: it begins with b'PK", id="a PyTorch file"),
        pytest.param(header(0, 1000, seen_bytes=8) + b"\0" * 8, "is no version such as 0.2", id="version 0.1000"),
        pytest.param(header(-1, 2, seen_bytes=8) + b"\0" * 8, "is no version such as 0.2", id="version -1.2"),
    ],
)
def test_a_file_that_is_no_weights_is_refused(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(DarknetWeightsError, match=re.escape(message)) as caught:
        WeightsReader(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.layer is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.weights", "cannot be read: No such file or directory", id="missing"),
        pytest.param(".", "cannot be read: Is a directory", id="a folder"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DarknetWeightsError, match=rf"^{re.escape(str(tmp_path / name))}: {message}$"):
        WeightsReader(tmp_path / name)


def test_a_file_that_ends_early_names_the_layer_and_both_counts(path: Path) -> None:
    reader = WeightsReader(write_weights(path, normal(1003)))
    take(reader, 1000, name="weights")
    with pytest.raises(DarknetWeightsError) as caught:
        take(reader, 2, 2000, name="weights")
    assert str(caught.value) == (
        f"{path}: the file ends in {PLACE}: expected 4,000 weights, found 3 (the file holds 1,003 numbers). {QUESTION}"
    )
    assert caught.value.layer == 3


def test_a_file_that_goes_on_names_the_last_layer_and_both_counts(path: Path) -> None:
    reader = WeightsReader(write_weights(path, normal(1003)))
    take(reader, 2)
    with pytest.raises(DarknetWeightsError) as caught:
        reader.finish(7)
    assert str(caught.value) == (
        f"{path}: 1,001 numbers are left over after {PLACE}, the last layer with weights: expected 2, found 1,003. "
        f"{QUESTION}"
    )
    assert caught.value.layer == 7


def test_a_file_of_which_nothing_is_read_is_left_over_after_the_header(path: Path) -> None:
    reader = WeightsReader(write_weights(path, normal(1)))
    with pytest.raises(DarknetWeightsError, match="1 numbers are left over after the header"):
        reader.finish(0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_with_its_layer(path: Path, value: float) -> None:
    reader = WeightsReader(write_weights(path, np.array([0, value, 0, 0], np.float32)))
    take(reader, 3)
    reader.take(5, "another layer", "weights", (1,))
    with pytest.raises(DarknetWeightsError) as caught:
        reader.finish(5)
    assert str(caught.value) == f"{path}: {PLACE}: some biases are infinite or not a number. {QUESTION}"
    assert caught.value.layer == 3


def test_the_first_suspect_layer_is_the_one_reported(path: Path) -> None:
    reader = WeightsReader(write_weights(path, np.full(2, np.nan, np.float32)))
    take(reader, 1)
    reader.take(4, "another layer", "weights", (1,))
    with pytest.raises(DarknetWeightsError, match=re.escape(PLACE)):
        reader.finish(4)


def test_a_wrong_count_says_more_than_a_strange_number(path: Path) -> None:
    reader = WeightsReader(write_weights(path, np.full(2, np.nan, np.float32)))
    take(reader, 1)
    with pytest.raises(DarknetWeightsError, match="1 numbers are left over"):
        reader.finish(3)


# From here on with a whole network: its only weights are 7 biases and 21 weights of layer 0, which is in line 6.


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        pytest.param(1, "expected 21 weights, found 20 (the file holds 27 numbers)", id="one weight"),
        pytest.param(21, "expected 21 weights, found 0 (the file holds 7 numbers)", id="all weights"),
        pytest.param(22, "expected 7 biases, found 6 (the file holds 6 numbers)", id="one bias too"),
    ],
)
def test_weights_with_too_few_numbers_name_the_layer_of_the_cfg(tmp_path: Path, missing: int, message: str) -> None:
    weights = write_model(tmp_path, numbers=CFG_NUMBERS - missing)
    with pytest.raises(DarknetWeightsError) as caught:
        convert(ConversionRequest(model=weights))
    place = f"layer 0 ([convolutional], line 6 of {tmp_path / 'net.cfg'})"
    assert str(caught.value) == f"{weights}: the file ends in {place}: {message}. {QUESTION}"
    assert caught.value.layer == 0


def test_weights_with_one_number_too_many_are_refused(tmp_path: Path) -> None:
    weights = write_model(tmp_path, numbers=CFG_NUMBERS + 1)
    with pytest.raises(DarknetWeightsError) as caught:
        convert(ConversionRequest(model=weights))
    assert str(caught.value) == (
        f"{weights}: 1 numbers are left over after layer 0 ([convolutional], line 6 of {tmp_path / 'net.cfg'}), "
        f"the last layer with weights: expected 28, found 29. {QUESTION}"
    )


def test_weights_of_another_model_of_the_same_size_are_refused(tmp_path: Path) -> None:
    # 7 filters with batch normalisation on one channel take as many numbers as 7 on 4 channels without.
    cfg = CFG.replace("[convolutional]\n", "[convolutional]\nbatch_normalize=1\n", 1).replace(
        "channels=3", "channels=1"
    )
    weights = write_model(tmp_path, cfg=cfg, numbers=7 * 5)
    with pytest.raises(DarknetWeightsError, match="some variances are negative") as caught:
        convert(ConversionRequest(model=weights))
    assert str(caught.value).startswith(f"{weights}: layer 0 ([convolutional], line 6 of ")
    assert str(caught.value).endswith(QUESTION)


def test_weights_that_grow_too_large_once_they_are_normalised_are_refused(tmp_path: Path) -> None:
    cfg = CFG.replace("[convolutional]\n", "[convolutional]\nbatch_normalize=1\n", 1)
    weights = write_model(tmp_path, cfg=cfg)
    biases, scales, means, variances = (np.full(7, value, np.float32) for value in (0, 3e38, 0, 0))
    write_weights(weights, biases, scales, means, variances, np.full(21, 2, np.float32))
    with pytest.raises(DarknetWeightsError, match="some weights are too large once they are normalised"):
        convert(ConversionRequest(model=weights))


def test_infinite_weights_are_refused_without_a_warning_of_numpy(tmp_path: Path) -> None:
    cfg = CFG.replace("[convolutional]\n", "[convolutional]\nbatch_normalize=1\n", 1)
    weights = write_model(tmp_path, cfg=cfg)
    write_weights(weights, np.full(7 * 4, np.inf, np.float32), np.zeros(21, np.float32))
    with pytest.raises(DarknetWeightsError, match="some biases are infinite or not a number"):
        convert(ConversionRequest(model=weights))
