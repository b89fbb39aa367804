"""The app as a whole: help, examples, what it imports, and the error boundary."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, get_args, get_type_hints

import pytest
import typer
from rich.text import Text
from terminal import Outcome

from trtjob import __version__
from trtjob.cli import doctor, export, picture_options
from trtjob.cli.app import command, main
from trtjob.errors import ConfigError
from trtjob.jobs.exports import ExportFormat
from trtjob.jobs.spec import Annotate

Command = Callable[..., Outcome]

NO_NAME = "x" * 300  # longer than file systems allow
HEAVY = ("onnx", "onnxruntime", "cv2", "rq", "redis", "numpy", "pydantic")


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for child in getattr(command, "commands", {}).values():
        yield from _commands(child, (*path, child.name))


COMMANDS = dict(_commands(command()))
EACH_COMMAND = pytest.mark.parametrize("path", [pytest.param(p, id=" ".join(("trtjob", *p))) for p in COMMANDS])


@EACH_COMMAND
def test_every_command_argument_and_option_has_help(path: tuple[str, ...]) -> None:
    assert COMMANDS[path].help.endswith(".")
    assert [p.name for p in COMMANDS[path].params if not p.help] == []


@EACH_COMMAND
def test_no_help_loses_what_stands_in_brackets(path: tuple[str, ...]) -> None:
    for text in (COMMANDS[path].help, *(parameter.help for parameter in COMMANDS[path].params)):
        assert Text.from_markup(text).plain == text.replace("\\[", "[")


@EACH_COMMAND
def test_an_option_says_its_default(path: tuple[str, ...]) -> None:
    optional = [p for p in COMMANDS[path].params if not p.required and path and p.name != "json"]
    assert [p.name for p in optional if "Default: " not in p.help] == []


@EACH_COMMAND
def test_an_option_says_what_it_takes(path: tuple[str, ...]) -> None:
    takes = [p for p in COMMANDS[path].params if p.param_type_name == "option" and not p.is_flag]
    assert [p.name for p in takes if not p.metavar] == []


@EACH_COMMAND
def test_every_command_has_an_example_that_it_understands(path: tuple[str, ...]) -> None:
    words = shlex.split(COMMANDS[path].epilog.removeprefix("Example: "))
    assert words[0] == "trtjob"
    own = next(p for p in sorted(COMMANDS, key=len, reverse=True) if tuple(words[1 : 1 + len(p)]) == p)
    assert own[: len(path)] == path
    COMMANDS[own].make_context(words[0], words[1 + len(own) :])


@EACH_COMMAND
def test_no_path_is_empty(path: tuple[str, ...]) -> None:
    hints = get_type_hints(COMMANDS[path].callback)
    for parameter in COMMANDS[path].params:
        if Path in (hint := hints.get(parameter.name), *get_args(hint)):
            with pytest.raises(ConfigError, match=r" is empty\. Name a (file|folder|model)"):
                parameter.handle_parse_result(typer.Context(COMMANDS[path]), {parameter.name: ""}, [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sort JOB --into", "--into is empty. Name a folder"),
        ("crops JOB -o", "--output is empty. Name a folder"),
        ("export JOB --format csv -o", "--output is empty. Name a file or a folder, or leave it out"),
        ("report JOB --truth", "--truth is empty. Name a file or a folder, or leave it out"),
        ("report JOB --compare", "--compare is empty. Name a job's id, or its folder, or leave it out"),
        ("run . -m net.onnx --labels", "--labels is empty. Name a file or names, or leave it out"),
        ("run . -m net.onnx --root", "--root is empty. Name a folder or an s3:// prefix, or leave it out"),
        ("run . -m", "--model is empty. Name a model"),
        ("convert", "MODEL is empty. Name a model"),
    ],
)
def test_an_unset_variable_is_not_the_current_folder(
    trtjob: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert trtjob(*line.split(), "") == Outcome(2, "", f"error: {said}\n")


def test_ctrl_c_while_a_command_begins_ends_it_without_a_word() -> None:
    script = (
        "import os, signal, sys\n"
        "from trtjob.__main__ import main\n"
        "class Interrupted:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'trtjob.cli.app': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupted)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # who runs the tests may ignore it
        "main()"
    )
    ended = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-2, "", "")


def test_ctrl_c_while_the_commands_are_made_ends_one_with_its_exit_code_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is command.__wrapped__.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    command.cache_clear()
    sys.setprofile(interrupt)
    assert main(["--version"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", sorted(command().commands))
def test_a_command_that_is_made_alone_is_the_one_among_all(name: str) -> None:
    assert [*command(name).commands] == [name]
    alone, among_all = dict(_commands(command(name))), dict(_commands(command()))
    for words, each in alone.items():
        assert _said_of(each) == _said_of(among_all[words])


def _said_of(command: Any) -> list[Any]:
    options = [
        (type(it), it.name, it.opts, it.secondary_opts, it.default, it.required, it.help) for it in command.params
    ]
    return [command.name, command.help, command.epilog, options]


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from trtjob.cli.app import main\n"
        "try: main(['--help'])\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_supervisor_and_a_run_load_nothing_of_what_their_worker_processes_work_with(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    script = (
        "import sys; import trtjob.worker.supervisor, trtjob.jobs.records; from trtjob.engines.choice import choose\n"
        "from trtjob.api.job_locations import expect_decoders, find_locations\n"
        "from trtjob.api.job_request import JobRequest\n"
        "choose('auto', 'all'); expect_decoders(find_locations(JobRequest(sys.argv[1:], 'model')))\n"
        "print([name for name in ('numpy', 'cv2', 'rq') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_prints_the_version(trtjob: Command) -> None:
    assert trtjob("--version") == Outcome(0, f"trtjob {__version__}\n", "")


def test_the_choices_are_those_of_the_job() -> None:
    (choices, *_) = get_args(picture_options.AnnotateOption)
    assert set(get_args(choices)) == set(Annotate)


def test_the_formats_are_those_of_the_exports() -> None:
    assert set(get_args(get_type_hints(export.export)["format"])) == set(ExportFormat)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["run", "photos"], "--model", id="no model"),
        pytest.param(["run", "photos", "--model", "m", "--conf", "2"], "--conf", id="a score above 1"),
        pytest.param(["run", "photos", "--model", "m", "--annotate", "some"], "--annotate", id="an unknown choice"),
        pytest.param(["run", "nowhere", "--model", "m"], "nowhere", id="no source"),
        pytest.param(["run", "s3://", "--model", "m"], "names no bucket", id="no bucket"),
        pytest.param(["export", "no/such/folder", "--format", "csv"], "no/such/folder", id="no folder"),
        pytest.param(["export", ".", "--format", "pdf"], "pdf", id="an unknown format"),
        pytest.param(["models", "show", "nobody"], "nobody", id="an unknown model"),
        pytest.param(["status", "--watch", "--json"], "--watch", id="watching as JSON"),
        pytest.param(["frobnicate"], "frobnicate", id="an unknown command"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_is_wrong(trtjob: Command, arguments: list[str], said: str) -> None:
    outcome = trtjob(*arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_an_error_is_one_line(trtjob: Command) -> None:
    assert trtjob("models", "show", "nobody").err.startswith("error: no model 'nobody'.")
    assert trtjob("models", "show", "nobody").err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["status", NO_NAME], ["export", NO_NAME, "--format", "csv"], ["convert", f"{NO_NAME}.weights"]]
)
def test_a_name_that_no_file_can_have_is_wrong_usage(trtjob: Command, words: list[str]) -> None:
    outcome = trtjob(*words)
    assert outcome.code == 2
    assert outcome.err.startswith("error: '")
    assert outcome.err.endswith("': File name too long\n")


@pytest.mark.parametrize("position", [0, 3])
def test_debug_shows_the_traceback_wherever_it_stands(trtjob: Command, position: int) -> None:
    words = ["models", "show", "nobody"]
    words.insert(position, "--debug")
    outcome = trtjob(*words)
    assert outcome.code == 2
    assert "Traceback" in outcome.err


def test_a_fault_of_ours_is_one_line_with_a_hint(trtjob: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault() -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(doctor, "start", fault)
    outcome = trtjob("doctor")
    assert outcome.code == 1
    assert outcome.err.startswith("error: RuntimeError: out of cheese.")
    assert "--debug" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_wrong_setting_ends_with_2(trtjob: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_THREADS", "many")
    outcome = trtjob("models")
    assert outcome.code == 2
    assert "TRTJOB_THREADS = 'many'" in outcome.err


@pytest.mark.slow
def test_a_reader_that_leaves_early_sees_no_complaint(tmp_path: Path) -> None:
    command = f"{sys.executable} -m trtjob doctor | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "p"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param("run a --model m --thread 3", "No such option: --thread (Possible options: --threads)", id="near"),
        pytest.param("run a --model m --bananas 3", "No such option: --bananas ", id="not near"),
        pytest.param("rnu", "No such command 'rnu'. Did you mean 'run'?", id="a command"),
        pytest.param("bananas", "No such command 'bananas'. ", id="no command"),
        pytest.param("run a --model m --conf 2", "'2': expected 1 or less", id="out of range"),
        pytest.param("run a --model m --threads many", "'many': expected a whole number", id="no number"),
        pytest.param("run a --model m --pages some", "'some' is not one of 'first', 'all'.", id="one of"),
    ],
)
def test_wrong_usage_is_said_in_plain_words(trtjob: Command, words: str, said: str) -> None:
    outcome = trtjob(*words.split())
    assert outcome.code == 2
    assert said in " ".join(outcome.err.replace("│", "").split()) + " "


def test_the_help_names_arguments_and_flags_without_a_librarys_types(trtjob: Command) -> None:
    shown = trtjob("run", "-h").out
    assert "trtjob run [OPTIONS] SOURCE..." in shown
    assert "<" not in shown.replace("<=", "")


def test_a_variable_that_is_nearly_a_setting_is_warned_of(trtjob: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTJOB_TREADS", "3")
    monkeypatch.setenv("TRTJOB_REDIS_PORT", "tcp://10.0.0.1:6379")  # as Kubernetes makes some
    said = trtjob("models", "list").err
    assert "TRTJOB_TREADS is no setting, and is not heeded. Is it TRTJOB_THREADS?" in said
    assert "REDIS_PORT" not in said
