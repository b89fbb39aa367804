"""TensorRT's own NMS at the end of a graph, which nothing else can run: what it takes is kept, for our NMS to work on.

plugin/efficientNMSPlugin in NVIDIA/TensorRT; YOLOv6, YOLOv7, YOLOv9, YOLO-NAS and EfficientDet export it.
"""

from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

from trtjob.converters.onnx.families.family import Described

_NODES = frozenset({"EfficientNMS_TRT"})
_CENTRES = 1  # of box_coding; 0: corners


def cut_nms_plugin(model: ModelProto) -> Described | None:
    """Take such a node off the end of a graph, which gives its boxes and scores then. None: there is none."""
    node = next((node for node in model.graph.node if node.op_type in _NODES), None)
    if node is None or len(node.input) < 2:
        return None
    said = _attributes(node)
    boxes, scores = node.input[:2]
    model.graph.node.remove(node)
    del model.graph.output[:]
    for name, size in ((boxes, 4), (scores, "classes")):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "K", size]))
    return Described(
        boxes="cxcywh" if said.get("box_coding") == _CENTRES else "xyxy",
        scores="sigmoid" if said.get("score_activation") else None,
        background=0 if said.get("background_class") == 0 else None,
        iou=_share(said.get("iou_threshold")),
        is_told=True,
    )


def _share(value: Any) -> float:
    """Return a threshold, the usual one where it is none."""
    return round(value, 6) if isinstance(value, float) and 0 < value <= 1 else Described().iou


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
