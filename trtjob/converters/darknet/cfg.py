"""Read Darknet's cfg files, as Darknet reads them but strictly: what it would guess at is an error with its line.

As in Darknet: all blanks are dropped; `#` and `;` begin a comment at the start of a line; of a key given twice the
first counts; a number ends at a comment, so `21#(classes+5)*3` is 21. As people write them, beyond that: `//` begins a
comment, and one may stand behind any value.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trtjob.converters.impostors import expect_no_impostor
from trtjob.errors import DarknetParseError

MAX_CFG_BYTES = 4_000_000  # the longest cfg known has 0.1 MB

_NOTE = "//"
_END = r"(?=\Z|[#;,])"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?" + _END, re.ASCII)
# Without an exponent: Darknet's atoi would take 1e3 for 1.
_WHOLE = re.compile(r"([+-]?\d{1,10})(\.0*)?" + _END, re.ASCII)
_MAX_NUMBER = 3.4e38  # Darknet's numbers are float32 ...
_MAX_WHOLE = 2**31 - 1  # ... and int32

# What only training looks at, or Darknet's own display, or its comparison of one frame with another.
IGNORED = frozenset(
    """
    batch subdivisions time_steps track augment_speed init_sequential_subdivisions workspace_size_limit_MB
    angle saturation exposure hue blur mixup mosaic mosaic_bound cutmix gaussian_noise contrastive flip aspect
    random resize jitter truth_thresh ignore_thresh iou_thresh iou_thresh_kind iou_loss iou_normalizer obj_normalizer
    cls_normalizer delta_normalizer max_delta focal_loss label_smooth_eps counters_per_class objectness_smooth
    learning_rate learning_rate_min burn_in max_batches policy steps scales step scale gamma power momentum decay
    seq_scales adam B1 B2 eps max_chart_loss dynamic_minibatch optimized_memory try_fix_nan loss_scale
    ema_alpha badlabels_rejection_percentage equidistant_point num_sigmas_reject_badlabels show_details
    letter_box_train max_crop min_crop trainnet stopbackward train_only_bn dontload dontloadscales dontsave
    rejection coord_scale object_scale noobject_scale class_scale bias_match rescore thresh absolute max
    inputs log_step use_cuda_graph unsupervised adversarial_lr attention learning_scale_policy sgdr_cycle sgdr_mult
    contrastive_jit_flip contrastive_color contrastive_neg_max yolo_layer resize_step weights_reject_freq
    sequential_subdivisions onlyforward dont_update burnin_update clip grad_centr uc_normalizer mask_scale log forced
    probability dropblock dropblock_size_rel dropblock_size_abs type ratio noloss shift mean std stream wait_stream
    embedding_layer sim_thresh track_history_size track_ciou_norm dets_for_track dets_for_show show_receptive_field
    """.split()  # noqa: SIM905 - more than a hundred names read better as prose
)


@dataclass(frozen=True, slots=True)
class Option:
    """An option as it is written, and the line that it is on."""

    value: str
    line: int


@dataclass(slots=True)
class Section:
    """One `[kind]` of a cfg; `line` counts from 1. Every option that is read is remembered."""

    kind: str
    line: int
    path: Path | str
    options: dict[str, Option] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    def error(self, message: str, name: str = "") -> DarknetParseError:
        """Return an error that points at an option's line, or at the section's."""
        line = self.options[name].line if name in self.options else self.line
        return DarknetParseError(f"[{self.kind}] {message}", path=self.path, line=line)

    def text(self, name: str, default: str) -> str:
        """Return an option's value as it is written, but for its blanks."""
        self._read.add(name)
        return self.options[name].value if name in self.options else default

    def number(self, name: str, default: float) -> float:
        """Return an option's number. Raises DarknetParseError where it is none, or beyond float32."""
        value = self.text(name, "")
        return default if name not in self.options else self._number(name, value)

    def integer(self, name: str, default: int, *, least: int = 0) -> int:
        """Return an option's whole number. Raises DarknetParseError where it is none, below `least` or beyond int32."""
        value = self.text(name, "")
        if name not in self.options:
            return default
        number = self._whole(name, value)
        if number < least:
            raise self.error(f"{name}={value}: expected a whole number of {least} or more", name)
        return number

    def numbers(self, name: str) -> list[float]:
        """Return the numbers of a list, none where the option is not there. Raises as `number` does."""
        # A comma after the last anchor adds none in Darknet either; in a list of layers or a mask it adds a 0.
        return [self._number(name, part) for part in self._parts(name, self._list(name).removesuffix(","))]

    def integers(self, name: str) -> list[int]:
        """Return the whole numbers of a list, negative ones too; else as `numbers`."""
        return [self._whole(name, part) for part in self._parts(name, self._list(name))]

    def expect(self, name: str, neutral: str) -> None:
        """Raise DarknetParseError for an option that changes what the layer computes in a way that is not supported."""
        if (value := self.text(name, neutral)) != neutral:
            raise self.error(f"{name}={value} is not supported: expected {name}={neutral}", name)

    def unread(self) -> Iterator[tuple[str, Option]]:
        """Yield the options that nothing has read and that no training needs: mistyped, or not known here."""
        for name, option in self.options.items():
            if name not in self._read and name not in IGNORED:
                yield name, option

    def _list(self, name: str) -> str:
        return self.text(name, "").split("#")[0]  # as in Darknet, a `#` ends a list

    def _parts(self, name: str, value: str) -> list[str]:
        parts = value.split(",") if value else []
        if not all(parts):
            raise self.error(f"{name}={value}: a number is missing beside a comma", name)
        return parts

    def _number(self, name: str, value: str) -> float:
        match = _NUMBER.match(value)
        if match is None or not abs(number := float(match.group())) <= _MAX_NUMBER:
            raise self.error(f"{name}={value}: expected a number", name)
        return number

    def _whole(self, name: str, value: str) -> int:
        match = _WHOLE.match(value)
        if match is None or abs(number := int(match[1])) > _MAX_WHOLE:
            raise self.error(f"{name}={value}: expected a whole number", name)
        return number


def read_cfg(path: Path) -> list[Section]:
    """Read a cfg file. Raises ConversionError where it is something else, DarknetParseError."""
    expect_no_impostor(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CFG_BYTES + 1)
    except OSError as err:
        raise DarknetParseError(f"cannot be read: {err.strerror}", path=path) from err
    if len(data) > MAX_CFG_BYTES:
        raise DarknetParseError(f"is no cfg: it has more than {MAX_CFG_BYTES:,} bytes", path=path)
    # Comments may be in any old encoding; everything that counts is ASCII.
    return parse_cfg(data.decode("utf-8-sig", "replace"), path)


def parse_cfg(text: str, path: Path | str = "<cfg>") -> list[Section]:
    """Return the sections, `[net]` first. Raises DarknetParseError at anything that is not a cfg."""
    sections: list[Section] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = "".join(raw.split())
        if "\0" in line:
            raise DarknetParseError("is no cfg: it holds binary data", path=path, line=number)
        if not line or line[0] in "#;" or line.startswith(_NOTE):
            continue
        if line[0] == "[":
            sections.append(Section(_kind(line, path, number), number, path))
            continue
        key, equals, value = line.partition(_NOTE)[0].partition("=")
        if not equals or not key or not value:
            raise DarknetParseError(f"expected [section] or key=value, found {_shown(line)}", path=path, line=number)
        if not sections:
            raise DarknetParseError(f"expected [net] before {_shown(line)}", path=path, line=number)
        sections[-1].options.setdefault(key, Option(value, number))
    if not sections:
        raise DarknetParseError("is no cfg: it has no [net] section", path=path)
    if sections[0].kind != "net":
        raise DarknetParseError(f"expected [net] first, found [{sections[0].kind}]", path=path, line=sections[0].line)
    if len(sections) == 1:
        raise DarknetParseError("has no layer after [net]", path=path, line=sections[0].line)
    return sections


# string_to_layer_type in parser.c
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


def _kind(line: str, path: Path | str, number: int) -> str:
    match = re.fullmatch(r"\[(\w+)\]((#|;|//).*)?", line, re.ASCII)
    if match is None:
        raise DarknetParseError(
            f"expected a section such as [convolutional], found {_shown(line)}", path=path, line=number
        )
    return ALIASES.get(match[1], match[1])


def _shown(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:40] + "...")
