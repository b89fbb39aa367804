"""Detectors with raw heads, and the anchors that were published with them.

models/yolo.py and models/*.yaml in ultralytics/yolov5 and WongKinYiu/yolov7 (cfg/deploy/*.yaml); the READMEs of
yolov2-coco, tiny-yolov2 and yolov4 in onnx/models; cfg/yolov2.cfg and yolov2-tiny-voc.cfg in pjreddie/darknet.
"""

from trtjob.converters.onnx.families.family import Contract, Family, Seen
from trtjob.converters.onnx.families.heads import Anchors, Heads
from trtjob.converters.pixels import pixels_of_mode, unit_pixels
from trtjob.engines.spec import ResizeMode

# Of YOLOv5 and of YOLOv7-tiny; with four heads of both.
_OF_YOLOV5: Anchors = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}
_OF_FOUR: Anchors = {
    8: ((19, 27), (44, 40), (38, 94)),
    16: ((96, 68), (86, 152), (180, 137)),
    32: ((140, 301), (303, 264), (238, 542)),
    64: ((436, 615), (739, 380), (925, 792)),
}
# Of YOLOv4, YOLOv7 and YOLOv7-X.
_OF_YOLOV4: Anchors = {
    8: ((12, 16), (19, 36), (40, 28)),
    16: ((36, 75), (76, 55), (72, 146)),
    32: ((142, 110), (192, 243), (459, 401)),
}
_STRIDE_OF_YOLOV2 = 32
_OF_YOLOV2 = (0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828)
_OF_TINY_YOLOV2 = (1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52)
_GREY = 128  # around an image
_COCO, _VOC = 80, 20  # classes
_ZOO_OUTPUT = "grid"


def in_pixels(cells: tuple[tuple[float, float], ...]) -> Anchors:
    """Return YOLOv2's anchors, which are written in cells of 32 pixels."""
    return {
        _STRIDE_OF_YOLOV2: tuple((width * _STRIDE_OF_YOLOV2, height * _STRIDE_OF_YOLOV2) for width, height in cells)
    }


def _published(seen: Seen) -> str | None:
    """Return what to say where the user gives no anchors."""
    if seen.described.anchors:
        return None
    return (
        "Its heads are decoded with the anchors that were published, which are not in the file. Where training has "
        "chosen others, boxes have the wrong size: give them with --anchors."
    )


def _letterbox(seen: Seen) -> Contract:
    return Contract(unit_pixels(seen.channels), ResizeMode.LETTERBOX, assumed=_published(seen))


def _yolov5_heads(*anchors: Anchors) -> Heads:
    reach = dict.fromkeys((4, 8, 16, 32, 64, 128), 2.0)
    return Heads(anchors, "anchors first", reach, size="square")


_YOLOV5, _YOLOV7 = _yolov5_heads(_OF_YOLOV5, _OF_FOUR), _yolov5_heads(_OF_YOLOV4)
YOLOV5_HEADS = Family(
    name="yolov5-heads",
    title="YOLOv5, YOLOv7-tiny and both with four heads, exported without --grid",
    gives="three or four heads [N, 3, H, W, 5 + classes]",
    needs="--labels, and --anchors where training has chosen them anew; of what is exported with --grid neither",
    fits=_YOLOV5.fits,
    recognises=lambda seen: bool(seen.described.anchors) and _YOLOV5.fits(seen),
    describe=_letterbox,
    anchors=_YOLOV5.anchors_in,
    classes=_YOLOV5.count,
    rewire=_YOLOV5.rewire,
    read=_YOLOV5.read,
)
YOLOV7_HEADS = Family(
    name="yolov7-heads",
    title="YOLOv7 and YOLOv7-X, exported without --grid",
    gives="three heads [N, 3, H, W, 5 + classes]",
    needs=YOLOV5_HEADS.needs,
    fits=_YOLOV7.fits,
    describe=_letterbox,
    anchors=_YOLOV7.anchors_in,
    classes=_YOLOV7.count,
    rewire=_YOLOV7.rewire,
    read=_YOLOV7.read,
)

# Its objectness and classes are scores in the graph already.
_YOLOV4 = Heads((_OF_YOLOV4,), "anchors last", {8: 1.2, 16: 1.1, 32: 1.05}, objectness="none", classes="none")


def _is_yolov4(seen: Seen) -> bool:
    return _YOLOV4.fits(seen) and all(x[..., 4:].min() >= 0 and x[..., 4:].max() <= 1 for x in seen.outputs.values())


YOLOV4 = Family(
    name="yolov4",
    title="YOLOv4 of the ONNX model zoo",
    gives="three heads [N, H, W, 3, 5 + classes]",
    needs="--labels, and --anchors where they are its own",
    anchors=_YOLOV4.anchors_in,
    fits=_is_yolov4,
    recognises=lambda seen: _is_yolov4(seen) and _YOLOV4.count(seen) == _COCO,
    describe=lambda seen: Contract(
        unit_pixels(seen.channels),
        ResizeMode.LETTERBOX,
        pad_value=_GREY,
        iou=0.213,
        assumed=None if _YOLOV4.count(seen) == _COCO else _published(seen),
    ),
    classes=_YOLOV4.count,
    rewire=_YOLOV4.rewire,
    read=_YOLOV4.read,
)

_YOLOV2, _TINY = (
    Heads((in_pixels(anchors),), "in channels", {}, classes="softmax", is_in_cells=True)
    for anchors in (_OF_YOLOV2, _OF_TINY_YOLOV2)
)


def _describe_tiny(seen: Seen) -> Contract:
    guess: str | None = (
        "Pixels are taken as they are, for the model zoo's file scales them itself. That is a guess: where yours does "
        "not, use --preprocess unit."
    )
    pixels = pixels_of_mode("none", seen.channels)
    if _ZOO_OUTPUT in seen.outputs:
        guess = None
    return Contract(pixels, ResizeMode.STRETCH, guess=guess, assumed=None if guess is None else _published(seen))


YOLOV2 = Family(
    name="yolov2",
    title="YOLOv2 for COCO, of the ONNX model zoo",
    gives="one head [N, 5 * (5 + classes), H / 32, W / 32]",
    needs="--labels, and --anchors, in cells of 32 pixels, where they are its own",
    anchors=_YOLOV2.anchors_in,
    fits=_YOLOV2.fits,
    recognises=lambda seen: _YOLOV2.fits(seen) and _YOLOV2.count(seen) == _COCO,
    describe=lambda seen: Contract(
        unit_pixels(seen.channels),
        ResizeMode.STRETCH,
        assumed=None if _YOLOV2.count(seen) == _COCO else _published(seen),
    ),
    classes=_YOLOV2.count,
    rewire=_YOLOV2.rewire,
    read=_YOLOV2.read,
)
TINY_YOLOV2 = Family(
    name="tiny-yolov2",
    title="Tiny YOLOv2 for VOC, of the ONNX model zoo",
    gives=YOLOV2.gives,
    needs="--labels; --preprocess unit where pixels are not scaled in the graph; --anchors as for yolov2",
    anchors=_TINY.anchors_in,
    fits=_TINY.fits,
    recognises=lambda seen: _TINY.fits(seen) and _TINY.count(seen) == _VOC and _ZOO_OUTPUT in seen.outputs,
    describe=_describe_tiny,
    classes=_TINY.count,
    rewire=_TINY.rewire,
    read=_TINY.read,
)
