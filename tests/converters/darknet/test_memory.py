"""A conversion holds the weights once, and little beside them."""

import subprocess
import sys
from pathlib import Path

import pytest
from converters.darknet.networks import CFG, write_model

# Prints the most memory that a conversion took, in kB. The usual ru_maxrss counts what started the process, too.
CONVERT = """
import re, sys
from pathlib import Path
from trtjob.converters.artefact import pieces
from trtjob.converters.output import write_atomically
from trtjob.converters.request import ConversionRequest
from trtjob.converters.sources import convert
weights = Path(sys.argv[1])
converted = convert(ConversionRequest(model=weights))
write_atomically(weights.with_suffix(".onnx"), pieces(converted.model, converted.spec))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
MAX_SHARE = 1.7  # of the weights' size: once all of them, and one layer's in the making
CHANNELS, LAYERS = 512, 8
LAYER = "[convolutional]\nfilters=512\nsize=3\npad=1\nactivation=leaky\n"


def peak_bytes(weights: Path) -> int:
    done = subprocess.run([sys.executable, "-c", CONVERT, weights], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024


@pytest.mark.slow
def test_the_memory_of_a_conversion_is_bounded_by_its_weights(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    body, head = CFG.split("[convolutional]", 1)
    layers = LAYER * (LAYERS + 1)
    numbers = (CHANNELS * 3 * 9 + CHANNELS) + LAYERS * (CHANNELS**2 * 9 + CHANNELS) + 7 * (CHANNELS + 1)
    weights = write_model(tmp_path, cfg=f"{body}{layers}[convolutional]{head}", numbers=numbers)
    size = weights.stat().st_size
    assert size > 70e6
    more = peak_bytes(weights) - peak_bytes(write_model(tmp_path / "small"))
    assert size < more < MAX_SHARE * size
