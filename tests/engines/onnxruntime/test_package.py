"""Which package ONNX Runtime comes from. What only an environment of its own shows is in scripts/check_installs.py."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from trtjob.engines.onnxruntime.package import Package, changing, find, installing, onnxruntime

BOTH = Package({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, "onnxruntime", "1.32.0", "")


def test_what_is_installed_is_found_and_whole() -> None:
    package = find()
    assert package is not None
    assert dict(package.installed) == {package.name: version(package.name)}
    assert package.version == onnxruntime().__version__
    assert not package.is_mixed
    assert not package.is_damaged


def test_it_keeps_no_identity_of_the_machine(tmp_path: Path) -> None:
    """Left alone, its import writes an id and what it would send into the user's cache."""
    code = "from trtjob.engines.onnxruntime.package import onnxruntime; onnxruntime()"
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_two_packages_are_a_mixture_and_one_of_them_can_be_kept() -> None:
    assert BOTH.is_mixed
    command = BOTH.mending_command("onnxruntime-gpu")
    removes, installs = command.split(" && ")
    assert removes.endswith(" onnxruntime onnxruntime-gpu")
    assert installs.endswith(" --no-deps onnxruntime-gpu==1.31.1")


def test_files_without_what_they_say_of_themselves_are_damage() -> None:
    assert Package({"onnxruntime": "1.32.0"}, "", "", "").is_damaged


@pytest.mark.parametrize(("cuda", "major"), [("13.0", 13), ("12.8", 12), ("", 0)])
def test_the_version_of_cuda_is_read(cuda: str, major: int) -> None:
    assert Package({}, "onnxruntime-gpu", "1.31.1", cuda).cuda_major == major


def test_commands_name_this_interpreter() -> None:
    assert sys.executable in installing("trtjob[cpu]")


def test_changing_to_another_extra_removes_what_is_there_first() -> None:
    package = find()
    assert package is not None
    removes, installs = changing("cuda").split(" && ")
    assert " pip uninstall " in removes
    assert removes.endswith(f" {package.name}")
    assert installs.endswith(" 'trtjob[cuda]'")
