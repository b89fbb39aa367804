"""Each family of detectors, as a graph by hand that finds the same two things, whatever the image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from converters.onnx import graphs
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

HW = (64, 96)
PLACES = 96 + 24 + 6  # at strides of 8, 16 and 32
LABELS = ("cat", "dog", "cow")

# Class, score, and corners in pixels of the input.
FOUND = [(1, 0.9, (10.0, 20.0, 40.0, 60.0)), (0, 0.6, (50.0, 8.0, 90.0, 40.0))]
CORNERS = np.array([box for _, _, box in FOUND], np.float32)
SCORES = np.array([score for _, score, _ in FOUND], np.float32)
CLASSES = np.array([number for number, _, _ in FOUND])
SIDES = np.array([HW[1], HW[0], HW[1], HW[0]], np.float32)
CENTRES = np.concatenate([(CORNERS[:, :2] + CORNERS[:, 2:]) / 2, CORNERS[:, 2:] - CORNERS[:, :2]], 1)


_TAKES = {"NonMaxSuppression": "a_box a_score"}


@dataclass
class Case:
    """outputs: of one image, by name; beside: inputs beside the image, with their shapes."""

    family: str
    outputs: Mapping[str, NDArray[Any]]
    beside: Sequence[str] = ()
    image: str = "images"
    kind: int = TensorProto.FLOAT
    is_nhwc: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    operators: Sequence[str] = ()
    hw: tuple[int, int] = HW
    id: str = ""

    def model(self, opset: int = 17) -> ModelProto:
        shape = [1, *self.hw, 3] if self.is_nhwc else [1, 3, *self.hw]
        nodes = [
            graphs.node("Cast", self.image, "floats", to=TensorProto.FLOAT),
            graphs.node("ReduceMean", "floats", "mean", keepdims=0),
            graphs.node("Mul", "mean nothing", "zero"),  # so that all depends on the image
            *(graphs.node(operator, _TAKES.get(operator, "mean"), f"unused_{operator}") for operator in self.operators),
        ]
        constants = [graphs.constant("nothing", 0.0)]
        if "NonMaxSuppression" in self.operators:
            constants += [graphs.constant("a_box", [[[0, 0, 1, 1]]]), graphs.constant("a_score", [[[1]]])]
        for number, (name, array) in enumerate(self.outputs.items()):
            constants.append(graphs.constant(f"value_{number}", array.astype(np.float32)))
            to = helper.np_dtype_to_tensor_dtype(array.dtype)
            scaled = f"value_{number}"
            if name == "boxes" and self.beside == ("orig_target_sizes",):  # as its postprocessor does
                constants += [
                    graphs.constant("twice", [1, 1, 2], np.int64),
                    graphs.constant("flat", [1, 1, 2], np.int64),
                ]
                nodes += [
                    graphs.node("Cast", "orig_target_sizes", "sizes", to=TensorProto.FLOAT),
                    graphs.node("Reshape", "sizes flat", "size"),
                    graphs.node("Tile", "size twice", "sides"),
                    graphs.node("Mul", f"{scaled} sides", "in_pixels"),
                ]
                scaled = "in_pixels"
            nodes += [
                graphs.node("Add", f"{scaled} zero", f"sum_{number}"),
                graphs.node("Cast", f"sum_{number}", name, to=to),
            ]
        inputs = [graphs.value(self.image, shape, self.kind)]
        for name in self.beside:
            is_size = name == "orig_target_sizes"
            inputs.append(graphs.value(name, [1, 2], TensorProto.INT64 if is_size else TensorProto.FLOAT))
            if not is_size:
                nodes.append(graphs.node("ReduceMean", name, f"unused_{name}", keepdims=0))
        outputs = [
            graphs.value(name, None, helper.np_dtype_to_tensor_dtype(array.dtype))
            for name, array in self.outputs.items()
        ]
        for value, array in zip(outputs, self.outputs.values(), strict=True):
            value.CopyFrom(graphs.value(value.name, list(array.shape), value.type.tensor_type.elem_type))
        return graphs.model(nodes, constants, inputs, outputs, metadata=dict(self.metadata), opset=opset)


def each(array: NDArray[Any]) -> NDArray[Any]:
    return array[None]


def grid(rows: NDArray[Any], count: int = PLACES) -> NDArray[np.float32]:
    """Return the rows among others, in which there is nothing."""
    every = np.zeros((count, rows.shape[1]), np.float32)
    every[[30, 100]] = rows
    return every


ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES] * SCORES[:, None]
PLENTY = np.where(ONE_HOT > 0, np.log(np.maximum(ONE_HOT, 1e-9) / (1 - ONE_HOT)), -9).astype(np.float32)
# Of a softmax with "no object" last.
LOGITS = np.concatenate([np.where(ONE_HOT > 0, np.log(SCORES)[:, None], -20), np.log(1 - SCORES)[:, None]], 1)
OBJECT = np.concatenate([CENTRES, SCORES[:, None], np.eye(3)[CLASSES]], 1).astype(np.float32)


def raw_yolox() -> NDArray[np.float32]:
    """Return rows before the places and strides of their grids are counted in."""
    every = grid(OBJECT)
    places = [(x, y, stride) for stride in (8, 16, 32) for y in range(HW[0] // stride) for x in range(HW[1] // stride)]
    for row in (30, 100):
        x, y, stride = places[row]
        every[row, :2] = every[row, :2] / stride - (x, y)
        every[row, 2:4] = np.log(every[row, 2:4] / stride)
    return every


def logit(share: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.log(np.clip(share, 1e-4, None) / np.clip(1 - share, 1e-4, None)))


Change = Callable[[NDArray[Any]], NDArray[Any]]


def raw_heads(
    hw: tuple[int, int],
    anchors: Mapping[int, Sequence[tuple[float, float]]],
    *,
    reach: Mapping[int, float],
    centre: Change = logit,
    size: Change = np.log,
    objectness: Change = logit,
    classes: Change = logit,
) -> list[NDArray[Any]]:
    """Return heads [anchors, H, W, 5 + classes], in which each of what is found stands at a place of its own.

    anchors: by stride, in pixels; reach: how many places wide a centre's range is; centre, size, objectness, classes:
    from what is meant to what the network says, of shares of that range, shares of the anchor, and probabilities.
    """
    heads = []
    for number, (stride, sizes) in enumerate(anchors.items()):
        head = np.zeros((len(sizes), hw[0] // stride, hw[1] // stride, 5 + len(LABELS)))
        head[..., 4:] = objectness(np.zeros(1 + len(LABELS)))
        for row in range(len(FOUND)) if len(anchors) == 1 else range(number, min(number + 1, len(FOUND))):
            (x, y), anchor = CENTRES[row, :2] / stride, row + 1
            at = (np.array([x % 1, y % 1]) + (reach[stride] - 1) / 2) / reach[stride]
            share = CENTRES[row, 2:] / np.array(sizes[anchor])
            is_own = np.eye(len(LABELS))[CLASSES[row]]
            head[anchor, int(y), int(x)] = np.concatenate(
                [centre(at), size(share), objectness(SCORES[row : row + 1]), classes(is_own)]
            )
        heads.append(head)
    return heads


CASES = [
    Case(
        "rtdetr",
        {"labels": each(CLASSES), "boxes": each(CORNERS / SIDES), "scores": each(SCORES)},
        beside=("orig_target_sizes",),
    ),
    Case(
        "huggingface",
        {"logits": each(LOGITS), "pred_boxes": each(CENTRES / SIDES)},
        image="pixel_values",
        id="detr",
        options={"preprocess": "torch"},
    ),
    Case(
        "huggingface",
        {"logits": each(PLENTY), "pred_boxes": each(CENTRES / SIDES)},
        image="pixel_values",
        documents={
            "config.json": {"id2label": dict(enumerate(LABELS))},
            "preprocessor_config.json": {"do_normalize": False, "size": {"height": HW[0], "width": HW[1]}},
        },
        id="rt-detr",
    ),
    Case(
        "rfdetr", {"dets": each(CENTRES / SIDES), "labels": each(np.pad(PLENTY, ((0, 0), (0, 1)), constant_values=3))}
    ),
    Case(
        "mmdeploy",
        {"dets": each(np.concatenate([CORNERS, SCORES[:, None]], 1)), "labels": each(CLASSES)},
        options={"preprocess": "torch"},
    ),
    Case(
        "super-gradients",
        {
            "num_predictions": np.array([[2]]),
            "pred_boxes": each(CORNERS),
            "pred_scores": each(SCORES),
            "pred_classes": each(CLASSES),
        },
        kind=TensorProto.UINT8,
    ),
    Case(
        "super-gradients-flat",
        {
            "flat_predictions": np.concatenate(
                [np.zeros((2, 1)), CORNERS, SCORES[:, None], CLASSES[:, None]], 1
            ).astype("f")
        },
    ),
    Case(
        "tensorflow",
        {
            "detection_boxes:0": each((CORNERS / SIDES)[:, [1, 0, 3, 2]]),
            "detection_classes:0": each(CLASSES + 1).astype("f"),
            "detection_scores:0": each(SCORES),
            "num_detections:0": np.array([2.0], np.float32),
        },
        kind=TensorProto.UINT8,
        is_nhwc=True,
    ),
    Case(
        "azure",
        {"detected_boxes": each(CORNERS / SIDES), "detected_classes": each(CLASSES), "detected_scores": each(SCORES)},
        metadata={"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"},
    ),
    Case(
        "paddle",
        {
            "rows": np.concatenate([CLASSES[:, None], SCORES[:, None], CORNERS], 1).astype(np.float32),
            "count": np.array([2]),
        },
        beside=("im_shape", "scale_factor"),
        image="image",
    ),
    Case("torchvision", {"1": CORNERS, "2": SCORES, "3": CLASSES + 1}, image="input"),
    Case(
        "ultralytics-rtdetr",
        {"output0": each(np.concatenate([CENTRES / SIDES, SCORES[:, None], CLASSES[:, None]], 1).astype(np.float32))},
        metadata={"names": str(dict(enumerate(LABELS))), "task": "detect", "stride": "32", "head": "RTDETRDecoder"},
    ),
    Case(
        "ultralytics-rtdetr",
        {"output0": each(np.concatenate([CENTRES / SIDES, ONE_HOT], 1))},
        metadata={"names": str(dict(enumerate(LABELS))), "task": "detect", "description": "an RT-DETR"},
        id="all classes",
    ),
    Case("yolox", {"output": each(grid(OBJECT))}, operators=("Exp",), id="decoded"),
    Case("yolox", {"output": each(raw_yolox())}, id="raw"),
    Case(
        "yolov6", {"outputs": each(np.concatenate([grid(CENTRES), np.ones((PLACES, 1)), grid(ONE_HOT)], 1).astype("f"))}
    ),
    Case("yolo-grid", {"output": each(grid(OBJECT, 3 * PLACES))}, id="YOLOv7"),
    Case(
        "yolo-grid",
        {"output": each(grid(OBJECT, 3 * PLACES)), "345": np.zeros((1, 3, 8, 12, 8), np.float32)},
        id="YOLOv5 with its heads",
    ),
    Case(
        "yolov6-end2end",
        {
            "num_dets": np.array([[2]]),
            "det_boxes": each(np.pad(CORNERS, ((0, 1), (0, 0)))),
            "det_scores": each(np.pad(SCORES, (0, 1))),
            "det_classes": each(np.pad(CLASSES, (0, 1), constant_values=-1)),
        },
    ),
    Case("yolov8", {"output0": each(grid(np.concatenate([CENTRES, ONE_HOT], 1)).T)}),
    Case(
        "yolov10",
        {"output0": each(np.concatenate([CORNERS, SCORES[:, None], CLASSES[:, None]], 1).astype(np.float32))},
        options={"family": "yolov10"},
    ),
    Case(
        "yolov7-end2end",
        {
            "output": np.concatenate([np.zeros((2, 1)), CORNERS, CLASSES[:, None], SCORES[:, None]], 1).astype(
                np.float32
            )
        },
        operators=("NonMaxSuppression",),
    ),
]


ANY = "boxes"
CASES += [
    Case(ANY, {"a": each(CORNERS), "b": each(ONE_HOT)}, options={"family": ANY}, id="corners"),
    Case(
        ANY,
        {"boxes": each(CENTRES / SIDES), "logits": each(np.pad(PLENTY, ((0, 0), (1, 0)), constant_values=-9))},
        options={"family": ANY, "boxes": "cxcywhn", "scores": "sigmoid", "background": 0},
        id="centres, logits, background first",
    ),
    Case(
        ANY,
        {"boxes": each((CORNERS / SIDES)[:, [1, 0, 3, 2]]), "logits": each(LOGITS)},
        options={"family": ANY, "boxes": "yxyxn", "scores": "softmax", "background": -1},
        id="y first, softmax, background last",
    ),
]


def head_cases() -> Iterator[Case]:
    """Yield the families whose heads are not decoded."""
    of_yolov5: dict[int, Sequence[tuple[float, float]]] = {
        8: ((10, 13), (16, 30), (33, 23)),
        16: ((30, 61), (62, 45), (59, 119)),
        32: ((116, 90),) * 3,
    }
    of_four: dict[int, Sequence[tuple[float, float]]] = {
        8: ((19, 27), (44, 40), (38, 94)),
        16: ((96, 68), (86, 152), (180, 137)),
        32: ((9, 9),) * 3,
    }
    of_yolov4: dict[int, Sequence[tuple[float, float]]] = {
        8: ((12, 16), (19, 36), (40, 28)),
        16: ((36, 75), (76, 55), (72, 146)),
        32: ((9, 9),) * 3,
    }
    twice = dict.fromkeys((8, 16, 32, 64), 2.0)
    for family, hw, anchors in (
        ("yolov5-heads", HW, of_yolov5),
        ("yolov5-heads", (64, 128), {**of_four, 64: ((9, 9),) * 3}),
        ("yolov7-heads", HW, of_yolov4),
    ):
        heads = raw_heads(hw, anchors, reach=twice, size=lambda share: logit(np.sqrt(share) / 2))
        outputs = {f"output{number}": each(head).astype("f") for number, head in enumerate(heads)}
        yield Case(family, outputs, options={"family": family}, hw=hw, id=f"{len(heads)} heads")
    reach = {8: 1.2, 16: 1.1, 32: 1.05}
    heads = raw_heads(HW, of_yolov4, reach=reach, objectness=lambda x: x, classes=lambda x: x)
    outputs = {
        f"Identity_{number}:0": each(head.transpose(1, 2, 0, 3)).astype("f") for number, head in enumerate(heads)
    }
    yield Case("yolov4", outputs, is_nhwc=True, options={"family": "yolov4"})
    of_yolov2 = ((0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828))
    of_tiny = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
    of_azure = ((0.573, 0.677), (1.87, 2.06), (3.34, 5.47), (7.88, 3.53), (9.77, 9.17))
    shares = {"classes": lambda x: np.log(np.maximum(x, 1e-9))}
    for family, cells, centre, metadata in (
        ("yolov2", of_yolov2, logit, {}),
        ("tiny-yolov2", of_tiny, logit, {}),
        ("azure-compact", of_azure, lambda x: x, {"Image.BitmapPixelFormat": "Bgr8"}),
    ):
        in_pixels = {32: tuple((32 * width, 32 * height) for width, height in cells)}
        (head,) = raw_heads(HW, in_pixels, reach={32: 1.0}, centre=centre, **shares)
        flat = head.transpose(0, 3, 1, 2).reshape(1, -1, HW[0] // 32, HW[1] // 32)
        options = {} if metadata else {"family": family}
        yield Case(family, {"grid": flat.astype("f")}, metadata=metadata, options=options)


CASES += head_cases()
CASES.append(
    Case(
        "yolov3",
        {
            "boxes": each(np.concatenate([np.zeros((5, 4)), CORNERS])[:, [1, 0, 3, 2]]).astype("f"),
            "scores": each(np.concatenate([np.ones((5, 3)), ONE_HOT]).T).astype("f"),
            "chosen": np.array([[0, CLASSES[1], 6], [0, CLASSES[0], 5]]),
        },
        beside=("image_shape",),
        image="input_1",
    )
)
