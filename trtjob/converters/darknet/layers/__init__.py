"""One small function for each type of layer. A new type is one more function, a line in this table, and one test.

A function reads its section, takes its weights in the file's order, appends its nodes, and returns its output.
Formulas are those of AlexeyAB/darknet, commit 59596d78; the file is named where one needs it.
"""

from collections.abc import Callable

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.detection import detection
from trtjob.converters.darknet.layers.convolution import convolutional, local
from trtjob.converters.darknet.layers.dense import connected, softmax
from trtjob.converters.darknet.layers.merging import route, sam, scale_channels
from trtjob.converters.darknet.layers.normalization import batchnorm, normalization
from trtjob.converters.darknet.layers.pooling import avgpool, local_avgpool, maxpool
from trtjob.converters.darknet.layers.rearranging import crop, reorg, reorg3d, upsample
from trtjob.converters.darknet.layers.shortcut import shortcut
from trtjob.converters.darknet.layers.simple import activation, contrastive, implicit, unchanged
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.region import region
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.darknet.yolo import gaussian_yolo, yolo

LayerFunction = Callable[[Network, Section, Tensor], Tensor]

LAYERS: dict[str, LayerFunction] = {
    "activation": activation,
    "avgpool": avgpool,
    "batchnorm": batchnorm,
    "connected": connected,
    "contrastive": contrastive,
    "convolutional": convolutional,
    "cost": unchanged,
    "crop": crop,
    "detection": detection,
    "dropout": unchanged,
    "empty": unchanged,
    "Gaussian_yolo": gaussian_yolo,
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
    "softmax": softmax,
    "upsample": upsample,
    "yolo": yolo,
}
