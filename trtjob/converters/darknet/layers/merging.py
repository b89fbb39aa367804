"""What brings layers together: [route], [scale_channels] and [sam]; [shortcut] has a module of its own."""

from trtjob.converters.darknet.activations import activate
from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor


def route(net: Network, section: Section, _x: Tensor) -> Tensor:
    """Earlier layers' channels, or one group of them, one after the other (route_layer.c)."""
    numbers = section.integers("layers")
    if not numbers:
        raise section.error("needs the option 'layers', such as layers=-1,8")
    groups = section.integer("groups", 1, least=1)
    group = section.integer("group_id", 0)
    if group >= groups:
        raise section.error(f"group_id={group}: expected less than groups={groups}", "group_id")
    inputs = [net.layer(section, number, "layers") for number in numbers]
    if len({tensor.hw for tensor in inputs}) > 1:
        sizes = ", ".join(f"{tensor.height}x{tensor.width}" for tensor in inputs)
        raise section.error(f"its inputs differ in size: {sizes}", "layers")
    parts = [_group(net, section, tensor, groups, group) for tensor in inputs]
    channels = sum(tensor.channels // groups for tensor in inputs)
    y = parts[0] if len(parts) == 1 else net.graph.add("Concat", *parts, axis=1)
    return Tensor(y, channels, *inputs[0].hw)


def _group(net: Network, section: Section, x: Tensor, groups: int, group: int) -> str:
    if groups == 1:
        return x.name
    if x.channels % groups:
        raise section.error(f"groups={groups}: the input's {x.channels} channels cannot be divided by it", "groups")
    share = x.channels // groups
    start, end, axis = (net.graph.integers(value) for value in (share * group, share * (group + 1), 1))
    return net.graph.add("Slice", x.name, start, end, axis)


def scale_channels(net: Network, section: Section, x: Tensor) -> Tensor:
    """An earlier layer, of which each channel, or with `scale_wh` each place, is weighted (scale_channels_layer.c)."""
    other = _from(net, section)
    expected = (1, *other.hw) if section.integer("scale_wh", 0) else (other.channels, 1, 1)
    return _product(net, section, x, other, expected)


def sam(net: Network, section: Section, x: Tensor) -> Tensor:
    """The product with an earlier layer (sam_layer.c)."""
    other = _from(net, section)
    return _product(net, section, x, other, (other.channels, *other.hw))


def _from(net: Network, section: Section) -> Tensor:
    numbers = section.integers("from")
    if len(numbers) != 1:
        raise section.error("needs one layer as 'from', such as from=-3", "from")
    return net.layer(section, numbers[0], "from")


def _product(net: Network, section: Section, x: Tensor, other: Tensor, expected: tuple[int, int, int]) -> Tensor:
    if (found := (x.channels, *x.hw)) != expected:
        sizes = " but has ".join("x".join(map(str, shape)) for shape in (expected, found))
        raise section.error(f"the layer before needs an output of {sizes}", "from")
    y = net.graph.add("Mul", x.name, other.name)
    return Tensor(activate(net.graph, section, y, default="linear"), other.channels, *other.hw)
