"""Texts in any script: which font each part of one wants, and that part's pixels.

OpenCV writes with a font of its own, from left to right, a glyph for each character. What that gets wrong (Arabic,
Hebrew, Devanagari, Thai, accents that stand for themselves, emoji) Pillow writes, with a font of this machine.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from threading import Lock

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.fonts import Font, Fonts, system_folders

_JOINER, _AS_EMOJI = "\u200d", "\ufe0f"
_VARIATIONS = tuple(map(chr, range(0xFE00, 0xFE10)))
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_NOWHERE = "\U0010ffff"  # a character that no font has
_PROBE_PX = 24
_WELL_KNOWN = {"Arabic": "ق", "Devanagari": "क", "Hebrew": "א", "Thai": "ก", "emoji": "🐈"}
_SHOWN = 5  # labels in a message

_pillow = Lock()  # its fonts keep state while they write


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a text that is written with one font, None for OpenCV's. is_missing: no font has it."""

    text: str
    font: Font | None = None
    is_missing: bool = False


@lru_cache(maxsize=1)
def system_fonts() -> Fonts:
    """Return the fonts of this machine."""
    return Fonts(system_folders())


@lru_cache(maxsize=1)
def can_shape() -> bool:
    """Return whether Pillow joins and orders letters: its Raqm wants the system's FriBiDi for it."""
    from PIL import features

    return bool(features.check("raqm"))


@lru_cache(maxsize=4096)
def written_label(label: str, class_id: int) -> str:
    """Return what stands for a label in pictures: its class's number, such as #7, where a letter has no glyph here.

    Of signs and emoji that have none, the others are left.
    """
    runs = font_runs(label)
    lost = "".join(run.text for run in runs if run.is_missing)
    kept = "".join(run.text for run in runs if not run.is_missing).strip()
    return kept if kept and not any(map(_is_letter, lost)) else f"#{class_id}"


def describe_missing(labels: Iterable[str]) -> str:
    """Return a sentence on what of labels cannot be written here; empty where all can."""
    wanting = [label for label in labels if any(run.is_missing for run in font_runs(label))]
    if not wanting:
        return ""
    more = len(wanting) - _SHOWN
    shown = ", ".join(wanting[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    remedy = "Install fonts for them, such as Debian's fonts-noto-core and fonts-noto-color-emoji"
    if not can_shape():
        remedy = "To join and order their letters takes the library FriBiDi: install it, such as Debian's libfribidi0"
    return (
        f"no font here has all of these labels, so pictures show a class's number such as #7 instead: {shown}. {remedy}"
    )


def unwritten_scripts() -> list[str]:
    """Return the best-known scripts for which there is no font here."""
    return [name for name, letter in _WELL_KNOWN.items() if any(run.is_missing for run in font_runs(letter))]


def is_plain(text: str) -> bool:
    """Return whether OpenCV writes a text right."""
    return text.isascii() or all(map(_is_plain, text))


@lru_cache(maxsize=1024)
def font_runs(text: str) -> tuple[Run, ...]:
    """Return the parts of a text, as they are read: each as long as one font has it."""
    clusters: list[Run] = []
    for cluster in _clusters(unicodedata.normalize("NFC", text)):
        before = clusters[-1].font if clusters else None
        clusters.append(_run_of(cluster, before))
    grouped = groupby(clusters, key=lambda run: replace(run, text=""))
    return tuple(replace(run, text="".join(part.text for part in parts)) for run, parts in grouped)


def is_right_to_left(text: str) -> bool:
    """Return whether the first letter of a text belongs to a script that runs to the left."""
    directions = filter(lambda direction: direction in ("L", *_RIGHT_TO_LEFT), map(unicodedata.bidirectional, text))
    return next(directions, "L") in _RIGHT_TO_LEFT


def _run_of(cluster: str, before: Font | None) -> Run:
    """Return a cluster with its font. before: that of the cluster before it, which goes on where it can."""
    bare = "".join(character for character in cluster if not _is_unseen(character))
    if not bare:
        return Run("")
    if before is not None and not before.is_color and before.has(bare):
        return Run(cluster, before)
    if is_plain(cluster):
        return Run(cluster)
    is_picture = _AS_EMOJI in cluster or unicodedata.category(cluster[0]) == "So"
    font = system_fonts().find(bare, is_picture=is_picture) if can_shape() else None
    return Run(cluster, font, is_missing=font is None)


def _clusters(text: str) -> Iterator[str]:
    """Yield characters, each with what is written onto it or joined to it."""
    cluster = ""
    for character in text:
        if cluster and not _goes_on(cluster, character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _goes_on(cluster: str, character: str) -> bool:
    is_mark = _is_mark(character) or ord(character) in _SKIN_TONES
    is_flag = len(cluster) == 1 and ord(cluster) in _FLAG_LETTERS and ord(character) in _FLAG_LETTERS
    return is_mark or is_flag or cluster.endswith(_JOINER)


def beginning(text: str, length: int) -> str:
    """Return the first characters of a text, so many at the most, without a half of what belongs together.

    >>> beginning("resume\u0301", 6)
    'resum'
    """
    start = ""
    for cluster in _clusters(text):
        if len(start) + len(cluster) > length:
            break
        start += cluster
    return start.rstrip()


def _is_mark(character: str) -> bool:
    """Return whether a character changes the one before it, or how the two stand."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")


def _is_unseen(character: str) -> bool:
    """Return whether a character only says how others are shown, so that no font needs a glyph for it."""
    return unicodedata.category(character) == "Cf" or character in _VARIATIONS


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


@lru_cache(maxsize=4096)
def _is_plain(character: str) -> bool:
    """Return whether OpenCV has a character, which stands for itself and runs to the right."""
    if character.isascii():
        return True
    if _is_mark(character) or unicodedata.bidirectional(character) in _RIGHT_TO_LEFT:
        return False
    if unicodedata.category(character) == "Cs":  # half of a surrogate pair, of which OpenCV crashes
        return False
    return not np.array_equal(_probe(character), _probe(_NOWHERE))


def _probe(character: str) -> UInt8Array:
    pixels = np.zeros((2 * _PROBE_PX, 3 * _PROBE_PX, 3), np.uint8)
    cv2.putText(pixels, character, (2, round(1.5 * _PROBE_PX)), (255, 255, 255), cv2.FontFace("sans"), _PROBE_PX)
    return pixels


def written_by_pillow(
    run: Run, size: int, height: int, baseline: int, colors: Sequence[tuple[int, int, int]]
) -> UInt8Array:
    """Return a run's pixels, uint8 [height, W, 3] BGR, as large as `size` and the height allow.

    baseline: the row that letters stand on; colors: of the background and of the letters, BGR.
    """
    with _pillow:
        return _written(run, size, height, baseline, colors)


def _written(run: Run, size: int, height: int, baseline: int, colors: Sequence[tuple[int, int, int]]) -> UInt8Array:
    from PIL import Image, ImageDraw, ImageFont

    assert run.font is not None
    sizes = run.font.sizes
    own = next((each for each in sizes if each >= size), sizes[-1]) if sizes else size
    face = ImageFont.truetype(str(run.font.path), own, layout_engine=ImageFont.Layout.RAQM)
    left, top, right, bottom = face.getbbox(run.text, anchor="ls")
    # Marks above and below letters may need more room than the caption has.
    share = min(size / own, baseline / max(1, -top), (height - baseline) / max(1, bottom))
    if not sizes and share < 1:
        own = max(1, int(own * share))
        face, share = face.font_variant(size=own), 1.0
        left, top, right, bottom = face.getbbox(run.text, anchor="ls")
    width = max(1, round(max(right, face.getlength(run.text)) - min(0, left)))
    rows, base = (height, baseline) if not sizes else (max(1, int(bottom - top)), int(-top))
    background, ink = (tuple(reversed(color)) for color in colors)
    image = Image.new("RGB", (width, rows), background)
    ImageDraw.Draw(image).text((-min(0, left), base), run.text, ink, face, anchor="ls", embedded_color=True)
    pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    if not sizes:
        return pixels
    small = cv2.resize(
        pixels, (max(1, round(width * share)), max(1, round(rows * share))), interpolation=cv2.INTER_AREA
    )
    placed = np.empty((height, small.shape[1], 3), np.uint8)
    placed[:] = colors[0]
    y = min(max(0, baseline - round(base * share)), height - len(small))
    placed[y : y + len(small)] = small
    return placed
