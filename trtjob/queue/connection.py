"""The way to the queue's server: the one that `TRTJOB_REDIS_URL` names, else the embedded one."""

import logging
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import ConnectionPool, UnixDomainSocketConnection, parse_url
from redis.credentials import UsernamePasswordCredentialProvider
from redis.retry import Retry

from trtjob.config import Settings
from trtjob.errors import ConfigError, QueueError
from trtjob.queue.embedded_server import EmbeddedServer

log = logging.getLogger(__name__)

OLDEST_VERSION = (6, 2)  # BLMOVE, with which RQ takes a message without a moment where a crash would lose it

CONNECT_TIMEOUT_S = 5.0
# Above the longest time that a command may block: RQ waits for a message for a few seconds at a time.
COMMAND_TIMEOUT_S = 30.0
HEARTBEAT_TIMEOUT_S = 3.0
# A restart of the server, or a short network failure, must not end a worker: this rides out about a minute.
RETRIES, RETRY_BASE_S, RETRY_CAP_S = 30, 0.2, 3.0
HEALTH_CHECK_S = 15

_URL_OPTIONS = frozenset(
    {"db", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
)
_URL_HELP = "TRTJOB_REDIS_URL must look like redis://[user:password@]host:6379/0, rediss://... or unix:///path/to.sock"


class Connection:
    """A client of the queue's server, with the share in the embedded server that keeps it running.

    redis: bytes in, bytes out (RQ needs that); it waits through a restart of the server, so a command may take a
    minute before it raises. Its first use has been checked when the constructor returns.

    A context manager. Raises ConfigError for a wrong URL, QueueError where no server can be started or reached. No
    message and no repr contains the password.
    """

    def __init__(self, settings: Settings) -> None:
        url = settings.redis_url.get_secret_value() if settings.redis_url else None
        self._server: EmbeddedServer | None = None
        self._heartbeat: redis.Redis | None = None
        if url:
            self._target = _target_from_url(url)
        else:
            self._server = EmbeddedServer(settings.server_dir)
            self._target = {"path": str(self._server.socket)}
            self._server.open()
        try:
            self._info = self._first_contact()
        except BaseException:
            if self._server:
                self._server.close()
            raise
        self.redis = self._client(
            socket_timeout=COMMAND_TIMEOUT_S,
            health_check_interval=HEALTH_CHECK_S,
            retry=Retry(ExponentialWithJitterBackoff(base=RETRY_BASE_S, cap=RETRY_CAP_S), RETRIES),
            retry_on_error=[redis.ConnectionError, redis.TimeoutError],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection to {self.place}>"

    @property
    def place(self) -> str:
        """The server's address without user and password."""
        return _place(self._target)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, and so, as a rule, its workers."""
        return "path" in self._target or self._target["host"] in ("localhost", "127.0.0.1", "::1")

    def ensure(self) -> None:
        """Start the embedded server again if it has died; does nothing for a server that is not ours.

        Costs one PING, so it may be called every second. Raises QueueError.
        """
        if self._server:
            self._server.ensure()

    def heartbeat(self) -> redis.Redis:
        """Return a second client, for a thread that must notice within seconds that the server is away.

        It fails after 3 s and one more try; it is made once and belongs to this connection.
        """
        if self._heartbeat is None:
            self._heartbeat = self._client(socket_timeout=HEARTBEAT_TIMEOUT_S, retry=Retry(NoBackoff(), 1))
        return self._heartbeat

    def describe(self) -> str:
        """Return one line for people: which server, which version, where."""
        name = "Valkey" if "valkey_version" in self._info else "Redis"
        version = self._info.get("valkey_version") or self._info.get("redis_version") or "of unknown version"
        if self._server:
            pid = self._server.pid() or "unknown"
            return f"embedded {name} {version}, process {pid}, data in {self._server.dir}, socket {self.place}"
        return f"{name} {version} at {self.place}"

    def close(self) -> None:
        """Close the clients and give back the share in the embedded server; the last one stops it."""
        for client in (self.redis, self._heartbeat):
            if client:
                client.connection_pool.disconnect()
        if self._server:
            self._server.close()

    def _client(self, **options: Any) -> redis.Redis:
        target = dict(self._target)
        if "path" in target:
            target["connection_class"] = UnixDomainSocketConnection
        else:
            options |= {"socket_connect_timeout": min(CONNECT_TIMEOUT_S, options["socket_timeout"])}
            options |= {"socket_keepalive": True}
        return redis.Redis(connection_pool=ConnectionPool(**target, **options, decode_responses=False))

    def _first_contact(self) -> dict[str, Any]:
        """Return what INFO says. Raises QueueError at once where the server is away, too old or a cluster."""
        try:
            info = self._ask_info()
        except QueueError:
            if self._server is None:
                raise
            self._server.ensure()  # killed in the moment since it was opened
            info = self._ask_info()
        self._check(info)
        return info

    def _ask_info(self) -> dict[str, Any]:
        client = self._client(socket_timeout=CONNECT_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
        try:
            info: dict[str, Any] = client.info()
        except redis.AuthenticationError as err:
            raise QueueError(f"{self.place} refuses the user or password of TRTJOB_REDIS_URL: {err}") from err
        except redis.exceptions.NoPermissionError:  # a managed server may forbid INFO; then there is nothing to check
            return {}
        except (redis.RedisError, OSError) as err:
            raise QueueError(
                f"cannot reach the queue's server at {self.place}: {str(err).rstrip('.')}. Is it running, and "
                "is TRTJOB_REDIS_URL right? Without TRTJOB_REDIS_URL trtjob starts a server of its own"
            ) from err
        finally:
            client.connection_pool.disconnect()
        return info

    def _check(self, info: dict[str, Any]) -> None:
        version = str(info.get("redis_version", ""))
        numbers = version.split(".")[:2]
        if len(numbers) == 2 and all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) < OLDEST_VERSION:
            raise QueueError(
                f"the server at {self.place} is version {version}, but trtjob needs Redis 6.2 or Valkey 7.2, or later"
            )
        if info.get("cluster_enabled"):
            raise QueueError(
                f"the server at {self.place} is part of a cluster, but RQ needs a single server: give the URL of one"
            )
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            log.warning(
                "the queue's server may evict keys and so lose jobs; set its maxmemory-policy to noeviction",
                extra={"server": self.place, "maxmemory_policy": policy},
            )


def _target_from_url(url: str) -> dict[str, Any]:
    """Return the pool's arguments for an URL. Raises ConfigError, which never quotes what may hold a password."""
    try:
        parts = urlsplit(url)
        target: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        unknown = parse_qs(parts.query).keys() - _URL_OPTIONS
        is_complete = bool(target.get("path") if parts.scheme == "unix" else target.get("host"))
        is_database = parts.scheme == "unix" or parts.path.strip("/").isdigit() or not parts.path.strip("/")
    except ValueError:
        # Not chained: the cause may quote the password, for instance one with an unescaped slash, as the port.
        raise ConfigError(f"TRTJOB_REDIS_URL cannot be understood. {_URL_HELP}; escape / @ : in a password") from None
    if unknown:
        raise ConfigError(f"TRTJOB_REDIS_URL has an unknown option: {', '.join(sorted(unknown))}. {_URL_HELP}")
    if not is_complete or not is_database:
        raise ConfigError(f"TRTJOB_REDIS_URL lacks a host or path, or its database is not a number. {_URL_HELP}")
    # Held by a provider, the password is not among the arguments that a pool shows in its repr.
    username, password = target.pop("username", None), target.pop("password", None)
    if username or password:
        target["credential_provider"] = UsernamePasswordCredentialProvider(username, password)
    return target


def _place(target: dict[str, Any]) -> str:
    if "path" in target:
        return str(target["path"])
    return f"{target['host']}:{target.get('port', 6379)}/{target.get('db', 0)}"
