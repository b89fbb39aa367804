from pathlib import Path

import numpy as np
import pytest
from converters.darknet.networks import build_layers

from trtjob.converters.darknet.cfg import Section, parse_cfg
from trtjob.converters.darknet.heads import nms_of
from trtjob.engines.spec import NmsKind
from trtjob.errors import DarknetParseError


def head(options: str) -> Section:
    return parse_cfg(f"[net]\n[yolo]\n{options}")[1]


@pytest.mark.parametrize(
    ("options", "kind", "beta"),
    [
        pytest.param("", NmsKind.DEFAULT, 0.6, id="as Darknet, unless told"),
        pytest.param("nms_kind=greedynms\nbeta_nms=0.6", NmsKind.GREEDY, 0.6, id="greedy"),
        pytest.param("nms_kind = diounms\nbeta_nms = 0.85", NmsKind.DIOU, 0.85, id="by distance"),
    ],
)
def test_the_head_says_how_boxes_are_suppressed(options: str, kind: NmsKind, beta: float) -> None:
    assert nms_of(head(options)) == (kind, beta)


def test_a_head_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    layer = "[upsample]\nstride=2048\n[yolo]\nanchors=3,5\nclasses=1\n"
    with pytest.raises(DarknetParseError) as caught:
        build_layers(tmp_path, layer, [np.zeros((6, 1, 1), np.float32)])
    assert str(caught.value) == "<cfg>:4: [yolo] has 4,194,304 boxes: at most 4,000,000 are possible"
