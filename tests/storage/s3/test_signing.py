"""Addresses that are signed: whoever has one gets the object, and no other one."""

import urllib.error
import urllib.request
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from epochs import job_spec
from s3_server import PUBLIC, S3Server

from trtjob.errors import ConfigError, StorageError
from trtjob.jobs.report.signed import signed_originals
from trtjob.jobs.spec import Part, Source
from trtjob.storage import open_storage
from trtjob.storage.signing import signer

HOUR = timedelta(hours=1)


def got(address: str | None) -> bytes:
    assert address is not None
    with urllib.request.urlopen(address) as answer:
        data: bytes = answer.read()
        return data


def test_whoever_has_a_signed_address_gets_the_object_and_no_other(bucket: str) -> None:
    storage = open_storage(f"s3://{bucket}/my photos")
    for key in ("day/ü #1.jpg", "b.jpg"):
        storage.put(key, key.encode())
    address_of = signer(f"s3://{bucket}/my photos", HOUR)
    address = address_of("day/ü #1.jpg")
    assert got(address) == "day/ü #1.jpg".encode()
    assert address is not None
    for other in (address.partition("?")[0], address.replace("day/%C3%BC%20%231.jpg", "b.jpg")):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            got(other)
    assert address_of("new\nline.jpg") is None


def test_what_is_read_without_credentials_has_its_public_address(s3: S3Server) -> None:
    with suppress(s3.client().exceptions.BucketAlreadyExists, s3.client().exceptions.BucketAlreadyOwnedByYou):
        s3.client().create_bucket(Bucket=PUBLIC)
    s3.client().put_object(Bucket=PUBLIC, Key="signing/a b.jpg", Body=b"picture")
    address = signer(f"s3://{PUBLIC}/signing", HOUR, anonymous=True)("a b.jpg")
    assert address == f"{s3.endpoint}/{PUBLIC}/signing/a%20b.jpg"
    assert got(address) == b"picture"


def test_azure_signs_with_the_accounts_key_and_without_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5a2V5a2V5")
    address = signer("az://signing/p", HOUR)("a b.jpg")
    assert address is not None
    assert address.startswith("https://account.blob.core.windows.net/signing/p/a%20b.jpg?")
    assert parse_qs(address.partition("?")[2])["sp"] == ["r"]  # to read, and no more; in any order
    with pytest.raises(StorageError, match="cannot be signed"):
        signer("az://signing/p", HOUR, anonymous=True)("a.jpg")


def test_an_image_of_a_job_has_its_files_address_in_the_place_that_it_is_from(bucket: str, tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    roots = {"s3": f"s3://{bucket}/p", "disk": "/photos"}
    parts = tuple(Part(name=name, root=root, is_listed=True) for name, root in roots.items())
    options = spec.options.model_copy(update={"pages": "all", "frames": "fps=1"})
    job = spec.model_copy(update={"source": Source(kind="folder", root="", parts=parts), "options": options})
    address_of = signed_originals(job, HOUR)
    for image in ("s3/a.tif#3", "s3/a.tif"):
        address = address_of(image)
        assert address is not None
        assert address.partition("?")[0].endswith(f"/{bucket}/p/a.tif")
    named_as_a_frame = address_of("s3/a#t=1.tif")  # and is none
    assert named_as_a_frame is not None
    assert named_as_a_frame.partition("?")[0].endswith(f"/{bucket}/p/a%23t%3D1.tif")
    assert address_of("disk/a.tif") is None
    with pytest.raises(ConfigError, match="in no bucket"):
        signed_originals(spec, HOUR)
