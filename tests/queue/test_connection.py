import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
import redis as redis_py
from ports import free_port
from pydantic import SecretStr

from trtjob.config import Settings
from trtjob.errors import ConfigError, QueueError
from trtjob.queue.connection import Connection
from trtjob.queue.embedded_server import EmbeddedServer, find_server_binary


def external(url: str, home: Path) -> Settings:
    return Settings(home=home, redis_url=SecretStr(url))


@contextmanager
def tcp_server(folder: Path, *options: str) -> Iterator[int]:
    """A server on a port of 127.0.0.1, as an administrator would set one up."""
    port = free_port()
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command = [str(find_server_binary()), *place, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.01)
        try:
            yield port
        finally:
            process.terminate()


def kill_embedded(settings: Settings) -> None:
    os.kill(int((settings.server_dir / "server.pid").read_text()), signal.SIGKILL)


def test_without_a_url_the_embedded_server_is_used(connection: Connection, settings: Settings) -> None:
    connection.redis.set("key", "value")
    assert connection.redis.get("key") == b"value"
    assert connection.describe().startswith("embedded ")
    assert str(settings.server_dir) in connection.describe()


def test_closing_the_only_connection_stops_the_embedded_server(settings: Settings) -> None:
    with Connection(settings) as connection:
        connection.redis.ping()
    assert not (settings.server_dir / "server.pid").exists()


def test_two_connections_share_one_embedded_server(settings: Settings) -> None:
    with Connection(settings) as one, Connection(settings) as other:
        one.redis.set("key", "value")
        assert other.redis.get("key") == b"value"


def test_ensure_revives_a_killed_embedded_server_under_the_same_clients(
    connection: Connection, settings: Settings
) -> None:
    connection.redis.set("key", "value")
    connection.heartbeat().ping()
    connection.redis.waitaof(1, 0, 5000)
    kill_embedded(settings)
    connection.ensure()
    assert connection.redis.get("key") == b"value"
    assert connection.heartbeat().ping()


def test_a_url_leads_to_the_server_that_it_names(server: EmbeddedServer, redis: redis_py.Redis, tmp_path: Path) -> None:
    redis.set("key", "value")
    with Connection(external(server.url, tmp_path)) as connection:
        assert connection.redis.get("key") == b"value"
        connection.ensure()
    assert server.answers()
    assert not (tmp_path / "server").exists()


def test_a_server_behind_a_password_is_described_by_host_port_and_version(tmp_path: Path) -> None:
    with (
        tcp_server(tmp_path, "--requirepass", "s3cret") as port,
        Connection(external(f"redis://:s3cret@127.0.0.1:{port}/3", tmp_path)) as connection,
    ):
        connection.redis.set("key", "value")
        assert connection.describe().endswith(f" at 127.0.0.1:{port}/3")
        shown = f"{connection!r} {connection.redis!r} {connection.heartbeat()!r} {connection.describe()}"
        assert "s3cret" not in shown


def test_a_wrong_password_is_refused_without_being_shown(tmp_path: Path) -> None:
    with (
        tcp_server(tmp_path, "--requirepass", "s3cret") as port,
        pytest.raises(QueueError, match="refuses the user or password") as caught,
    ):
        Connection(external(f"redis://:wr0ng@127.0.0.1:{port}", tmp_path))
    assert "wr0ng" not in str(caught.value)


def test_an_absent_server_is_reported_at_once(tmp_path: Path) -> None:
    port = free_port()
    start = time.monotonic()
    with pytest.raises(QueueError, match=f"cannot reach the queue's server at 127.0.0.1:{port}") as caught:
        Connection(external(f"redis://me:s3cret@127.0.0.1:{port}", tmp_path))
    assert time.monotonic() - start < 2
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://:s3cret@host", id="scheme"),
        pytest.param("redis://:s3cret", id="no host: the password stands in its place"),
        pytest.param("redis://:s3/cret@host:6379", id="unescaped slash"),
        pytest.param("redis://:s3cret@host:70000", id="port"),
        pytest.param("redis://:s3cret@host/jobs", id="database name"),
        pytest.param("redis://:s3cret@host?decode_responses=True", id="option that would break RQ"),
        pytest.param("redis://:s3cret@[::1", id="bracket"),
        pytest.param("unix://?db=s3cret", id="no path"),
        pytest.param("s3cret", id="no URL"),
    ],
)
def test_a_wrong_url_is_a_config_error_that_shows_no_secret(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TRTJOB_REDIS_URL") as caught:
        Connection(external(url, tmp_path))
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_policy_that_evicts_keys_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        tcp_server(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as port,
        Connection(external(f"redis://127.0.0.1:{port}", tmp_path)),
    ):
        assert "noeviction" in caplog.text


def test_a_cluster_is_refused(tmp_path: Path) -> None:
    with (
        # By itself it takes the port 10,000 above, which there may not be.
        tcp_server(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as port,
        pytest.raises(QueueError, match="cluster"),
    ):
        Connection(external(f"redis://127.0.0.1:{port}", tmp_path))


def test_an_old_server_is_refused(server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtjob.queue.connection.OLDEST_VERSION", (99, 0))
    with pytest.raises(QueueError, match="is version"):
        Connection(external(server.url, tmp_path))


@pytest.mark.slow
def test_a_command_waits_through_a_restart_of_the_server(connection: Connection, settings: Settings) -> None:

    connection.redis.set("key", "value")
    connection.redis.waitaof(1, 0, 5000)
    kill_embedded(settings)
    revival = Timer(2.0, connection.ensure)
    revival.start()
    assert connection.redis.get("key") == b"value"
    revival.join()


def test_the_heartbeat_client_fails_within_seconds(connection: Connection, settings: Settings) -> None:
    heartbeat = connection.heartbeat()
    heartbeat.ping()
    kill_embedded(settings)
    start = time.monotonic()
    with pytest.raises(redis_py.ConnectionError):
        heartbeat.ping()
    assert time.monotonic() - start < 2


def test_rq_may_block_for_as_long_as_it_does(connection: Connection) -> None:
    """RQ raises the socket's time-out itself where it is shorter than its own; ours covers a worker's short waits."""
    timeout = connection.redis.connection_pool.connection_kwargs["socket_timeout"]
    assert timeout >= 15


def test_a_share_is_given_back_when_the_first_contact_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtjob.queue.connection.OLDEST_VERSION", (99, 0))
    with pytest.raises(QueueError, match="is version"):
        Connection(settings)
    assert not (settings.server_dir / "server.pid").exists()
