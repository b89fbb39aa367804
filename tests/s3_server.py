"""A real S3 server, on loopback unless told otherwise, for the length of a test session: SeaweedFS, in one process."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ports import free_ports

KEY, SECRET = "trtjob-test", "trtjob-test-secret"
READER_KEY, READER_SECRET = "reader", "reader-secret"
PUBLIC = "for-everybody"  # the bucket that is read without credentials
REGION = "us-east-1"
START_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where it listens, and whom it lets in."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """Return the boto3 client for a look from outside."""
        return _client(self.endpoint)

    def new_bucket(self) -> str:
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name


@lru_cache
def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=REGION
    )


def weed() -> str | None:
    """Return the server's program, None where its package is not installed."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextmanager
def s3_server(folder: Path, address: str = "127.0.0.1", within: Sequence[str] = ()) -> Iterator[S3Server]:
    """Run a server with its data below a folder. within: what starts a command elsewhere, when put before it."""
    program = weed()
    assert program is not None
    identities = folder / "identities.json"
    identities.write_text(
        json.dumps(
            {
                "identities": [
                    _identity("owner", KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
                    _identity("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
                    {"name": "anonymous", "credentials": [], "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]},
                ]
            }
        )
    )
    s3, master, volume, filer = free_ports(4)
    (folder / "data").mkdir()
    command = [*within, program, "server", f"-dir={folder / 'data'}", f"-ip={address}", f"-ip.bind={address}"]
    command += ["-s3", "-filer"]
    command += [f"-s3.port={s3}", f"-s3.config={identities}", "-master.volumeSizeLimitMB=64"]
    # Each bucket takes some volumes, empty at first; by default there are only as many as the disk has room for.
    command += ["-volume.max=20000"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "GOMAXPROCS": "1"},  # threads that look for work take a sixth of what it costs
        )
    server = S3Server(f"http://{address}:{s3}")
    try:
        _await(server, process, folder / "weed.log")
        yield server
    finally:
        process.kill()  # its data go with the folder
        process.wait()


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _await(server: S3Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a bucket can be made and written."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            server.client().put_object(Bucket=server.new_bucket(), Key="ready", Body=b"")
        except (BotoCoreError, ClientError) as err:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the S3 server does not start: {err}\n{log.read_text()[-2000:]}") from err
            time.sleep(0.1)
        else:
            return
