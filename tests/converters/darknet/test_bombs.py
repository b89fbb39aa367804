"""Networks of a few lines, whose weights fit, that would take all memory or all time: refused before they do."""

import time
from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import write_weights

from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert
from trtjob.errors import ConversionError

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
CONVOLUTION = "[convolutional]\nfilters=18\nsize=1\nactivation=linear\n"
WEIGHTS = 18 * 3 + 18
YOLO = "[yolo]\nmask=0,1,2\nanchors=10,13,16,30,33,23\nclasses=1\nnum=3\n"
CLASSES = "[avgpool]\n[softmax]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        pytest.param(
            NET + CONVOLUTION + "[upsample]\nstride=2\n" * 12 + YOLO, "is too large", id="twice the size, again"
        ),
        pytest.param(NET + CONVOLUTION + "[upsample]\nstride=100000\n" + YOLO, "is too large", id="a large stride"),
        pytest.param(NET + CONVOLUTION + "[route]\nlayers=-1,-1\n" * 40 + CLASSES, "19791209299968", id="routes"),
        pytest.param(
            NET + CONVOLUTION + f"[route]\nlayers={','.join(['0'] * 500_000)}\n" + CLASSES,
            "9000000",
            id="a route",
        ),
        pytest.param(NET.replace("32", "1000000") + CONVOLUTION + YOLO, "of 1 to 16384", id="a large image"),
        pytest.param(NET.replace("32", "16384") + CONVOLUTION + YOLO, "has 805,306,368 boxes", id="boxes"),
        pytest.param(
            NET + CONVOLUTION + YOLO.replace("mask=0,1,2", f"mask={','.join(map(str, range(300_000)))}"),
            "mask|anchors",
            id="anchors",
        ),
        pytest.param(
            NET + CONVOLUTION.replace("size=1", "size=30001") + YOLO, "is larger than its input of 32x32", id="a kernel"
        ),
    ],
)
def test_a_network_that_would_take_everything_is_refused_at_once(cfg: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(cfg)
    (tmp_path / "a.names").write_text("cat\n" * (18 if CLASSES in cfg else 1))
    weights = tmp_path / "a.weights"
    write_weights(weights, np.zeros(WEIGHTS, np.float32))
    began = time.monotonic()
    with pytest.raises(ConversionError, match=message):
        convert(ConversionRequest(model=weights))
    assert time.monotonic() - began < 10
