"""Darknet in plain NumPy: what its networks answer for one image, as a measure for the converter.

It shares nothing with the converter. Every layer is written from what Darknet's own source does for it (AlexeyAB's,
and for shortcuts between sizes pjreddie's); the docstrings name the function. Values are float64, images [C, H, W].
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BATCH_NORM_EPS = 1e-5  # blas.c, normalize_cpu
NORMALIZER_EPS = 1e-4  # of channels' and shortcut weights' sums: activations.c, network.c
SHORTCUT_WEIGHT_MIN = 1e-3  # network.c, lrelu: what is loaded for inference is not blas.c's relu


@dataclass(frozen=True)
class Section:
    """One section of a cfg. Numbers end where C's atoi and atof see their end."""

    kind: str
    options: dict[str, str]

    def text(self, name: str, default: str) -> str:
        return self.options.get(name, default)

    def integer(self, name: str, default: int) -> int:
        return int(_prefix(r"[+-]?\d+", self.options[name])) if name in self.options else default

    def number(self, name: str, default: float) -> float:
        return _float(self.options[name]) if name in self.options else default

    def numbers(self, name: str) -> list[float]:
        return [_float(item) for item in self.text(name, "").partition("#")[0].split(",") if item]

    def integers(self, name: str) -> list[int]:
        return [int(number) for number in self.numbers(name)]


def _prefix(pattern: str, text: str) -> str:
    match = re.match(pattern, text)
    return match[0] if match else "0"


def _float(text: str) -> float:
    return float(_prefix(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text))


ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "local_avg": "local_avgpool",
    "lrn": "normalization",
    "soft": "softmax",
    "silence": "empty",
}


def sections_of(cfg: str) -> list[Section]:
    """Read a cfg: blanks mean nothing, `#` and `;` begin a comment line, the first of several equal keys counts."""
    sections: list[Section] = []
    for line in ("".join(line.split()) for line in cfg.splitlines()):
        if line.startswith("["):
            name = line.strip("[]")
            sections.append(Section(ALIASES.get(name, name), {}))
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            sections[-1].options.setdefault(key, value)
    return sections


class Numbers(Protocol):
    """Where a network's weights come from, in the order of the file.

    transposed: whether the kernels of connected layers are [inputs, outputs].
    """

    transposed: bool

    def take(self, what: str, *shape: int) -> Array: ...


class FileNumbers:
    """The numbers of a weights file (parser.c, load_weights_upto)."""

    def __init__(self, content: bytes) -> None:
        major, minor, _ = np.frombuffer(content, "<i4", 3).tolist()
        self.transposed = major > 1000 or minor > 1000
        header = 12 + (8 if major * 10 + minor >= 2 else 4)
        self.left = np.frombuffer(content, "<f4", offset=header)

    def take(self, what: str, *shape: int) -> Array:
        count = int(np.prod(shape))
        assert count <= len(self.left), f"the file ends within {what}"
        taken, self.left = self.left[:count], self.left[count:]
        return taken.reshape(shape).astype(np.float64)


def logistic(x: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(x / 2)


def softmax(x: Array, axis: int = -1) -> Array:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True), np.float64)


def elu(x: Array) -> Array:
    return np.where(x >= 0, x, np.expm1(np.minimum(x, 0)))


def stair(x: Array) -> Array:
    steps = np.floor(x)
    return np.where(steps % 2 == 0, np.floor(x / 2), x - steps + np.floor(x / 2))


def plse(x: Array) -> Array:
    return np.where(x < -4, 0.01 * (x + 4), np.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5))


def normalize_channels(x: Array) -> Array:
    positive = np.maximum(x, 0)
    return np.asarray(positive / (NORMALIZER_EPS + positive.sum(0)), np.float64)


def normalize_channels_softmax(x: Array, largest: Array | float = 0.0) -> Array:
    powers = np.exp(x - largest)
    return np.asarray(powers / (NORMALIZER_EPS + powers.sum(0)), np.float64)


# activations.h and activations.c, of channels first. Where Darknet on a CPU forgets one (relu6) and gives zeros, this
# is what it does on a GPU.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "logistic": logistic,
    "loggy": lambda x: 2 * logistic(x) - 1,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": elu,
    "selu": lambda x: 1.0507 * np.where(x >= 0, x, 1.6732 * elu(x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "relie": lambda x: np.where(x > 0, x, 0.01 * x),
    "ramp": lambda x: np.maximum(x, 0) + 0.1 * x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "revleaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "tanh": np.tanh,
    "plse": plse,
    "stair": stair,
    "hardtan": lambda x: np.clip(x, -1, 1),
    "lhtan": lambda x: np.where(x < 0, 0.001 * x, np.where(x > 1, 0.001 * (x - 1) + 1, x)),
    "swish": lambda x: x * logistic(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "hard_mish": lambda x: np.where(x > 0, x, np.where(x > -2, x * x / 2 + x, 0)),
    "normalize_channels": normalize_channels,
    "normalize_channels_softmax": normalize_channels_softmax,
    "normalize_channels_softmax_maxval": lambda x: normalize_channels_softmax(x, x.max(0)),
}


def activated(x: Array, section: Section, default: str) -> Array:
    return ACTIVATIONS[section.text("activation", default)](x)


@dataclass(frozen=True)
class Detections:
    """What a detector sees, before any threshold and suppression.

    cxcywh: [N, 4], relative to the image; objectness: [N]; scores: [N, classes], the objectness in them.
    """

    cxcywh: Array
    objectness: Array
    scores: Array


@dataclass
class Network:
    """A network on its way through one image: each layer is computed as soon as it is added."""

    numbers: Numbers
    image: Array
    files: Mapping[str, str] = field(default_factory=dict)  # what is in those that the cfg names
    sections: list[Section] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list)
    kernels: dict[int, tuple[Array, Array]] = field(default_factory=dict)  # of convolutions, batch norm folded in
    heads: list[Detections] = field(default_factory=list)

    @property
    def x(self) -> Array:
        """What the next layer reads."""
        return self.outputs[-1] if self.outputs else self.image

    def add(self, section: Section) -> None:
        output = LAYERS[section.kind](self, section, self.x)
        self.sections.append(section)
        self.outputs.append(output)

    def index(self, number: int) -> int:
        """Return which layer is meant by an option of the next one: from the beginning, or backwards from here."""
        return number if number >= 0 else len(self.outputs) + number

    def output(self, number: int) -> Array:
        return self.outputs[self.index(number)]

    def detections(self) -> Detections:
        return Detections(
            np.concatenate([head.cxcywh for head in self.heads]),
            np.concatenate([head.objectness for head in self.heads]),
            np.concatenate([head.scores for head in self.heads]),
        )

    def probabilities(self) -> Array:
        """What a classifier answers: the last output that is no cost's (network.c, get_network_output)."""
        layers = zip(self.sections, self.outputs, strict=True)
        section, output = [layer for layer in layers if layer[0].kind != "cost"][-1]
        if not (parents := parents_of(self, section)):
            return output.ravel()
        # classifier.c: only predict_classifier of AlexeyAB's shows what has children, too.
        return np.where(np.isin(np.arange(output.size), parents), 0, along_tree(output.ravel(), parents))


def run_darknet(
    cfg: str, numbers: Numbers, image: NDArray[np.uint8], files: Mapping[str, str] | None = None
) -> Network:
    """Run a network on an image of its own size, uint8 [H, W, C] in its own colour order."""
    _, *sections = sections_of(cfg)
    net = Network(numbers, image.transpose(2, 0, 1) / 255, files or {})
    for section in sections:
        net.add(section)
    return net


def run_file(cfg: Path, weights: Path, image: NDArray[np.uint8]) -> Network:
    """Run a network from its files. Every number of the weights must have its place."""
    numbers = FileNumbers(weights.read_bytes())
    net = run_darknet(cfg.read_text(), numbers, image)
    assert not len(numbers.left)
    return net


def windows(
    x: Array,
    size: int,
    stride: tuple[int, int],
    origin: int,
    out_hw: tuple[int, int],
    *,
    dilation: int = 1,
    fill: float,
) -> Array:
    """Return what each output sees of [C, H, W]: [C, size, size, *out_hw]. Strides are (y, x).

    origin: the place of the first window's corner in the image, negative where it is outside, which is `fill`.
    """
    channels, *hw = x.shape
    ends = [(out - 1) * step + (size - 1) * dilation + 1 for out, step in zip(out_hw, stride, strict=True)]
    padded = np.full((channels, *(max(end, side - origin) for end, side in zip(ends, hw, strict=True))), fill)
    padded[:, -origin : hw[0] - origin, -origin : hw[1] - origin] = x
    seen = np.empty((channels, size, size, *out_hw))
    for row in range(size):
        for column in range(size):
            top, left = row * dilation, column * dilation
            shifted = padded[:, top :: stride[0], left :: stride[1]]
            seen[:, row, column] = shifted[:, : out_hw[0], : out_hw[1]]
    return seen


def strides(section: Section) -> tuple[int, int]:
    """Return the strides, (y, x)."""
    stride = section.integer("stride", 1)
    return section.integer("stride_y", stride), section.integer("stride_x", stride)


def output_hw(x: Array, size: int, stride: tuple[int, int], padding: int) -> tuple[int, int]:
    """Return how many windows there are; padding: that of both sides together."""
    height, width = ((side + padding - size) // step + 1 for side, step in zip(x.shape[1:], stride, strict=True))
    return height, width


def convolutional(net: Network, section: Section, x: Array) -> Array:
    """parser.c, parse_convolutional; convolutional_layer.c, forward_convolutional_layer; im2col.c, im2col_cpu_ext."""
    filters, size, groups = section.integer("filters", 1), section.integer("size", 1), section.integer("groups", 1)
    dilation = section.integer("dilation", 1) if size > 1 else 1
    padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
    stride = strides(section)
    # The size of the output knows nothing of the dilation.
    out_hw = output_hw(x, size, stride, 2 * padding)
    kernels, bias = convolution_kernels(net, section, filters * x.shape[0] // groups * size * size)
    seen = windows(x, size, stride, -padding * dilation, out_hw, dilation=dilation, fill=0.0)
    products = kernels.reshape(groups, filters // groups, -1) @ seen.reshape(groups, -1, out_hw[0] * out_hw[1])
    return activated(products.reshape(filters, *out_hw) + bias[:, None, None], section, "logistic")


def convolution_kernels(net: Network, section: Section, count: int) -> tuple[Array, Array]:
    """Return the kernels, flat, and the biases, which may be another layer's.

    Those have that layer's batch norm in them already (network.c, fuse_conv_batchnorm), and the layer's own
    `batch_normalize` means nothing.
    """
    filters = section.integer("filters", 1)
    if "share_index" in section.options:
        kernels, bias = net.kernels[net.index(section.integer("share_index", 0))]
        assert kernels.size == count
    else:
        bias, norm = net.numbers.take("bias", filters), None
        if section.integer("batch_normalize", 0) or section.integer("cbn", 0):
            norm = [net.numbers.take(what, filters) for what in ("scale", "mean", "variance")]
        kernels = net.numbers.take("kernels", filters, count // filters)
        if section.integer("flipped", 0):
            kernels = kernels.reshape(-1, filters).T
        if norm:
            factor, bias = folded(bias, *norm)
            kernels = kernels * factor[:, None]
    net.kernels[len(net.outputs)] = kernels, bias
    return kernels, bias


def folded(bias: Array, scale: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Return a batch norm's factor and summand (blas.c, normalize_cpu; then scale_bias and add_bias)."""
    factor = scale / np.sqrt(variance + BATCH_NORM_EPS)
    return factor, bias - mean * factor


def connected(net: Network, section: Section, x: Array) -> Array:
    """parser.c, load_connected_weights: unlike a convolution's, its kernels come before the batch norm."""
    count = section.integer("output", 1)
    bias = net.numbers.take("bias", count)
    if net.numbers.transposed:
        kernels = net.numbers.take("kernels", x.size, count).T
    else:
        kernels = net.numbers.take("kernels", count, x.size)
    output = kernels @ x.ravel()
    if section.integer("batch_normalize", 0):
        factor, bias = folded(bias, *(net.numbers.take(what, count) for what in ("scale", "mean", "variance")))
        output = output * factor
    return activated((output + bias).reshape(-1, 1, 1), section, "logistic")


def local(net: Network, section: Section, x: Array) -> Array:
    """local_layer.c: a convolution with kernels of its own for every place. `pad` is a number of pixels here."""
    filters, size, stride = section.integer("filters", 1), section.integer("size", 1), section.integer("stride", 1)
    pad = section.integer("pad", 0)
    height, width = ((side - (1 if pad else size)) // stride + 1 for side in x.shape[1:])
    bias = net.numbers.take("bias", filters, height, width)
    kernels = net.numbers.take("kernels", height * width, filters, x.shape[0] * size * size)
    seen = windows(x, size, (stride, stride), -pad, (height, width), fill=0.0)
    output = np.einsum("lnk,kl->nl", kernels, seen.reshape(-1, height * width))
    return activated(output.reshape(bias.shape) + bias, section, "logistic")


def batchnorm(net: Network, section: Section, x: Array) -> Array:
    """parser.c, load_batchnorm_weights."""
    factor, summand = folded(*(net.numbers.take(what, len(x)) for what in ("bias", "scale", "mean", "variance")))
    return x * factor[:, None, None] + summand[:, None, None]


def implicit(net: Network, section: Section, x: Array) -> Array:
    """representation_layer.c: learned numbers, whatever the image."""
    filters, atoms = section.integer("filters", 128), section.integer("atoms", 1)
    return net.numbers.take("values", filters, atoms, 1)


def shortcut(net: Network, section: Section, x: Array) -> Array:
    added = [net.output(number) for number in section.integers("from")]
    factors = shortcut_factors(net, section, 1 + len(added), len(x))
    output = x * factors[0]
    for other, factor in zip(added, factors[1:], strict=True):
        if other.shape[1:] == x.shape[1:]:
            channels = min(len(x), len(other))
            output[:channels] += (factor * np.ones_like(x))[:channels] * other[:channels]
        else:
            add_strided(output, other)
    return activated(output, section, "linear")


def shortcut_factors(net: Network, section: Section, count: int, channels: int) -> list[Array]:
    """Return what each input is multiplied by (parser.c, parse_shortcut; network.c, fuse_conv_batchnorm)."""
    match section.text("weights_type", "none"):
        case "none":
            return [np.ones(1)] * count
        case "per_channel":
            weights = net.numbers.take("factors", count, channels, 1, 1)
        case _:  # per_feature and per_layer are the same
            weights = net.numbers.take("factors", count, 1, 1, 1)
    if section.text("weights_normalization", "none") == "softmax":
        weights = np.exp(weights - weights.max(0))
        weights = weights / (NORMALIZER_EPS + weights.sum(0))
    elif section.text("weights_normalization", "none") in ("relu", "avg_relu"):
        weights = np.maximum(weights, SHORTCUT_WEIGHT_MIN)
        weights = weights / (NORMALIZER_EPS + weights.sum(0))
    return list(weights)


def add_strided(output: Array, other: Array) -> None:
    """Add an output of another size in place (pjreddie's blas.c, shortcut_cpu).

    Of a larger one every n-th value is read; of a smaller one each value goes to every n-th place.
    """
    channels, height, width = (min(a, b) for a, b in zip(output.shape, other.shape, strict=True))
    stride, sample = max(1, other.shape[2] // output.shape[2]), max(1, output.shape[2] // other.shape[2])
    read = other[:channels, ::stride, ::stride][:, :height, :width]
    output[:channels, ::sample, ::sample][:, :height, :width] += read


def pool_windows(section: Section, x: Array) -> Array:
    """Return what each output of a pooling sees, NaN outside the image (maxpool_layer.c, make_maxpool_layer).

    `padding` is that of both sides together; the odd one is on the right and at the bottom.
    """
    size = section.integer("size", section.integer("stride", 1))
    padding, stride = section.integer("padding", size - 1), strides(section)
    return windows(x, size, stride, -(padding // 2), output_hw(x, size, stride, padding), fill=np.nan)


def maxpool(net: Network, section: Section, x: Array) -> Array:
    if section.integer("maxpool_depth", 0):
        count = section.integer("out_channels", 1)
        return np.stack([x[first::count].max(0) for first in range(count)])
    return np.asarray(np.nanmax(pool_windows(section, x), axis=(1, 2)), np.float64)


def local_avgpool(net: Network, section: Section, x: Array) -> Array:
    """maxpool_layer.c, forward_local_avgpool_layer: the mean of what is inside the image."""
    return np.asarray(np.nanmean(pool_windows(section, x), axis=(1, 2)), np.float64)


def avgpool(net: Network, section: Section, x: Array) -> Array:
    return np.asarray(x.mean((1, 2), keepdims=True), np.float64)


def upsample(net: Network, section: Section, x: Array) -> Array:
    """blas.c, upsample_cpu. A negative stride sums up what a positive one would repeat."""
    stride, scale = section.integer("stride", 2), section.number("scale", 1.0)
    if stride > 0:
        return scale * x.repeat(stride, 1).repeat(stride, 2)
    channels, height, width = x.shape
    blocks = x.reshape(channels, height // -stride, -stride, width // -stride, -stride)
    return np.asarray(scale * blocks.sum((2, 4)), np.float64)


def route(net: Network, section: Section, x: Array) -> Array:
    """route_layer.c: of several inputs, each gives its own group."""
    groups, group = section.integer("groups", 1), section.integer("group_id", 0)
    inputs = [net.output(number) for number in section.integers("layers")]
    return np.concatenate([np.split(one, groups)[group] for one in inputs])


def scale_channels(net: Network, section: Section, x: Array) -> Array:
    """scale_channels_layer.c: x is one factor for each channel or, with `scale_wh`, for each place."""
    return activated(x * net.output(section.integer("from", -1)), section, "linear")


def sam(net: Network, section: Section, x: Array) -> Array:
    return activated(x * net.output(section.integer("from", -1)), section, "linear")


def reorg_places(channels: int, height: int, width: int, stride: int) -> NDArray[np.intp]:
    """Return where in the flat large image each value of the small one, [channels, height, width], is.

    blas.c, reorg_cpu. The large one has `channels` / `stride`^2 channels.
    """
    c, y, x = np.meshgrid(np.arange(channels), np.arange(height), np.arange(width), indexing="ij")
    block, c = c // (channels // stride**2), c % (channels // stride**2)
    y, x = y * stride + block // stride, x * stride + block % stride
    return x + width * stride * (y + height * stride * c)


def rearranged(x: Array, places: NDArray[np.intp], section: Section) -> Array:
    """Read at the places, or write there; then give the result its shape."""
    stride, (channels, height, width) = section.integer("stride", 1), x.shape
    if not section.integer("reverse", 0):
        return x.ravel()[places].reshape(channels * stride**2, height // stride, width // stride)
    output = np.empty(x.size)
    output[places] = x.reshape(places.shape)
    return output.reshape(channels // stride**2, height * stride, width * stride)


def reorg(net: Network, section: Section, x: Array) -> Array:
    """reorg_old_layer.c: it takes the size of its input for that of the small image, in both directions."""
    channels, height, width = x.shape
    return rearranged(x, reorg_places(channels, height, width, section.integer("stride", 1)), section)


def reorg3d(net: Network, section: Section, x: Array) -> Array:
    """reorg_layer.c: it takes the size of its output for that of the small image, in both directions."""
    stride, (channels, height, width) = section.integer("stride", 1), x.shape
    if section.integer("reverse", 0):
        places = reorg_places(channels // stride**2, height * stride, width * stride, stride)
    else:
        places = reorg_places(channels * stride**2, height // stride, width // stride, stride)
    return rearranged(x, places, section)


def normalization(net: Network, section: Section, x: Array) -> Array:
    """normalization_layer.c: by the sum of squares of the channels around, with a slip.

    Channel size/2 is never added, neither to the first sum nor to the next, but is taken away where it would leave.
    """
    size = section.integer("size", 5)
    alpha, beta, kappa = (section.number(n, d) for n, d in (("alpha", 1e-4), ("beta", 0.75), ("kappa", 1.0)))
    squares = x**2
    sums = [squares[: size // 2].sum(0)]
    for channel in range(1, len(x)):
        leaves, enters = channel - (size - 1) // 2 - 1, channel + size // 2
        total = sums[-1].copy()
        if leaves >= 0:
            total -= squares[leaves]
        if enters < len(x):
            total += squares[enters]
        sums.append(total)
    return np.asarray(x * (kappa + alpha * np.stack(sums)) ** -beta, np.float64)


def crop(net: Network, section: Section, x: Array) -> Array:
    """crop_layer.c: at inference, from the middle, and from [0, 1] to [-1, 1]."""
    height, width = section.integer("crop_height", 1), section.integer("crop_width", 1)
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    cut = x[:, top : top + height, left : left + width]
    return cut if section.integer("noadjust", 0) else cut * 2 - 1


def softmax_layer(net: Network, section: Section, x: Array) -> Array:
    """softmax_layer.c: over all values of a group, wherever they are. `spatial`, on a GPU only: at each place."""
    if section.integer("spatial", 0):
        return softmax(x, 0)
    if parents := parents_of(net, section):
        return softmax_of_siblings(x.ravel() / section.number("temperature", 1.0), parents).reshape(x.shape)
    flat = x.reshape(section.integer("groups", 1), -1)
    return softmax(flat / section.number("temperature", 1.0)).reshape(x.shape)


def parents_of(net: Network, section: Section) -> list[int]:
    """Return the parent of each class in the tree that a layer names, -1 at the top (tree.c, read_tree)."""
    if "tree" not in section.options:
        return []
    return [int(line.split()[1]) for line in net.files[section.options["tree"]].splitlines()]


def softmax_of_siblings(x: Array, parents: list[int]) -> Array:
    """Return the softmax of each run of classes that have the same parent, over the last axis."""
    starts = [place for place in range(1, len(parents)) if parents[place] != parents[place - 1]]
    return np.concatenate([softmax(siblings) for siblings in np.split(x, starts, axis=-1)], -1)


def along_tree(x: Array, parents: list[int]) -> Array:
    """Multiply each class's probability with its ancestors' (tree.c, hierarchy_predictions)."""
    x = x.copy()
    for place, parent in enumerate(parents):
        if parent >= 0:
            x[..., place] *= x[..., parent]
    return x


def activation_layer(net: Network, section: Section, x: Array) -> Array:
    return activated(x, section, "linear")


def unchanged(net: Network, section: Section, x: Array) -> Array:
    return x


def anchors_of(section: Section, count: int) -> Array:
    """Return the anchors, [count, 2]: 0.5 where the cfg has none."""
    values = np.full(2 * count, 0.5)
    given = section.numbers("anchors")[: 2 * count]
    values[: len(given)] = given
    return values.reshape(-1, 2)


def grid_xy(x: Array, y: Array) -> Array:
    """Return centres relative to the image, [..., H, W, 2], of places within their cells, [..., H, W]."""
    height, width = x.shape[-2:]
    return np.stack([(x + np.arange(width)) / width, (y + np.arange(height)[:, None]) / height], -1)


def add_head(net: Network, xy: Array, wh: Array, objectness: Array, classes: Array) -> None:
    """Keep a head's boxes: xy and wh [..., 2], objectness [...], classes [..., classes]."""
    scores = objectness[..., None] * classes
    cxcywh = np.concatenate([xy, wh], -1).reshape(-1, 4)
    net.heads.append(Detections(cxcywh, objectness.ravel(), scores.reshape(len(cxcywh), -1)))


def masked_anchors(net: Network, section: Section) -> Array:
    """Return a YOLO head's anchors relative to the image, [n, 1, 1, 2]."""
    count = section.integer("num", 1)
    mask = section.integers("mask") or list(range(count))
    return (anchors_of(section, count)[mask] / net.image.shape[:0:-1])[:, None, None]


def yolo(net: Network, section: Section, x: Array) -> Array:
    """yolo_layer.c, forward_yolo_layer, get_yolo_box and get_yolo_detections."""
    scale, is_new = section.number("scale_x_y", 1.0), section.integer("new_coords", 0)
    anchors = masked_anchors(net, section)
    values = x.reshape(len(anchors), 5 + section.integer("classes", 20), *x.shape[1:]).copy()
    if not is_new:
        values[:, :2], values[:, 4:] = logistic(values[:, :2]), logistic(values[:, 4:])
    values[:, :2] = values[:, :2] * scale - 0.5 * (scale - 1)
    size = np.moveaxis(values[:, 2:4], 1, -1)
    add_head(
        net,
        grid_xy(values[:, 0], values[:, 1]),
        (4 * size**2 if is_new else np.exp(size)) * anchors,
        values[:, 4],
        np.moveaxis(values[:, 5:], 1, -1),
    )
    return values.reshape(x.shape)


# What of a box's size lies between the point that is predicted and its centre.
YOLO_POINTS = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}


def gaussian_yolo(net: Network, section: Section, x: Array) -> Array:
    """gaussian_yolo_layer.c: each of x, y, w, h has a deviation behind it, whose mean lowers the scores."""
    scale = section.number("scale_x_y", 1.0)
    anchors = masked_anchors(net, section)
    values = x.reshape(len(anchors), 9 + section.integer("classes", 20), *x.shape[1:]).copy()
    logistics = [0, 1, 2, 3, 5, 7, *range(8, values.shape[1])]
    values[:, logistics] = logistic(values[:, logistics])
    values[:, [0, 2]] = values[:, [0, 2]] * scale - 0.5 * (scale - 1)
    wh = np.exp(np.moveaxis(values[:, [4, 6]], 1, -1)) * anchors
    xy = grid_xy(values[:, 0], values[:, 2]) + YOLO_POINTS[section.text("yolo_point", "center")] * wh
    certainty = 1 - values[:, [1, 3, 5, 7]].mean(1)
    add_head(net, xy, wh, values[:, 8], np.moveaxis(values[:, 9:], 1, -1) * certainty[..., None])
    return values.reshape(x.shape)


def region(net: Network, section: Section, x: Array) -> Array:
    """region_layer.c, forward_region_layer, get_region_box and get_region_boxes. Anchors are in cells."""
    count, (height, width) = section.integer("num", 1), x.shape[1:]
    values = np.moveaxis(x.reshape(count, -1, height, width), 1, -1).copy()  # [n, H, W, 5 + classes]
    values[..., 4] = logistic(values[..., 4])
    parents = parents_of(net, section)
    if parents:
        values[..., 5:] = softmax_of_siblings(values[..., 5:], parents)
    elif section.integer("softmax", 0):
        values[..., 5:] = softmax(values[..., 5:])
    objectness = values[..., 4]
    if section.integer("classfix", 0) == -1:
        objectness = np.where(objectness < 0.5, 0.0, objectness)
    wh = np.exp(values[..., 2:4]) * anchors_of(section, count)[:, None, None] / (width, height)
    centres = grid_xy(logistic(values[..., 0]), logistic(values[..., 1]))
    add_head(net, centres, wh, objectness, tree_classes(net, section, values[..., 5:], parents, objectness))
    return values.transpose(1, 2, 0, 3)  # as Darknet keeps it


def tree_classes(net: Network, section: Section, classes: Array, parents: list[int], objectness: Array) -> Array:
    """Return what a tree's classes are worth, as factors of the objectness (region_layer.c, get_region_boxes).

    With a map, each of its classes has its probability. Else the last one that is more probable than 0.5 counts: what
    Darknet takes for an object, at its threshold of 0.25, has that probability, anything else its objectness.
    """
    if not parents:
        return classes
    classes = along_tree(classes, parents)
    if "map" in section.options:
        of_labels = [int(number) for number in net.files[section.options["map"]].split()]
        return np.asarray(classes[..., of_labels], np.float64)
    is_probable = classes > 0.5
    from_here_on = is_probable[..., ::-1].cumsum(-1)[..., ::-1]
    worth = np.where(objectness[..., None] > 0.25, classes / objectness[..., None], 1)
    return np.asarray(np.where(is_probable & (from_here_on == 1), worth, 0), np.float64)


def detection(net: Network, section: Section, x: Array) -> Array:
    """detection_layer.c, forward_detection_layer and get_detection_detections: YOLOv1, not by channels.

    All cells' classes, then all cells' objectness, then all cells' boxes.
    """
    side, count, classes = section.integer("side", 7), section.integer("num", 1), section.integer("classes", 1)
    flat = x.ravel()
    probabilities = flat[: side**2 * classes].reshape(side, side, 1, classes)
    objectness = flat[side**2 * classes :][: side**2 * count].reshape(side, side, count)
    boxes = flat[side**2 * (classes + count) :].reshape(side, side, count, 4)
    if section.integer("softmax", 0):
        probabilities = softmax(probabilities)
    centres = grid_xy(*np.moveaxis(boxes[..., :2], (3, 2), (0, 1)))  # [n, side, side, 2]
    wh = boxes[..., 2:] ** 2 if section.integer("sqrt", 0) else boxes[..., 2:]
    add_head(net, np.moveaxis(centres, 0, 2), wh, objectness, probabilities)
    return np.concatenate([probabilities.ravel(), objectness.ravel(), boxes.ravel()])


LAYERS: dict[str, Callable[[Network, Section, Array], Array]] = {
    "Gaussian_yolo": gaussian_yolo,
    "activation": activation_layer,
    "avgpool": avgpool,
    "batchnorm": batchnorm,
    "connected": connected,
    "convolutional": convolutional,
    "cost": unchanged,
    "crop": crop,
    "detection": detection,
    "dropout": unchanged,
    "empty": unchanged,
    "implicit": implicit,
    "local": local,
    "local_avgpool": local_avgpool,
    "maxpool": maxpool,
    "normalization": normalization,
    "region": region,
    "reorg": reorg,
    "reorg3d": reorg3d,
    "route": route,
    "sam": sam,
    "scale_channels": scale_channels,
    "shortcut": shortcut,
    "softmax": softmax_layer,
    "upsample": upsample,
    "yolo": yolo,
}
