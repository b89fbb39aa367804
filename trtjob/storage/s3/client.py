"""The clients of one bucket: boto3 finds credentials, region and endpoint, and lists; obstore moves the bytes.

boto3 costs about ten times the CPU of obstore for each object. obstore alone would not understand all that the AWS
command line does: profiles, roles, `services` sections, instance credentials.
"""

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from trtjob.errors import StorageError
from trtjob.storage.retry import Breaker
from trtjob.storage.s3.errors import Damaged, check_whole, first_line
from trtjob.storage.s3.listing import checked_page, take_objects
from trtjob.storage.trouble import note_trouble

if TYPE_CHECKING:
    from obstore.store import S3Store

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3, 20
WHOLE_TIMEOUT_S = 60  # of a request with its body: obstore has no time-out between two reads
CONNECTIONS = 64
_MD5 = re.compile(r"[0-9a-f]{32}")


class Bucket:
    """One bucket, its clients made once for the process; usable from any thread and event loop."""

    def __init__(self, name: str, *, anonymous: bool) -> None:
        """Find credentials, unless none are to be used, region and endpoint. Raises StorageError for none."""
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        self.name = name
        self.is_anonymous = anonymous
        try:
            session = boto3.session.Session()
            has_credentials = anonymous or session.get_credentials() is not None
            self.client: Any = session.client(
                "s3",
                config=Config(
                    signature_version=UNSIGNED if anonymous else None,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    max_pool_connections=CONNECTIONS,
                    retries={"total_max_attempts": 1},  # the breaker must see every failure
                    # Stores beside AWS's refuse the checksums that boto3 adds by default since 1.36.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (BotoCoreError, ValueError) as err:
            raise StorageError(f"cannot use s3://{name}: {err}. Check the AWS settings (`aws configure list`)") from err
        self.client.meta.events.register_first("before-parse.s3.*", take_objects)
        if not has_credentials:
            raise StorageError(
                f"no credentials for s3://{name}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or "
                "run `aws configure`; a public bucket is read without any by --anonymous"
            )
        self.store = _obstore(name, session, self.client, anonymous=anonymous)
        self.breaker = Breaker(f"s3://{name}", self._works)
        self.etag_is_md5 = True  # until one is seen that is not: encrypted objects have others of the same form
        self._odd_digests: set[str] = set()

    def checked(self, data: bytes, size: int, etag: str | None) -> bytes:
        """Return an answer's bytes if they are whole. Raises Damaged."""
        check_whole(len(data), size)
        if not etag:  # every store sends one; what stands before it and says something else does not
            raise Damaged("the answer is no object: it has no ETag")
        etag = etag.strip('"')
        if self.etag_is_md5 and _MD5.fullmatch(etag):
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if digest != etag and not self._is_known(digest):
                raise Damaged("the bytes are not those of the object's MD5")
        return data

    def _is_known(self, digest: str) -> bool:
        """Say whether the same bytes came before: then it is the etag that is no MD5, as of encrypted objects."""
        self.etag_is_md5 = digest not in self._odd_digests
        self._odd_digests.add(digest)
        return not self.etag_is_md5

    def _works(self) -> bool:
        try:
            checked_page(self.client.list_objects_v2(Bucket=self.name, MaxKeys=1))
        except Exception:  # noqa: BLE001 - botocore, its parsers and urllib3 share no base
            return False
        return True


def _obstore(name: str, session: Any, client: Any, *, anonymous: bool) -> "S3Store":
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    endpoint: str = client.meta.endpoint_url
    is_aws = endpoint.split("//")[-1].split("/")[0].endswith((".amazonaws.com", ".amazonaws.com.cn"))
    style = (client.meta.config.s3 or {}).get("addressing_style", "auto")
    is_virtual = style == "virtual" or (style == "auto" and is_aws and "." not in name)
    place: dict[str, Any] = {}
    if not is_aws:
        place["endpoint"] = endpoint.replace("://", f"://{name}.", 1) if is_virtual else endpoint
    region = client.meta.region_name
    options: Any = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "timeout": timedelta(seconds=WHOLE_TIMEOUT_S),
        "pool_max_idle_per_host": str(CONNECTIONS),
        **_trusted(session),
    }
    return S3Store(
        name,
        **place,
        region="us-east-1" if region in (None, "aws-global") else region,
        virtual_hosted_style_request=is_virtual,
        client_options=options,
        retry_config={"max_retries": 0},
        **({"skip_signature": True} if anonymous else {"credential_provider": Boto3CredentialProvider(session)}),
    )


def _trusted(session: Any) -> dict[str, bytes]:
    """Return the certificates to trust beside the system's: AWS_CA_BUNDLE, or `ca_bundle` of the profile."""
    bundle = session._session.get_config_variable("ca_bundle")
    return {"root_certificate": Path(bundle).read_bytes()} if bundle else {}


_buckets: dict[tuple[str, bool], Bucket] = {}
_buckets_lock = Lock()


def bucket_named(name: str, *, anonymous: bool = False) -> Bucket:
    """Return the process's clients of a bucket. Raises StorageError where no credentials are found."""
    with _buckets_lock:
        if (name, anonymous) not in _buckets:
            _buckets[name, anonymous] = Bucket(name, anonymous=anonymous)
        return _buckets[name, anonymous]


def signed_address(store: Any, path: str, lifetime: timedelta) -> str:
    """Return where anyone gets an object of an obstore for so long. Raises StorageError where nothing can be signed."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        return str(obstore.sign(store, "GET", path, lifetime))
    except (BaseError, ValueError) as err:
        message = f"the address of {path!r} cannot be signed: {first_line(err)}. Check the credentials"
        raise StorageError(message) from err


def forget_buckets() -> None:
    """Find credentials and endpoints anew at the next use."""
    with _buckets_lock:
        for bucket in _buckets.values():
            note_trouble(bucket.breaker.place, "")
        _buckets.clear()
