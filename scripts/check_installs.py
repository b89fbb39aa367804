"""Install the wheel in each way that docs/gpu.md names, each in an empty environment, and use it there.

    .venv/bin/python scripts/check_installs.py           with onnxruntime-gpu alone: 250 MB instead of gigabytes
    .venv/bin/python scripts/check_installs.py --full    with the libraries of CUDA, as a user gets them

It wants a machine without a GPU, since what it looks at is how trtjob does without.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trtjob.engines.cuda.driver import has_driver

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"
SCENES = 12


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, and a home for the trtjob in it."""

    folder: Path
    wheel: Path

    def install(self, extras: str = "", *others: str, options: tuple[str, ...] = ()) -> None:
        """Install trtjob with extras, such as `[cpu]`, and other packages, in the versions of the lock."""
        command = ["pip", "install", "--quiet", "--python", str(self.python), "--constraint", "requirements.lock"]
        uv(*command, *options, f"trtjob{extras} @ file://{self.wheel}", *others)

    def add(self, requirement: str) -> None:
        """Install one package without what it needs, as someone does who does not know what it overwrites."""
        uv("pip", "install", "--quiet", "--python", str(self.python), "--no-deps", requirement)

    def run(
        self, *arguments: str | Path, engine: str = "auto", libraries: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run trtjob, away from the checkout and its settings. libraries: a folder that is looked into first."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRTJOB_", "PYTHON"))}
        environment |= {
            "TRTJOB_HOME": str(self.folder / "home"),
            "TRTJOB_ENGINE": engine,
            "PATH": f"{UV.parent}:{environment['PATH']}",
        }
        if libraries is not None:
            environment["LD_LIBRARY_PATH"] = str(libraries)
        command = [str(self.folder / "bin" / "trtjob"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=environment)

    def check(self, name: str) -> dict[str, str]:
        """Return one finding of the doctor's."""
        told = json.loads(self.run("doctor", "--json").stdout)
        return next(dict(check) for check in told if check["name"] == name)

    def mend(self) -> None:
        """Type what the doctor says about ONNX Runtime."""
        command = self.check("runtime")["fix"]
        print(f"    $ {command}", flush=True)
        environment = {**os.environ, "PATH": f"{UV.parent}:{os.environ['PATH']}"}
        subprocess.run(command, shell=True, check=True, env=environment, capture_output=True)

    def does_the_demo(self, engine: str = "auto") -> None:
        """Find the digits in the sample scenes."""
        digits = ROOT / "examples" / "digits"
        done = self.run("run", digits / "scenes", "--model", digits / "digits.weights", "-o", "out", engine=engine)
        expect(done.returncode == 0, done.stdout + done.stderr)
        records = [path.read_text().splitlines() for path in self.folder.glob("out/*/results.jsonl")]
        expect([len(lines) for lines in records] == [SCENES], f"expected {SCENES} records: {done.stdout}")

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


def uv(*arguments: str) -> None:
    """Run uv at the top of the checkout."""
    subprocess.run([UV, *arguments], check=True, cwd=ROOT)


def expect(is_so: bool, otherwise: str) -> None:
    """End with a message unless something is so."""
    if not is_so:
        sys.exit(f"FAILED: {otherwise}")


def locked(name: str) -> str:
    """Return a requirement for the version that the lock has."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return next(line.split(" ;")[0] for line in lines if line.startswith(f"{name}=="))


def base(environment: Environment) -> None:
    """Without an extra there is no ONNX Runtime: help works, and everything else says what to install."""
    environment.install()
    expect(environment.run("--help").returncode == 0, "trtjob --help needs more than the base")
    finding = environment.check("runtime")
    expect(finding["state"] == "missing" and "trtjob[cpu]" in finding["fix"], f"doctor: {finding}")
    digits = ROOT / "examples" / "digits"
    done = environment.run("run", digits / "scenes", "--model", digits / "digits.weights", "-o", "out")
    says = "pip install 'trtjob[cpu]'" in done.stderr and "trtjob[cuda]" in done.stderr
    expect(done.returncode == 1 and says and "Traceback" not in done.stderr, f"run: {done.stdout}{done.stderr}")


def cpu(environment: Environment) -> None:
    """The extra `cpu` does the demo job."""
    environment.install("[cpu]")
    finding = environment.check("runtime")
    expect((finding["state"], finding["found"]) == ("ok", locked("onnxruntime").replace("==", " ")), f"{finding}")
    environment.does_the_demo()


def cuda(environment: Environment, *, is_full: bool) -> None:
    """ONNX Runtime for GPUs without a GPU: `auto` says so and takes the CPU, `cuda` is refused with a sentence."""
    if is_full:
        environment.install("[cuda]")
    else:
        environment.install("", locked("cuda-bindings"), locked("flatbuffers"), locked("packaging"))
        environment.add(locked("onnxruntime-gpu"))
    finding = environment.check("runtime")
    expect(
        finding["state"] == "note" and "no GPU" in finding["found"] and "trtjob[cpu]" in finding["fix"], f"{finding}"
    )
    reason = environment.check("engine")
    expect(reason["state"] == "ok" and "on the CPU: no NVIDIA driver" in reason["found"], f"{reason}")
    environment.does_the_demo()
    digits = ROOT / "examples" / "digits"
    model = digits / "digits.weights"
    refused = environment.run("run", digits / "scenes", "--model", model, "-o", "asked", "--engine", "cuda")
    is_a_sentence = "cannot be used" in refused.stderr and "Traceback" not in refused.stderr
    expect(refused.returncode != 0 and is_a_sentence, f"--engine cuda: {refused.stdout}{refused.stderr}")
    _falls_back_aloud(environment)
    missing = _missing_libraries(environment)
    # The linker may find a toolkit of the machine's: what counts is that nothing is missing where all was installed.
    expect(not is_full or not missing, f"[cuda] lacks {missing}")
    print(f"    libraries of CUDA that are not found: {', '.join(missing) or 'none'}", flush=True)


def _falls_back_aloud(environment: Environment) -> None:
    """Where ONNX Runtime cannot use a GPU it runs on the CPU and says nothing: `cuda` fails, `auto` says why."""
    libraries = environment.folder / "driver"
    libraries.mkdir()
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(libraries / "libcuda.so.1")]
    subprocess.run(["cc", *options, str(ROOT / "tests" / "engines" / "cuda_stand_in.c"), "-lpthread"], check=True)
    digits = ROOT / "examples" / "digits"
    command: tuple[str | Path, ...] = ("run", digits / "scenes", "--model", digits / "digits.weights", "--json", "-o")
    fell_back = "it fell back to CPUExecutionProvider"
    failed = environment.run(*command, "fallen", "--engine", "cuda", libraries=libraries)
    says = fell_back in failed.stdout + failed.stderr
    expect(failed.returncode == 1 and says, f"--engine cuda, a GPU it cannot use: {failed.stdout}{failed.stderr}")
    done = environment.run(*command, "auto", libraries=libraries)
    expect(done.returncode == 0 and fell_back in done.stderr, f"auto, the same: {done.stdout}{done.stderr}")
    (summary,) = (environment.folder / "auto").glob("*/summary.json")
    devices = json.loads(summary.read_text())["devices"]
    expect(devices == {"CPU": SCENES}, f"what it ran on: {devices}")


def _missing_libraries(environment: Environment) -> list[str]:
    code = "from trtjob.engines.onnxruntime.package import find, missing_libraries as m; print(*m(find()))"
    told = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return told.stdout.split()


def mixed(environment: Environment, *names: str) -> None:
    """Both packages, in this order: the doctor sees it, and what it prints mends it."""
    environment.install("[cpu]" if names[0] == "onnxruntime" else "", locked("flatbuffers"), locked("packaging"))
    for name in names:
        environment.add(locked(name))
    finding = environment.check("runtime")
    last = locked(names[-1]).replace("==", " ")
    expect(finding["state"] == "broken" and finding["found"].endswith(f"the files are those of {last}"), f"{finding}")
    expect(environment.run("doctor").returncode == 1, "a broken ONNX Runtime is no fault to the doctor")
    environment.mend()
    finding = environment.check("runtime")
    expect((finding["state"], finding["found"]) == ("ok", locked("onnxruntime").replace("==", " ")), f"{finding}")
    environment.does_the_demo()


def damaged(environment: Environment) -> None:
    """One of two was removed, and with it files of the other: said wherever it is used, and mended."""
    environment.install("[cpu]")
    environment.add(locked("onnxruntime-gpu"))
    uv("pip", "uninstall", "--quiet", "--python", str(environment.python), "onnxruntime-gpu")
    finding = environment.check("runtime")
    expect(finding["state"] == "broken" and "lacks files" in finding["found"], f"{finding}")
    digits = ROOT / "examples" / "digits"
    done = environment.run("run", digits / "scenes", "--model", digits / "digits.weights", "-o", "out")
    expect(done.returncode == 1 and "trtjob doctor" in done.stderr, f"run: {done.stdout}{done.stderr}")
    environment.mend()
    environment.does_the_demo()


def main() -> None:
    """Try every way to install, and say how long each took."""
    parser = argparse.ArgumentParser(description="Install the wheel in each way and use it.")
    parser.add_argument("--full", action="store_true", help="with CUDA's libraries: gigabytes")
    is_full = bool(parser.parse_args().full)
    expect(not has_driver(), "this machine has NVIDIA's driver; what is checked is how trtjob does without one")
    ways: dict[str, Callable[[Environment], None]] = {
        "base": base,
        "cpu": cpu,
        "cuda, no GPU": lambda environment: cuda(environment, is_full=is_full),
        "cuda over cpu": lambda environment: mixed(environment, "onnxruntime", "onnxruntime-gpu"),
        "cpu over cuda": lambda environment: mixed(environment, "onnxruntime-gpu", "onnxruntime"),
        "one of two removed": damaged,
    }
    with tempfile.TemporaryDirectory() as work:
        uv("build", "--quiet", "--wheel", "--out-dir", f"{work}/dist")
        (wheel,) = Path(work, "dist").glob("*.whl")
        for number, (title, way) in enumerate(ways.items()):
            began_s = time.monotonic()
            print(f"{title} ...", flush=True)
            environment = Environment(Path(work, f"{number}"), wheel)
            # With pip in every second one: the doctor's commands are others then.
            uv("venv", "--quiet", "--python", sys.executable, *(["--seed"] * (number % 2)), str(environment.folder))
            way(environment)
            print(f"    as it should be, {time.monotonic() - began_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
