"""What one writes in an afternoon: a loop over cv2.imread, resize, ONNX Runtime as it comes, NMS, draw, cv2.imwrite."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trtjob.engines.spec import BOXES_NAME, SCORES_NAME, ModelSpec


def float_model(path: Path, spec: ModelSpec) -> bytes:
    """Return a converted model with the usual input: float32 [1, C, H, W], 0 to 1; what came before it is cut off."""
    model = onnx.load(path)
    graph = model.graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    outputs = [value for value in graph.output if value.name in (BOXES_NAME, SCORES_NAME)]
    needed, keep = {value.name for value in outputs}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            keep.append(node)
            if node is not first:
                needed |= set(node.input)
    shape = [1, spec.channels, *spec.input_hw]
    values = [helper.make_tensor_value_info(first.input[0], TensorProto.FLOAT, shape)]
    names = {name for node in keep for name in node.input}
    cut = helper.make_graph(
        list(reversed(keep)), "plain", values, outputs, [i for i in graph.initializer if i.name in names]
    )
    plain = helper.make_model(cut, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(plain.SerializeToString())


class PlainLoop:
    """The loop, with the engine's defaults: all cores for one image at a time."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.spec = spec
        self.session = onnxruntime.InferenceSession(float_model(path, spec), providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def run(self, source: Path, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        records = [self._image(file, output) for file in sorted(source.iterdir())]
        (output / "results.json").write_text(json.dumps(records))

    def run_video(self, file: Path, step: int) -> list[dict[str, object]]:
        """Look at each step-th frame; nothing is drawn on."""
        video, number, records = cv2.VideoCapture(str(file)), 0, []
        while video.grab():
            if number % step == 0:
                _, image = video.retrieve()
                records.append({"frame": number, "detections": self._found(image)})
            number += 1
        return records

    def _image(self, file: Path, output: Path) -> dict[str, object]:
        image = cv2.imread(str(file))
        assert image is not None
        found = self._found(image)
        cv2.imwrite(str(output / file.name), image)
        return {"image": file.name, "detections": found}

    def _found(self, image: NDArray[Any]) -> list[dict[str, object]]:
        """Detect, and draw."""
        height, width = image.shape[:2]
        input_height, input_width = self.spec.input_hw
        resized = cv2.resize(image, (input_width, input_height))
        blob = np.ascontiguousarray(resized[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255)
        boxes, scores = self.session.run([BOXES_NAME, SCORES_NAME], {self.input: blob})
        best = scores[0].argmax(1)
        best_scores = scores[0].max(1)
        sure = best_scores > self.spec.conf
        corners = boxes[0][sure] * np.array([width / input_width, height / input_height] * 2, np.float32)
        sizes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        kept = cv2.dnn.NMSBoxesBatched(
            sizes.tolist(), best_scores[sure].tolist(), best[sure].tolist(), self.spec.conf, self.spec.iou
        )
        found = []
        for index in kept:
            x1, y1, x2, y2 = map(int, corners[index])
            label = self.spec.labels[best[sure][index]]
            cv2.rectangle(image, (x1, y1), (x2, y2), (0, 255, 0), 2)
            cv2.putText(image, label, (x1, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 255, 0), 2)
            found.append({"label": label, "score": float(best_scores[sure][index]), "box": [x1, y1, x2, y2]})
        return found
