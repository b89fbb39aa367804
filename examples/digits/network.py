"""The network of a Darknet cfg as a PyTorch module: only the layers that digits.cfg uses, with Darknet's arithmetic."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LEAKY_SLOPE = 0.1
HEADER_VERSION = (0, 2, 5)  # major, minor, revision: from 0.2 on, `seen` is 64 bits wide


@dataclass(frozen=True, slots=True)
class Section:
    """A `[section]` of a cfg with its options as text."""

    kind: str
    options: dict[str, str]

    def integer(self, name: str, default: int = 0) -> int:
        return int(self.options.get(name, default))

    def numbers(self, name: str) -> list[float]:
        return [float(number) for number in self.options[name].split(",")]


@dataclass(frozen=True, slots=True)
class Head:
    """A `[yolo]` layer. anchors: float32 [A, 2], width and height in pixels of the network input."""

    anchors: Tensor
    stride: int
    classes: int
    scale_xy: float


def read_cfg(path: Path) -> list[Section]:
    """Parse a cfg; a line that starts with # is a comment."""
    sections: list[Section] = []
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.replace(" ", "")
        if line.startswith("["):
            sections.append(Section(line.strip("[]"), {}))
        elif line and not line.startswith("#"):
            name, value = line.split("=")
            sections[-1].options[name] = value
    return sections


class DarknetNetwork(nn.Module):
    """Takes float32 [N, 3, H, W], RGB in 0..1; gives for each head its raw map [N, A, 5 + classes, rows, columns]."""

    def __init__(self, cfg: Path) -> None:
        super().__init__()
        net, *self.sections = read_cfg(cfg)
        self.input_hw = (net.integer("height"), net.integer("width"))
        self.layers = nn.ModuleList()
        self.heads: list[Head] = []
        shapes: list[tuple[int, int]] = []  # channels and stride of each layer's output
        for index, section in enumerate(self.sections):
            before = shapes[-1] if shapes else (net.integer("channels"), 1)
            layer, shape = self._build(section, index, before, shapes)
            self.layers.append(layer)
            shapes.append(shape)

    def _build(
        self, section: Section, index: int, before: tuple[int, int], shapes: list[tuple[int, int]]
    ) -> tuple[nn.Module, tuple[int, int]]:
        channels, stride = before
        match section.kind:
            case "convolutional":
                filters, step = section.integer("filters"), section.integer("stride", 1)
                return _convolution(section, channels), (filters, stride * step)
            case "maxpool":
                return nn.MaxPool2d(2, 2), (channels, stride * 2)
            case "upsample":
                return nn.Upsample(scale_factor=2, mode="nearest"), (channels, stride // 2)
            case "shortcut":
                return nn.Identity(), before
            case "route":
                sources = [shapes[source] for source in _sources(section, index)]
                return nn.Identity(), (sum(source[0] for source in sources), sources[0][1])
            case "yolo":
                self.heads.append(_head(section, stride))
                return nn.Identity(), before
            case other:
                raise ValueError(f"layer {index}: this example knows no [{other}]")

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        raw_maps: list[Tensor] = []
        x = images
        for index, (section, layer) in enumerate(zip(self.sections, self.layers, strict=True)):
            if section.kind == "route":
                x = torch.cat([outputs[source] for source in _sources(section, index)], dim=1)
            elif section.kind == "shortcut":
                x = x + outputs[index + section.integer("from")]
            elif section.kind == "yolo":
                head = self.heads[len(raw_maps)]
                raw_maps.append(x.reshape(len(x), len(head.anchors), 5 + head.classes, *x.shape[2:]))
            else:
                x = layer(x)
            outputs.append(x)
        return raw_maps


def _convolution(section: Section, channels: int) -> nn.Sequential:
    filters, size = section.integer("filters"), section.integer("size")
    normalized = bool(section.integer("batch_normalize"))
    parts: list[nn.Module] = [
        nn.Conv2d(channels, filters, size, section.integer("stride", 1), size // 2, bias=not normalized)
    ]
    if normalized:
        parts.append(nn.BatchNorm2d(filters, eps=1e-5))
    if section.options["activation"] == "leaky":
        parts.append(nn.LeakyReLU(LEAKY_SLOPE))
    return nn.Sequential(*parts)


def _sources(section: Section, index: int) -> list[int]:
    """Return the absolute numbers of the layers that a route reads; a negative one counts back from here."""
    named = [int(number) for number in section.numbers("layers")]
    return [number if number >= 0 else index + number for number in named]


def _head(section: Section, stride: int) -> Head:
    anchors = torch.tensor(section.numbers("anchors")).reshape(-1, 2)
    mask = [int(number) for number in section.numbers("mask")]
    return Head(anchors[mask], stride, section.integer("classes"), float(section.options.get("scale_x_y", 1)))


def decode_boxes(raw: Tensor, head: Head) -> Tensor:
    """Return the boxes of a raw map: [N, A, rows, columns, 4], xyxy in pixels of the network input."""
    rows, columns = raw.shape[-2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    offset = torch.sigmoid(raw[:, :, :2]) * head.scale_xy - (head.scale_xy - 1) / 2
    center = (offset + torch.stack([x, y])) * head.stride
    half = torch.exp(raw[:, :, 2:4]) * head.anchors[:, :, None, None] / 2
    return torch.cat([center - half, center + half], dim=2).permute(0, 1, 3, 4, 2)


def save_weights(net: DarknetNetwork, path: Path, *, seen: int) -> None:
    """Write Darknet's format: a header, then for each convolution bias, [scale, mean, variance], weights.

    seen: the number of images trained on, which the header keeps.
    """
    with path.open("wb") as file:
        file.write(np.array(HEADER_VERSION, dtype="<i4").tobytes())
        file.write(np.array([seen], dtype="<i8").tobytes())
        for values in _in_file_order(net):
            file.write(values.detach().numpy().astype("<f4").tobytes())


def load_weights(net: DarknetNetwork, path: Path) -> None:
    """Read what `save_weights` wrote. Raises ValueError where the file does not fit the network exactly."""
    stored = np.frombuffer(path.read_bytes()[20:], dtype="<f4")
    tensors = _in_file_order(net)
    if len(stored) != sum(values.numel() for values in tensors):
        raise ValueError(f"{path} holds {len(stored)} numbers, the network {sum(values.numel() for values in tensors)}")
    position = 0
    for values in tensors:
        part = stored[position : position + values.numel()]
        values.data.copy_(torch.from_numpy(part.copy()).reshape(values.shape))
        position += values.numel()


def _in_file_order(net: DarknetNetwork) -> list[Tensor]:
    tensors: list[Tensor] = []
    for layer in net.layers:
        if not isinstance(layer, nn.Sequential):
            continue
        convolution, *rest = layer
        assert isinstance(convolution, nn.Conv2d)
        if rest and isinstance(norm := rest[0], nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018 - one fact: it has statistics
            tensors += [norm.bias, norm.weight, norm.running_mean, norm.running_var]
        else:
            assert convolution.bias is not None
            tensors.append(convolution.bias)
        tensors.append(convolution.weight)
    return tensors


def stretch(image: NDArray[np.uint8], hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize as Darknet does: bilinear, the corner pixels' centres on the corners, the aspect ratio not kept."""
    scale_y, scale_x = ((old - 1) / (new - 1) for old, new in zip(image.shape[:2], hw, strict=True))
    matrix = np.array([[scale_x, 0, 0], [0, scale_y, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, hw[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
