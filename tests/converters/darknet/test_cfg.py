import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from converters.darknet.networks import CFG
from hypothesis import given, settings
from hypothesis import strategies as st

from trtjob.converters.darknet.cfg import ALIASES, IGNORED, MAX_CFG_BYTES, Section, parse_cfg, read_cfg
from trtjob.converters.impostors import expect_no_impostor
from trtjob.errors import ConversionError, DarknetParseError

Options = dict[str, str]


def parse(options: str) -> Section:
    """Return a section with these options; its first option is in line 3."""
    return parse_cfg(f"[net]\n[yolo]\n{options}")[1]


def text_of(sections: list[tuple[str, Options]]) -> str:
    return "".join(f"[{kind}]\n" + "".join(f"{k}={v}\n" for k, v in options.items()) for kind, options in sections)


def contents(sections: list[Section]) -> list[tuple[str, Options]]:
    return [(s.kind, {name: option.value for name, option in s.options.items()}) for s in sections]


def test_sections_come_in_order_with_their_options() -> None:
    assert contents(parse_cfg("[net]\nwidth=4\nheight=2\n[maxpool]\nsize=2\n[upsample]\n")) == [
        ("net", {"width": "4", "height": "2"}),
        ("maxpool", {"size": "2"}),
        ("upsample", {}),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[net]\r\nwidth=4\r\n\r\n[yolo]\r\nclasses=2\r\n", id="line ends of Windows"),
        pytest.param("[net]\nwidth=4\n[yolo]\nclasses=2", id="no line end at the end"),
        pytest.param(" [ net ]\n\twidth =\t4 \n[yolo]\nclas ses = 2\n", id="blanks everywhere"),
        pytest.param("# a\n[net]\n;b\n  # c = d\nwidth=4\n[yolo]\n\n\nclasses=2\n", id="comments and empty lines"),
        pytest.param(
            "[network]\nwidth=4\n[yolo] # the head\nclasses=2\n", id="[network], and a comment after a section"
        ),
        pytest.param(
            "[net]\nwidth=4\nwidth=8\n[yolo]\nclasses=2\nclasses=3\n", id="the first of two equal keys counts"
        ),
    ],
)
def test_one_network_can_be_written_in_many_ways(text: str) -> None:
    assert contents(parse_cfg(text)) == [("net", {"width": "4"}), ("yolo", {"classes": "2"})]


@pytest.mark.parametrize(
    ("alias", "kind"),
    [
        ("conv", "convolutional"),
        ("conn", "connected"),
        ("max", "maxpool"),
        ("avg", "avgpool"),
        ("local_avg", "local_avgpool"),
        ("lrn", "normalization"),
        ("soft", "softmax"),
        ("silence", "empty"),
        ("route", "route"),
        ("Convolutional", "Convolutional"),
    ],
)
def test_darknets_short_names_of_layers_are_known(alias: str, kind: str) -> None:
    assert parse_cfg(f"[net]\n[{alias}]\n")[1].kind == kind


def test_an_equals_sign_may_be_part_of_a_value() -> None:
    assert parse("a=b=c").text("a", "") == "b=c"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param("", 0, "is no cfg: it has no [net] section", id="empty"),
        pytest.param("# only\n\n; comments", 0, "is no cfg: it has no [net] section", id="only comments"),
        pytest.param("\n[yolo]\n", 2, "expected [net] first, found [yolo]", id="no net"),
        pytest.param("\n[net]\nwidth=4\n", 2, "has no layer after [net]", id="no layer"),
        pytest.param("width=4\n[net]\n", 1, "expected [net] before 'width=4'", id="an option before the first section"),
        pytest.param("[net]\n[yolo\n", 2, "expected a section such as [convolutional], found '[yolo'", id="cut off"),
        pytest.param("[net]\n[]\n", 2, "expected a section such as [convolutional], found '[]'", id="no name"),
        pytest.param("[net]\n\nwidth\n", 3, "expected [section] or key=value, found 'width'", id="no value"),
        pytest.param("[net]\nwidth=\n", 2, "expected [section] or key=value, found 'width='", id="an empty value"),
        pytest.param("[net]\n=4\n", 2, "expected [section] or key=value, found '=4'", id="no key"),
        pytest.param("[net]\n[yolo]\na\0=1\n", 3, "is no cfg: it holds binary data", id="a zero byte"),
        pytest.param(f"[net]\n{'x' * 99}\n", 2, f"found '{'x' * 40}...'", id="a long line is cut"),
    ],
)
def test_what_is_no_cfg_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(DarknetParseError) as caught:
        parse_cfg(text, "a.cfg")
    assert str(caught.value).startswith(f"a.cfg:{line}: " if line else "a.cfg: ")
    assert message in str(caught.value)
    assert (caught.value.path, caught.value.line) == ("a.cfg", line)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("4", 4),
        ("+4", 4),
        ("-4", -4),
        ("4.", 4),
        ("4.00", 4),
        ("007", 7),
        ("21#(classes+5)*3", 21),
        ("21;classes", 21),
        ("21,22", 21),
        ("2147483647", 2147483647),
    ],
)
def test_a_whole_number_ends_where_darknet_ends_it(value: str, number: int) -> None:
    assert parse(f"a={value}").integer("a", 0, least=-9) == number


@pytest.mark.parametrize(
    "value",
    ["x", "4x", "4.5", "1e3", "0x10", "1_000", "--4", "+", "nan", "2147483648", "9" * 400, "३", "#4", "4.0.0"],
)
def test_what_darknet_would_guess_at_is_no_whole_number(value: str) -> None:
    with pytest.raises(DarknetParseError, match=r"^<cfg>:4: \[yolo\] a=.*: expected a whole number$"):
        parse(f"b=1\na={value}").integer("a", 0)


@pytest.mark.parametrize(
    ("value", "number"),
    [(".5", 0.5), ("-1.5", -1.5), ("1e-3", 0.001), ("2.E2", 200.0), ("1.05#x", 1.05), ("3e38", 3e38)],
)
def test_a_number_may_have_a_fraction_and_an_exponent(value: str, number: float) -> None:
    assert parse(f"a={value}").number("a", 0.0) == number


@pytest.mark.parametrize("value", ["inf", "nan", "1e39", "-1e39", "1e999", ".", "1e", "1.5f", "३.5"])
def test_what_is_no_float32_is_no_number(value: str) -> None:
    with pytest.raises(DarknetParseError, match=r"^<cfg>:3: \[yolo\] a=.*: expected a number$"):
        parse(f"a={value}").number("a", 0.0)


def test_an_option_that_is_not_there_has_its_default() -> None:
    section = parse("a=1")
    assert (section.text("b", "x"), section.number("b", 0.5), section.integer("b", 7)) == ("x", 0.5, 7)
    assert section.numbers("b") == []
    assert section.integers("b") == []


def test_a_number_below_the_least_is_refused() -> None:
    with pytest.raises(DarknetParseError, match=r":3: \[yolo\] a=0: expected a whole number of 1 or more$"):
        parse("a=0").integer("a", 1, least=1)


def test_a_list_ends_at_a_comment() -> None:
    section = parse("a = 10,14, -2.5 # , 99\nb=-1, 8#,9")
    assert section.numbers("a") == [10, 14, -2.5]
    assert section.integers("b") == [-1, 8]


def test_a_comma_after_the_last_anchor_adds_none() -> None:
    assert parse("a=10,14,").numbers("a") == [10, 14]


@pytest.mark.parametrize("value", ["-1,,8", "-1,8,", ",8", ","])
def test_a_gap_in_a_list_is_refused_where_darknet_reads_layer_0(value: str) -> None:
    with pytest.raises(DarknetParseError, match=rf":3: \[yolo\] a={value}: a number is missing beside a comma$"):
        parse(f"a={value}").integers("a")


def test_a_number_in_a_list_is_refused_with_its_line() -> None:
    with pytest.raises(DarknetParseError, match=r"^<cfg>:4: \[yolo\] anchors=x: expected a number$"):
        parse("b=1\nanchors=1,x").numbers("anchors")


def test_an_option_that_must_be_neutral_may_be_so_or_missing() -> None:
    section = parse("groups=1")
    section.expect("groups", "1")
    section.expect("dilation", "1")


def test_an_option_that_is_not_neutral_is_refused() -> None:
    with pytest.raises(DarknetParseError, match=r":3: \[yolo\] groups=2 is not supported: expected groups=1$"):
        parse("groups=2").expect("groups", "1")


def test_an_error_of_a_whole_section_points_at_its_first_line() -> None:
    assert str(parse("a=1").error("is odd")) == "<cfg>:2: [yolo] is odd"


def test_unread_options_are_those_that_nobody_read_and_no_training_needs() -> None:
    section = parse("clases=2\nclasses=2\nignore_thresh=.7")
    section.integer("classes", 0)
    assert "ignore_thresh" in IGNORED
    assert [(name, option.line) for name, option in section.unread()] == [("clases", 3)]


def test_reading_an_option_that_is_missing_does_not_hide_another() -> None:
    section = parse("size=2")
    section.integer("stride", 1)
    assert [name for name, _ in section.unread()] == ["size"]


def test_a_file_is_read_with_its_path_in_every_error(tmp_path: Path) -> None:
    path = tmp_path / "a.cfg"
    path.write_text("[net]\n[yolo]\nclasses=x\n")
    with pytest.raises(DarknetParseError, match=rf"^{re.escape(str(path))}:3: ") as caught:
        read_cfg(path)[1].integer("classes", 20)
    assert caught.value.path == path


def test_a_comment_may_be_in_any_old_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.cfg"
    path.write_bytes(b"\xef\xbb\xbf[net]\n# gr\xf6\xdfer\n[yolo]\n")
    assert [section.kind for section in read_cfg(path)] == ["net", "yolo"]


def test_text_of_two_bytes_a_letter_is_no_cfg(tmp_path: Path) -> None:
    path = tmp_path / "a.cfg"
    path.write_bytes(CFG.encode("utf-16"))
    with pytest.raises(ConversionError, match=r"text in UTF-16.*Save it as UTF-8"):
        read_cfg(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.cfg", "cannot be read: No such file or directory", id="missing"),
        pytest.param(".", "cannot be read: Is a directory", id="a folder"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DarknetParseError, match=message):
        read_cfg(tmp_path / name)


def test_a_file_of_weights_given_as_cfg_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.cfg"
    path.write_bytes(b"#" * (MAX_CFG_BYTES + 1))
    with pytest.raises(DarknetParseError, match="is no cfg: it has more than 4,000,000 bytes"):
        read_cfg(path)


def refusal_of(call: Callable[[], object]) -> DarknetParseError | None:
    """Return the error that a call raises; any other than this kind goes on, and fails the test."""
    try:
        call()
    except DarknetParseError as err:
        return err
    return None


def check_every_option(sections: list[Section]) -> None:
    """Read every option in every way, as the layers do: each is understood or refused with its line."""
    for section in sections:
        for name, option in section.options.items():
            reads = (partial(section.number, name, 1), partial(section.integer, name, 1))
            for read in (*reads, partial(section.numbers, name), partial(section.integers, name)):
                refusal = refusal_of(read)
                assert refusal is None or refusal.line == option.line


LINES = st.lists(
    st.one_of(
        st.sampled_from(["[net]", "[yolo]", "[conv]#x", "[", "=", "a=", "\0", "a=1,,2", "a=1e9999", "a=٣", "#", ""]),
        st.text(max_size=12),
        st.builds("{}={}".format, st.text("abc", min_size=1), st.text("0123456789.,+-eE#;x ", min_size=1)),
    )
)


@pytest.mark.slow
@given(LINES.map("\n".join) | st.text() | LINES.map(lambda lines: "\n".join(["[net]", "[conv]", *lines])))
def test_any_text_either_parses_or_is_refused(text: str) -> None:
    refusal = refusal_of(lambda: check_every_option(parse_cfg(text)))
    assert refusal is None or 0 <= refusal.line <= text.count("\n") + 1


@given(data=st.binary() | st.binary().map(lambda data: b"[net]\n[yolo]\n" + data))
def test_any_bytes_either_parse_or_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.cfg"
    path.write_bytes(data)
    try:
        expect_no_impostor(path)
    except ConversionError:  # it is something else altogether
        return
    refusal = refusal_of(lambda: check_every_option(read_cfg(path)))
    assert refusal is None or refusal.path == path


NAMES = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=9)
# No blank is left in a value, and a comment's sign may be.
VALUES = st.text("abcxyz0123456789.,+-=#;[]_", min_size=1, max_size=9)


@settings(max_examples=40)  # long ones
@given(
    st.lists(
        st.tuples(NAMES.filter(lambda kind: kind not in ALIASES), st.dictionaries(NAMES, VALUES)),
        min_size=1,
    )
)
def test_what_is_written_as_a_cfg_is_read_back(layers: list[tuple[str, Options]]) -> None:
    sections = [("net", {"width": "4"}), *layers]
    assert contents(parse_cfg(text_of(sections))) == sections


def test_notes_stand_where_people_write_them() -> None:
    text = """
        // ours, of 2019
        [net] # of photographs
        width=416 // of three strides
        [convolutional] // the first
        stride=2  # halves
        activation=leaky ; as ever
    """
    net, layer = parse_cfg(text)
    assert (net.integer("width", 0), layer.integer("stride", 0)) == (416, 2)
    assert layer.text("activation", "").startswith("leaky")
