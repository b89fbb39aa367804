"""YOLOv3, YOLOv4 and YOLOv4-tiny, written from their papers.

Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018; Bochkovskiy et al., "YOLOv4: Optimal Speed and
Accuracy of Object Detection", 2020, section 3, and "Scaled-YOLOv4", 2021, section 3.3.
"""

from pathlib import Path

from scripts.gpu_models.cfg import Cfg

CLASSES = 80
_ANCHORS_3 = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
_ANCHORS_4 = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
_ANCHORS_TINY = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
# A block adds so much to what it is added to: else the outputs of dozens of blocks would grow without end.
_BRANCH = 0.25


def yolov3(folder: Path, size: int) -> Path:
    """Write YOLOv3 for images of size x size as `yolov3-SIZE`; return the weights' path."""
    cfg = Cfg(size)
    cfg.conv(32, 3)
    stages = [_darknet_stage(cfg, channels, blocks) for channels, blocks in _DARKNET53]
    for index, (channels, mask) in enumerate(((512, (6, 7, 8)), (256, (3, 4, 5)), (128, (0, 1, 2)))):
        if index:
            cfg.conv(channels)
            cfg.upsample()
            cfg.route(cfg.at, stages[-1 - index])
        neck = _squeezed(cfg, channels, 5)
        cfg.conv(2 * channels, 3)
        cfg.head(mask, _ANCHORS_3, CLASSES, gain=_GAIN_3)
        if index < 2:
            cfg.route(neck)
    return cfg.write(folder, f"yolov3-{size}", CLASSES)


_DARKNET53 = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
# What the deviation of the last layers' outputs has grown to, as measured.
_GAIN_3, _GAIN_4, _GAIN_TINY = 5.5, 6.2, 1.75


def _darknet_stage(cfg: Cfg, channels: int, blocks: int) -> int:
    """Halve the sides, then add residual blocks; return the last layer's number."""
    last = cfg.conv(channels, 3, 2)
    for _ in range(blocks):
        cfg.conv(channels // 2)
        cfg.conv(channels, 3, scale=_BRANCH)
        last = cfg.shortcut(last)
    return last


def _squeezed(cfg: Cfg, channels: int, layers: int) -> int:
    """Append convolutions of 1x1 and 3x3 in turn; return the last one's number."""
    for layer in range(layers):
        if layer % 2:
            cfg.conv(2 * channels, 3)
        else:
            cfg.conv(channels)
    return cfg.at


def yolov4(folder: Path, size: int = 416) -> Path:
    """Write YOLOv4, its backbone with Mish, as `yolov4-SIZE`; return the weights' path."""
    cfg = Cfg(size, activation="mish")
    cfg.conv(32, 3)
    _, _, c3, c4, _ = [_csp_stage(cfg, channels, blocks) for channels, blocks in _DARKNET53]
    cfg.activate("leaky")
    p5 = _pyramid_pooled(cfg)
    p4 = _joined(cfg, c4, 256)
    p3 = _joined(cfg, c3, 128)
    cfg.conv(256, 3)
    cfg.head((0, 1, 2), _ANCHORS_4, CLASSES, gain=_GAIN_4, scale_x_y=1.2, **_GREEDY)
    down = p3
    for channels, earlier, mask, scale in ((256, p4, (3, 4, 5), 1.1), (512, p5, (6, 7, 8), 1.05)):
        cfg.route(down)
        cfg.conv(channels, 3, 2)
        cfg.route(cfg.at, earlier)
        down = _squeezed(cfg, channels, 5)
        cfg.conv(2 * channels, 3)
        cfg.head(mask, _ANCHORS_4, CLASSES, gain=_GAIN_4, scale_x_y=scale, **_GREEDY)
    return cfg.write(folder, f"yolov4-{size}", CLASSES)


_GREEDY = {"nms_kind": "greedynms", "beta_nms": 0.6}


def _csp_stage(cfg: Cfg, channels: int, blocks: int) -> int:
    """Halve the sides; half of the channels go through residual blocks, the others beside them."""
    inner = channels if blocks == 1 else channels // 2  # the first stage keeps them all
    start = cfg.conv(channels, 3, 2)
    beside = cfg.conv(inner)
    cfg.route(start)
    last = cfg.conv(inner)
    for _ in range(blocks):
        cfg.conv(inner // 2 if blocks == 1 else inner)
        cfg.conv(inner, 3, scale=_BRANCH)
        last = cfg.shortcut(last)
    cfg.conv(inner)
    cfg.route(cfg.at, beside)
    return cfg.conv(channels)


def _pyramid_pooled(cfg: Cfg) -> int:
    """Append the neck's first part: pools of three sizes beside one another; return the last layer's number."""
    source = _squeezed(cfg, 512, 3)
    pools = []
    for size in (5, 9, 13):
        pools.append(cfg.pool(size, 1))
        if size < 13:
            cfg.route(source)
    cfg.route(*reversed(pools), source)
    return _squeezed(cfg, 512, 3)


def _joined(cfg: Cfg, earlier: int, channels: int) -> int:
    """Append the last layer, made twice as large, beside an earlier one; return the number of what became of both."""
    cfg.conv(channels)
    large = cfg.upsample()
    cfg.route(earlier)
    small = cfg.conv(channels)
    cfg.route(small, large)
    return _squeezed(cfg, channels, 5)


def yolov4_tiny(folder: Path, size: int = 416) -> Path:
    """Write YOLOv4-tiny as `yolov4-tiny`; return the weights' path."""
    cfg = Cfg(size)
    cfg.conv(32, 3, 2)
    cfg.conv(64, 3, 2)
    early = 0
    for channels in (64, 128, 256):
        early = _tiny_block(cfg, channels)
    cfg.conv(512, 3)
    neck = cfg.conv(256)
    cfg.conv(512, 3)
    cfg.head((3, 4, 5), _ANCHORS_TINY, CLASSES, gain=_GAIN_TINY, scale_x_y=1.05, **_GREEDY)
    cfg.route(neck)
    cfg.conv(128)
    cfg.upsample()
    cfg.route(cfg.at, early)
    cfg.conv(256, 3)
    cfg.head((1, 2, 3), _ANCHORS_TINY, CLASSES, gain=_GAIN_TINY, scale_x_y=1.05, **_GREEDY)
    return cfg.write(folder, "yolov4-tiny", CLASSES)


def _tiny_block(cfg: Cfg, channels: int) -> int:
    """Half of the channels go through two convolutions, all go on beside them; return the last convolution's number."""
    first = cfg.conv(channels, 3)
    cfg.half()
    inner = cfg.conv(channels // 2, 3)
    outer = cfg.conv(channels // 2, 3)
    cfg.route(outer, inner)
    last = cfg.conv(channels)
    cfg.route(first, last)
    cfg.pool(2, 2)
    return last
