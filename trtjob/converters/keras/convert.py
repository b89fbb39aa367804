"""From a Keras model or a TensorFlow graph to one ONNX model that describes itself."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from trtjob import __version__
from trtjob.converters.artefact import Converted, Reference, model_from_graph, source_file
from trtjob.converters.cropping import crop_ratio
from trtjob.converters.graph import Graph
from trtjob.converters.keras import packages
from trtjob.converters.keras.files import files, saved_model_folder
from trtjob.converters.keras.functional import layers_of, translate
from trtjob.converters.keras.graphs import Function, frozen_graph, saved_model
from trtjob.converters.keras.model import image_shape, input_hw, load
from trtjob.converters.keras.network import Network, UntranslatableError, Value
from trtjob.converters.keras.origin import mode_of
from trtjob.converters.keras.pixels import add_front, prepared, unknown_pixels
from trtjob.converters.keras.traced import float_array, trace
from trtjob.converters.labels import fitting_labels, numbered
from trtjob.converters.pixels import Pixels, pixels_asked_for, pixels_of_mode
from trtjob.converters.request import MAX_SIDE, ConversionRequest
from trtjob.converters.scores import (
    GUESSED,
    ONE_NUMBER,
    SIGMOID_OPS,
    SOFTMAX_OPS,
    ChosenEnding,
    Ending,
    add_scores,
    classes_of,
    ending_asked_for,
    is_multi_label,
    last_operator,
    scores_from,
)
from trtjob.converters.spill import Spill
from trtjob.engines.protocol import FloatArray, Outputs, UInt8Array
from trtjob.engines.spec import ModelSpec, ResizeMode, Sampling, Task
from trtjob.errors import ConversionError

log = logging.getLogger(__name__)

_GRAPH_SUFFIX = ".pb"

_Build = Callable[[Network, Value], Value]


@dataclass(frozen=True, slots=True)
class _Original:
    """A classifier as it was made. run: what it says of float32 [N, H, W, channels].

    trace: appends the nodes of its graph in TensorFlow; translate: those of its layers, where it has layers; close:
    forgets it; mode: what it expects of a pixel, where that shows, and why; loss: what it was trained with, where that
    is known.
    """

    name: str
    hw: tuple[int, int]
    channels: int
    layers: int
    trace: _Build
    run: Callable[[FloatArray], Any]
    translate: _Build | None = None
    close: Callable[[], None] | None = None
    mode: tuple[str, str] | None = None
    loss: Any = None
    notes: tuple[str, ...] = ()


def convert(request: ConversionRequest) -> Converted:
    """Convert a classifier. The same files give the same bytes.

    Raises ConversionError where it is none, or cannot be read; MissingDependencyError without TensorFlow.
    """
    folder = saved_model_folder(request.model)
    is_graph = folder is not None or request.model.suffix.lower() == _GRAPH_SUFFIX
    notes: list[str] = []
    original = _graph(request) if is_graph else _keras(request)
    if max(original.hw) > MAX_SIDE or min(original.hw) < 1:
        raise ConversionError(f"'{request.model}' takes images of {original.hw}: expected sides of 1 to {MAX_SIDE}")
    pixels = _pixels(request, original, notes)
    spill = Spill()
    net, output = _network(request, original, pixels, spill)
    outputs = _outputs(request, output)
    found = _ending(request, original, net.graph, output, outputs)
    classes = classes_of(found.ending, outputs)
    net.graph.scope = "classify"
    multi_label = is_multi_label(found.ending, last_operator(net.graph.nodes, output.name))
    add_scores(net.graph, output.name, found.ending)
    resize = request.resize or ResizeMode.STRETCH
    spec = ModelSpec(
        task=Task.CLASSIFY,
        labels=_labels(request, classes, notes),
        input_hw=original.hw,
        channels=1 if original.channels == 1 else 3,
        color="gray" if original.channels == 1 else "rgb",
        resize=resize,
        crop_ratio=crop_ratio(request, resize),
        sampling=Sampling.HALF_PIXEL,
        multi_label=multi_label,
        converter=f"trtjob {__version__} keras",
        sources=tuple(source_file(path) for path in files(request)),
    )
    reference = Reference(original.name, partial(_answer, original, pixels, found.ending), original.close)
    notes = [*original.notes, *notes, *([found.note] if found.note and not found.is_guess else [])]
    warnings = (found.note,) if found.is_guess else ()
    for note in notes:
        log.info("%s: %s", request.model, note)
    model = model_from_graph(net.graph, spec)
    return Converted(model, spec, original.layers, reference, tuple(notes), warnings, spill)


def _network(request: ConversionRequest, original: _Original, pixels: Pixels, spill: Spill) -> tuple[Network, Value]:
    """Build the graph, of the original's layers where all have a translation, else of TensorFlow's own."""

    def built(build: _Build) -> tuple[Network, Value]:
        net = Network(Graph(spill))
        image = add_front(net, pixels, original.hw, original.channels)
        return net, net.settled(build(net, image))

    if original.translate is not None:
        try:
            return built(original.translate)
        except UntranslatableError as err:
            log.info("%s: converted by tf2onnx, because %s", request.model, err)
    return built(original.trace)


def _answer(original: _Original, pixels: Pixels, ending: Ending, images: UInt8Array) -> Outputs:
    """Return what the original says of uint8 [N, H, W, channels]."""
    with packages.quiet():
        values = float_array(original.run(prepared(images, pixels)))
    return Outputs(None, scores_from(values, ending))


def _keras(request: ConversionRequest) -> _Original:
    loaded = load(request)
    keras, tensorflow = packages.keras(), packages.tensorflow()
    hw, channels = input_hw(loaded.model, request)
    return _Original(
        name=f"Keras {keras.__version__} model.predict (tensorflow {tensorflow.__version__})",
        hw=hw,
        channels=channels,
        layers=sum(1 for _ in layers_of(loaded.model)),
        # None of these holds the model itself: it goes when `loaded` is closed.
        trace=lambda net, image: trace(net, lambda x: loaded.model(x, training=False), image, request),
        translate=lambda net, image: translate(net, loaded.model, image),
        run=lambda images: loaded.model.predict(images, verbose=0),
        close=loaded.close,
        mode=mode_of(loaded.model),
        loss=loaded.loss,
    )


def _graph(request: ConversionRequest) -> _Original:
    folder = saved_model_folder(request.model)
    function: Function = frozen_graph(request) if folder is None else saved_model(request, folder)
    if function.shape is None and request.size is None:
        raise ConversionError(f"'{request.model}' does not say how large its images are. Say it with --size")
    shape = (None, None, None, 3) if function.shape is None else function.shape
    hw, channels = image_shape(request, shape)
    return _Original(
        name=f"the function in TensorFlow {packages.tensorflow().__version__}",
        hw=hw,
        channels=channels,
        layers=function.nodes,
        trace=lambda net, image: trace(net, function.run, image, request),
        run=function.run,
        notes=(f"Its input is '{function.input}', its output '{function.output}'.",),
    )


def _pixels(request: ConversionRequest, original: _Original, notes: list[str]) -> Pixels:
    """Return what is asked for of a pixel, else what the model's layers tell. Raises ConversionError."""
    if asked := pixels_asked_for(request, original.channels):
        return asked.ordered(request)
    if original.mode is None:
        raise unknown_pixels(request)
    mode, why = original.mode
    notes.append(f"Pixels are prepared as --preprocess {mode} does, because {why}.")
    return pixels_of_mode(mode, original.channels).ordered(request)


def _outputs(request: ConversionRequest, output: Value) -> int:
    """Return how many values a model gives for an image. Raises ConversionError unless it gives one row of them."""
    if len(output.shape) != 1 or output.shape[0] < 1:
        found = " x ".join(str(size) if size > 0 else "?" for size in output.shape)
        raise ConversionError(
            f"'{request.model}' gives {found or 'one number in all'} for an image: expected one row, a score for each "
            "class. Only classifiers are supported; name another output with --output"
        )
    return output.shape[0]


def _ending(request: ConversionRequest, original: _Original, graph: Graph, output: Value, outputs: int) -> ChosenEnding:
    """Return what is to be done to the output. Raises ConversionError where nobody can tell."""
    one, last = outputs == 1, last_operator(graph.nodes, output.name)
    if (asked := ending_asked_for(request, last, outputs)) is not None:
        return ChosenEnding(asked)
    if last in SOFTMAX_OPS | SIGMOID_OPS:
        what = "It has one output, the probability of the second class: the first class has the rest."
        return ChosenEnding(Ending.PAIR, what) if one else ChosenEnding(Ending.NOTHING)
    if _is_trained_on_logits(original.loss):
        several = Ending.SIGMOIDS if "Binary" in str(original.loss) else Ending.SOFTMAX
        what = "It was trained on logits: what makes probabilities of them was added."
        return ChosenEnding(Ending.PAIR_OF_LOGIT if one else several, what)
    if one:
        raise ConversionError(f"'{request.model}': {ONE_NUMBER}")
    return ChosenEnding(Ending.SOFTMAX, f"It ends in neither softmax nor sigmoid: {GUESSED}", is_guess=True)


def _is_trained_on_logits(loss: Any) -> bool:
    config = loss.get("config") if isinstance(loss, dict) else None
    return isinstance(config, dict) and config.get("from_logits") is True


def _labels(request: ConversionRequest, classes: int, notes: list[str]) -> tuple[str, ...]:
    """Return the labels of the file that is given, else made-up ones. Raises ConversionError."""
    if request.labels is not None:
        return fitting_labels(request.labels, classes, request.model, is_asked=True)[0]
    notes.append("No names of its classes were given: they are called class_0 and so on. Name them with --labels FILE.")
    return numbered(classes)
