"""Fonts, made when a test asks for them. Their letters are boxes, whose sizes and places tell what was written.

1000 units are an em, so of letters in 40 pixels each 25 are a pixel.
"""

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

builder = pytest.importorskip("fontTools.fontBuilder", reason="fontTools is not installed: make setup brings it")
features = pytest.importorskip("fontTools.feaLib.builder")
glyph_pen = pytest.importorskip("fontTools.pens.ttGlyphPen")
tables = pytest.importorskip("fontTools.ttLib.tables.DefaultTable")

_EM, _ASCENT, _DESCENT = 1000, 800, -200
_GAP, _STROKE = 100, 100  # between letters, and the height of what joins them
# Of a font without a program, or one of up to seven bytes, FreeType moves the edges to where its own rules want them.
_PUSH_AND_POP = b"\xb0\0\x21"
PICTURE_PX = 109  # the only size of the emoji, as that of the font which most machines have


class _Glyph(NamedTuple):
    """boxes: left, bottom, right and top of each."""

    advance: int
    boxes: Sequence[tuple[int, int, int, int]] = ()

    @property
    def left(self) -> int:
        return min((left for left, *_ in self.boxes), default=0)


@cache
def thai() -> bytes:
    """Letters of one height, with marks that stand on them and on each other."""
    letters, marks = "กนมวแาำ", "่้ีิํ"
    glyphs = {letter: _letter(400) for letter in letters} | {mark: _Glyph(0, [(0, 450, 300, 500)]) for mark in marks}
    on_letters = "\n".join(f"pos base {_name(letter)} <anchor 300 400> mark @ABOVE;" for letter in letters)
    on_marks = "\n".join(f"pos mark {_name(mark)} <anchor 150 550> mark @ABOVE;" for mark in marks)
    return _of_boxes(
        glyphs,
        f"""
        languagesystem DFLT dflt;
        languagesystem thai dflt;
        markClass [{" ".join(map(_name, marks))}] <anchor 150 400> @ABOVE;
        feature mark {{ {on_letters} }} mark;
        feature mkmk {{ {on_marks} }} mkmk;
        """,
    )


@cache
def arabic() -> bytes:
    """Three letters, the first the highest. Where they join they are narrower, with a stroke between them."""
    glyphs, rules = {}, ""
    heights = {"ق": 700, "ط": 500, "ة": 300}
    for letter, height in heights.items():
        glyphs[letter] = _letter(height)
    for form, letters, strokes in (("init", "قط", "left"), ("medi", "قط", "left right"), ("fina", "قطة", "right")):
        for letter in letters:
            glyphs[f"{letter}.{form}"] = _letter(heights[letter], width=200, strokes=strokes)
        subs = "".join(f"sub {_name(letter)} by {_name(letter)}.{form};" for letter in letters)
        rules += f"feature {form} {{ {subs} }} {form};\n"
    return _of_boxes(glyphs, f"languagesystem DFLT dflt; languagesystem arab dflt;\n{rules}")


@cache
def devanagari() -> bytes:
    """Letters with low halves, a ligature that is higher than its letters, and high vowel signs."""
    virama = "्"
    glyphs = {letter: _letter(400) for letter in "कषबल"} | {sign: _letter(600) for sign in "िी"}
    glyphs |= {virama: _letter(100), "क.half": _letter(200), "ल.half": _letter(200)}
    glyphs["क.ssa"] = _letter(700)
    halves = "".join(f"sub {_name(letter)} {_name(virama)} by {_name(letter)}.half;" for letter in "कल")
    return _of_boxes(
        glyphs,
        f"""
        languagesystem DFLT dflt;
        languagesystem dev2 dflt;
        feature akhn {{ sub {_name("क")} {_name(virama)} {_name("ष")} by {_name("क.ssa")}; }} akhn;
        feature half {{ {halves} }} half;
        """,
    )


@cache
def emoji() -> bytes:
    """A cat and a flag that two letters make, as bitmaps in CBDT, which is what Linux has."""
    font = _of_pictures()
    pictures = _pictures(font.getGlyphOrder())
    metrics = struct.pack(">BBbbB", PICTURE_PX, PICTURE_PX, 0, PICTURE_PX - 20, PICTURE_PX)
    images = [metrics + struct.pack(">I", len(png)) + png for png in pictures]  # of the format 17
    offsets = list(accumulate(map(len, images), initial=0))
    index = struct.pack(">HHI HHI", 0, len(images) - 1, 8, 1, 17, 4) + struct.pack(f">{len(offsets)}I", *offsets)
    line = struct.pack(">bbB9x", PICTURE_PX - 20, -20, PICTURE_PX)
    strike = struct.pack(">IIII", 56, len(index), 1, 0) + line + line
    strike += struct.pack(">HHBBBb", 0, len(images) - 1, PICTURE_PX, PICTURE_PX, 32, 1)
    _add(font, "CBDT", struct.pack(">HH", 3, 0) + b"".join(images))
    _add(font, "CBLC", struct.pack(">HHI", 3, 0, 1) + strike + index)
    del font["glyf"], font["loca"]  # no letters in any other size
    return _saved(font)


@cache
def emoji_of_macos() -> bytes:
    """The same as bitmaps in sbix, beside outlines."""
    font = _of_pictures()
    images = [struct.pack(">hh4s", 0, -20, b"png ") + png for png in _pictures(font.getGlyphOrder())]
    offsets = accumulate(map(len, images), initial=4 + 4 * (len(images) + 1))
    strike = struct.pack(f">HH{len(images) + 1}I", PICTURE_PX, 72, *offsets) + b"".join(images)
    _add(font, "sbix", struct.pack(">HHII", 1, 1, 1, 12) + strike)
    return _saved(font)


FONTS: Mapping[str, Callable[[], bytes]] = {
    "Thai.ttf": thai,
    "Arabic.ttf": arabic,
    "Devanagari.ttf": devanagari,
    "Emoji.ttf": emoji,
}


def _letter(height: int, *, width: int = 400, strokes: str = "") -> _Glyph:
    """Return a box with room on both sides, which a stroke may cross to the next letter."""
    boxes = [(_GAP, 0, _GAP + width, height)]
    if "left" in strokes:
        boxes.append((0, 0, _GAP, _STROKE))
    if "right" in strokes:
        boxes.append((_GAP + width, 0, width + 2 * _GAP, _STROKE))
    return _Glyph(width + 2 * _GAP, boxes)


def _name(glyph: str) -> str:
    """Return the name of a character's glyph, or of a form of it such as `ق.init`."""
    return f"u{ord(glyph[0]):04X}{glyph[1:]}"


def _of_boxes(glyphs: Mapping[str, _Glyph], rules: str) -> bytes:
    font = _font({" ": _Glyph(300), **glyphs}, rules)
    font["maxp"].maxStackElements = 1
    _add(font, "prep", _PUSH_AND_POP * 3)
    return _saved(font)


def _of_pictures() -> Any:
    """Return the font of emoji without their pictures."""
    cat, flag = "🐈", ("🇩", "🇪")
    glyphs = dict.fromkeys((cat, *flag, "🇩.flag"), _Glyph(_EM))
    letters = " ".join(map(_name, flag))
    return _font(glyphs, f"languagesystem DFLT dflt; feature ccmp {{ sub {letters} by {_name('🇩.flag')}; }} ccmp;")


def _font(glyphs: Mapping[str, _Glyph], rules: str) -> Any:
    """Return a font. rules: how glyphs join and where they stand, in the language of Adobe's feature files."""
    named = {".notdef": _Glyph(_EM)} | {_name(glyph): shape for glyph, shape in glyphs.items()}
    font = builder.FontBuilder(_EM, isTTF=True)
    font.setupGlyphOrder(list(named))
    font.setupCharacterMap({ord(glyph): _name(glyph) for glyph in glyphs if len(glyph) == 1})
    font.setupGlyf({name: _outline(shape) for name, shape in named.items()})
    font.setupHorizontalMetrics({name: (shape.advance, shape.left) for name, shape in named.items()})
    font.setupHorizontalHeader(ascent=_ASCENT, descent=_DESCENT)
    font.setupNameTable({"familyName": "Made", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    features.addOpenTypeFeaturesFromString(font.font, rules)
    return font.font


def _outline(shape: _Glyph) -> Any:
    pen = glyph_pen.TTGlyphPen(None)
    for left, bottom, right, top in shape.boxes:
        pen.moveTo((left, bottom))
        for corner in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()


def _pictures(names: Sequence[str]) -> list[bytes]:
    """Return a picture for each glyph: red to the right, green to the bottom, and as much blue as tells them apart."""
    ramp = np.linspace(0, 255, PICTURE_PX).astype(np.uint8)
    pictures = []
    for number in range(len(names)):
        pixels = np.full((PICTURE_PX, PICTURE_PX, 3), 255 * number // len(names), np.uint8)
        pixels[..., 0], pixels[..., 1] = ramp, ramp[:, None]
        with io.BytesIO() as file:
            Image.fromarray(pixels).save(file, "PNG")
            pictures.append(file.getvalue())
    return pictures


def _add(font: Any, tag: str, data: bytes) -> None:
    font[tag] = tables.DefaultTable(tag)
    font[tag].data = data


def _saved(font: Any) -> bytes:
    with io.BytesIO() as file:
        font.save(file)
        return file.getvalue()
