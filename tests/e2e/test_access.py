"""The queue's server asks who is there, over TLS: a user with few rights does a whole job, and no password is seen."""

import os
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.valkey import PASSWORD, Valkey
from terminal import DIGITS, ROOT, Terminal, descendants, job_folder, records, wait_for
from tls_proxy import tls_proxy

SECRET = "hush:hush/hush@hush"
ESCAPED = "hush%3Ahush%2Fhush%40hush"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server with the user that docs/redis.md describes."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    (line,) = [line.split() for line in (ROOT / "docs/redis.md").read_text().splitlines() if "    user trtjob" in line]
    rules = [rule.replace("PASSWORD", SECRET) for rule in line[2:]]
    server.client.execute_command("ACL", "SETUSER", "trtjob", *rules)  # type: ignore[no-untyped-call]
    yield server
    server.end()


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    """The server's own authority, and another."""
    import trustme

    authority = trustme.CA()
    paths = {"authority": tmp_path / "ca.pem", "other": tmp_path / "other.pem", "server": tmp_path / "server.pem"}
    authority.cert_pem.write_to_path(paths["authority"])
    trustme.CA().cert_pem.write_to_path(paths["other"])
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(paths["server"])
    return paths


@pytest.fixture
def port(valkey: Valkey, certificates: dict[str, Path]) -> Iterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates["server"])
    with tls_proxy(context, valkey.port) as port:
        yield port


def test_a_user_with_few_rights_does_a_whole_job_over_tls_and_its_password_is_seen_nowhere(
    terminal: Terminal,
    digits: Path,
    photos: Callable[[int], Path],
    valkey: Valkey,
    port: int,
    certificates: dict[str, Path],
    tmp_path: Path,
) -> None:
    url = f"rediss://trtjob:{ESCAPED}@127.0.0.1:{port}/0?ssl_ca_certs={certificates['authority']}"
    terminal.environment["TRTJOB_REDIS_URL"] = url
    terminal.environment["TRTJOB_LOG_LEVEL"] = "DEBUG"
    folder = photos(40)
    (folder / "broken.jpg").write_bytes(b"rubbish")
    seen = []

    def run(*arguments: str | Path) -> str:
        outcome = terminal.run(*arguments)
        seen.append(outcome.out + outcome.err)
        assert outcome.code == 0, outcome.err
        return outcome.out

    daemon = terminal.start("--debug", "worker")
    job_id = run("submit", folder, "--model", digits, "-o", tmp_path / "out", "--shard-size", "10").strip()
    wait_for(lambda: descendants(daemon.pid), "the worker process")
    seen += [Path(f"/proc/{pid}/cmdline").read_text() for pid in (daemon.pid, *descendants(daemon.pid))]
    ended = "done_with_errors"
    wait_for(lambda: ended in terminal.here("status", job_id, "--json").out, "the job's end", 60)
    assert "done, 1 failed" in run("status", job_id)
    run("retry", job_id)
    wait_for(lambda: ended in terminal.here("status", job_id, "--json").out, "the second end", 60)
    run("doctor")
    daemon.terminate()
    seen += daemon.communicate(timeout=30)
    assert len(records(job_folder(tmp_path / "out"))) == 41
    assert valkey.client.acl_log() == []
    assert not [text for text in seen if SECRET in text or ESCAPED in text]


def test_the_user_may_do_nothing_else(valkey: Valkey) -> None:
    import redis

    client = redis.Redis(port=valkey.port, username="trtjob", password=SECRET)
    for command in (
        ["GET", "other"],
        ["CONFIG", "GET", "dir"],
        ["FLUSHALL"],
        ["KEYS", "*"],
        ["SHUTDOWN"],
        ["ACL", "LIST"],
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("user", "authority", "said"),
    [
        pytest.param(f"trtjob:{ESCAPED}", "other", "certificate verify failed", id="another authority"),
        pytest.param("trtjob:wrong", "authority", "refuses the user or password of TRTJOB_REDIS_URL", id="password"),
        pytest.param(f"nobody:{ESCAPED}", "authority", "refuses the user or password", id="user"),
        pytest.param("", "authority", "refuses", id="none"),
    ],
)
def test_whom_the_server_refuses_is_told_so_in_a_line(
    terminal: Terminal, port: int, certificates: dict[str, Path], user: str, authority: str, said: str
) -> None:
    url = f"rediss://{user}{'@' if user else ''}127.0.0.1:{port}/0?ssl_ca_certs={certificates[authority]}"
    outcome = terminal.run("status", TRTJOB_REDIS_URL=url)
    assert outcome.code == 1
    assert said in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 3
    for secret in (SECRET, ESCAPED, "wrong", PASSWORD):
        assert secret not in outcome.err


def test_a_server_without_tls_is_named_as_that(terminal: Terminal, valkey: Valkey) -> None:
    started = time.monotonic()
    outcome = terminal.run("status", TRTJOB_REDIS_URL=f"rediss://trtjob:{ESCAPED}@127.0.0.1:{valkey.port}/0")
    assert outcome.code == 1
    assert "cannot reach the queue's server" in outcome.err
    assert "Traceback" not in outcome.err
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("umask", "file_mode"), [pytest.param(0o022, 0o644, marks=pytest.mark.chaos), (0o077, 0o600)])
def test_the_home_is_private_and_results_are_as_the_user_wants_them(
    umask: int, file_mode: int, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    home, output = tmp_path / "above" / "home", tmp_path / "out"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "trtjob",
        "run",
        photos(3),
        "--model",
        DIGITS / "digits.weights",
        "-o",
        output,
    ]
    environment = {**os.environ, "TRTJOB_HOME": str(home)}
    subprocess.run(command, check=True, capture_output=True, env=environment, umask=umask)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in output.rglob("*") if path.is_file()} == {file_mode}
