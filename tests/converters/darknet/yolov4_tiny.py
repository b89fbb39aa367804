"""YOLOv4-tiny as a cfg of our own making, from what is known of its layers, and random weights for it.

Bochkovskiy et al., "Scaled-YOLOv4", 2021, section 3.3: a CSPOSA net whose blocks carry half of the channels on.
"""

from pathlib import Path

import numpy as np
from converters.darknet.networks import write_weights

ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


class _Cfg:
    """Sections, and how many numbers their weights have. channels: of each layer's output."""

    def __init__(self, size: int) -> None:
        self.text = f"[net]\nwidth={size}\nheight={size}\nchannels=3\n"
        self.channels: list[int] = []
        self.parts: list[np.ndarray] = []
        self._rng = np.random.default_rng(4)

    def section(self, name: str, channels: int, **options: object) -> None:
        self.text += f"\n[{name}]\n" + "".join(f"{option}={value}\n" for option, value in options.items())
        self.channels.append(channels)

    def conv(self, filters: int, size: int, stride: int = 1, *, is_head: bool = False) -> None:
        before = self.channels[-1] if self.channels else 3
        activation = {"activation": "linear"} if is_head else {"batch_normalize": 1, "activation": "leaky"}
        self.section("convolutional", filters, filters=filters, size=size, stride=stride, pad=1, **activation)
        # A head that finds little, as a trained one does: else most of the time goes into comparing thousands of boxes.
        self.parts.append(self._rng.normal(-5 if is_head else 0, 0.1, filters))
        if not is_head:
            self.parts += [np.ones(filters), np.zeros(filters), np.ones(filters)]  # scales, means, variances
        scale = (1 if is_head else 2) ** 0.5 / (before * size * size) ** 0.5
        self.parts.append(self._rng.normal(0, scale, filters * before * size * size))

    def route(self, *layers: int) -> None:
        at = len(self.channels)
        total = sum(self.channels[at + layer if layer < 0 else layer] for layer in layers)
        self.section("route", total, layers=",".join(map(str, layers)))

    def block(self, filters: int) -> None:
        """One cross-stage partial block: half of the channels go through two convolutions, all go on beside them."""
        self.conv(filters, 3)
        self.section("route", filters // 2, layers=-1, groups=2, group_id=1)
        self.conv(filters // 2, 3)
        self.conv(filters // 2, 3)
        self.route(-1, -2)
        self.conv(filters, 1)
        self.route(-6, -1)
        self.section("maxpool", self.channels[-1], size=2, stride=2)

    def head(self, filters: int, mask: str, classes: int) -> None:
        self.conv(filters, 3)
        self.conv(3 * (5 + classes), 1, is_head=True)
        self.section(
            "yolo",
            self.channels[-1],
            mask=mask,
            anchors=ANCHORS,
            classes=classes,
            num=6,
            scale_x_y=1.05,
            nms_kind="greedynms",
        )


def write_yolov4_tiny(folder: Path, *, size: int = 416, classes: int = 80) -> Path:
    """Write `yolov4-tiny.cfg`, `.names` and `.weights` with random numbers; return the weights."""
    cfg = _Cfg(size)
    cfg.conv(32, 3, 2)
    cfg.conv(64, 3, 2)
    for filters in (64, 128, 256):
        cfg.block(filters)
    early = len(cfg.channels) - 3  # the last block's 1x1 convolution, before its pooling
    cfg.conv(512, 3)
    cfg.conv(256, 1)
    neck = len(cfg.channels) - 1
    cfg.head(512, "3,4,5", classes)
    cfg.route(neck)
    cfg.conv(128, 1)
    cfg.section("upsample", 128, stride=2)
    cfg.route(-1, early)
    cfg.head(256, "1,2,3", classes)
    (folder / "yolov4-tiny.cfg").write_text(cfg.text)
    (folder / "yolov4-tiny.names").write_text("".join(f"class {n}\n" for n in range(classes)))
    return write_weights(folder / "yolov4-tiny.weights", *(part.astype(np.float32) for part in cfg.parts))
