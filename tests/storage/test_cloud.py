"""Images in Google's and Azure's stores, by what these answer."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from web_server import WebServer, web_server

from trtjob.errors import ConfigError, FailureKind, ImageError, StorageError
from trtjob.jobs.image_list import ImageList
from trtjob.jobs.sources import source_from
from trtjob.jobs.spec import Source
from trtjob.storage import ImageStorage, cloud, open_images
from trtjob.storage.listing import Entry
from trtjob.storage.selection import Rules, Selection

WHEN_S = 1793534400
OBJECT = {"ETag": '"e1"', "Last-Modified": "Sun, 01 Nov 2026 12:00:00 GMT"}


@dataclass(frozen=True)
class Store:
    """A store that a test fills. path: of its bucket."""

    server: WebServer
    uri: str
    path: str

    @property
    def first(self) -> str:
        """What the first page of a listing is asked for with."""
        return "list-type=2&prefix=p%2F" if self.is_google else "restype=container&comp=list&prefix=p%2F"

    @property
    def following(self) -> str:
        """What the page behind the mark `m` is asked for with."""
        return self.first + ("&continuation-token=m" if self.is_google else "&marker=m")

    def behind(self, key: str) -> str:
        """What a listing that begins behind a key is asked for with: of Azure it cannot."""
        return f"{self.first}&start-after={quote(key, safe='')}" if self.is_google else self.first

    @property
    def is_google(self) -> bool:
        return self.uri.startswith("gs:")

    def put_page(self, query: str, *keys: str, next_mark: str = "") -> None:
        """Answer a listing with keys, of an image of seven bytes each."""
        page = _google_page(keys, next_mark) if self.is_google else _azure_page(keys, next_mark)
        self.server.put(f"{self.path}?{query}", page.encode())

    def put(self, key: str, data: bytes = b"picture", status: int = 200, **headers: str) -> None:
        self.server.put(f"{self.path}/{_google_key(key) if self.is_google else key}", data, status, OBJECT | headers)


def _google_key(key: str) -> str:
    return quote(key, safe="").replace(".", "%2E")


def _google_page(keys: tuple[str, ...], next_mark: str) -> str:
    items = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-01T12:00:00.000Z</LastModified><ETag>&quot;e1&quot;</ETag>"
        "<Size>7</Size></Contents>"
        for key in keys
    )
    token = f"<NextContinuationToken>{next_mark}</NextContinuationToken>" if next_mark else ""
    return (
        f"<ListBucketResult><IsTruncated>{'true' if token else 'false'}</IsTruncated>{items}{token}</ListBucketResult>"
    )


def _azure_page(keys: tuple[str, ...], next_mark: str) -> str:
    items = "".join(
        f"<Blob><Name>{key}</Name><Properties><Last-Modified>{OBJECT['Last-Modified']}</Last-Modified>"
        "<Etag>e1</Etag><Content-Length>7</Content-Length><Content-Type>image/jpeg</Content-Type></Properties></Blob>"
        for key in keys
    )
    return f"<EnumerationResults><Blobs>{items}</Blobs><NextMarker>{next_mark}</NextMarker></EnumerationResults>"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Both stores, of which this process finds the credentials."""
    with web_server() as server:
        monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", server.url)
        cloud.forget_buckets()
        yield server
        cloud.forget_buckets()


@pytest.fixture(params=["gs://photos/p", "az://photos/p"])
def store(server: WebServer, request: pytest.FixtureRequest) -> Store:
    return Store(server, request.param, "/photos" if request.param[0] == "g" else "/devstoreaccount1/photos")


def storage(store: Store) -> ImageStorage:
    return open_images(store.uri, on_trouble=lambda _: None)


def listed(store: Store, rules: Rules | None = None) -> list[str]:
    return [entry.key for entry in storage(store).images(rules)]


def test_what_is_below_a_prefix_is_listed_page_by_page(store: Store) -> None:
    store.put_page(store.first, "p/@eaDir/a.jpg", "p/a b.jpg", next_mark="m")
    store.put_page(store.following, "p/n.txt", "p/x.jpg/b.jpg", "p/é.jpg")
    images = storage(store).images()
    assert [*images] == [Entry(key, 7, "e1") for key in ("a b.jpg", "x.jpg/b.jpg", "é.jpg")]
    assert images.ignored == {"@eaDir": 1, ".txt": 1}
    assert listed(store, Rules(Selection(recursive=False))) == ["a b.jpg", "é.jpg"]
    assert listed(store, Rules(Selection(since_s=WHEN_S + 1))) == []


def test_an_object_whose_name_says_nothing_is_what_it_begins_with(store: Store) -> None:
    store.put_page(store.first, "p/IMG1", "p/README", "p/a.txt")
    part = {"Content-Range": "bytes 0-6/7"}
    store.put("p/IMG1", b"", status=503)
    store.put("p/IMG1", b"GIF89a.", 206, **part)
    store.put("p/README", b"Read me", 206, **part)
    images = storage(store).images()
    assert [*images] == [Entry("IMG1", 7, "e1")]
    assert images.ignored == {".txt": 1, "no suffix": 1}
    assert len(store.server.heard) == 4


def test_a_listing_that_fails_goes_on_behind_what_came(store: Store) -> None:
    keys = [f"p/{number:04d}.jpg" for number in range(1000)]
    store.put_page(store.first, *keys, next_mark="m")
    store.server.put(f"{store.path}?{store.following}", b"", status=503)
    store.put_page(store.behind(keys[-1]), *([] if store.is_google else keys), "p/b.jpg")
    assert listed(store) == [*(key.removeprefix("p/") for key in keys), "b.jpg"]
    assert len(store.server.heard) == 3


def test_an_image_is_read_by_its_key(store: Store) -> None:
    for _ in range(4):
        store.put("p/a.jpg")
    images = storage(store)
    entry = images.entry("a.jpg")
    assert entry == Entry("a.jpg", 7, "e1")
    assert entry.modified_s == WHEN_S
    assert images.fetch(entry) == asyncio.run(images.afetch(entry)) == b"picture"
    assert images.place("a.jpg") == f"{store.uri}/a.jpg"
    assert images.entry("gone.jpg") == Entry("gone.jpg", 0, "")
    with pytest.raises(ImageError, match="not there any more") as caught:
        images.fetch(Entry("gone.jpg", 7, "e"))
    assert caught.value.kind is FailureKind.MISSING


def test_a_video_is_read_in_parts(store: Store) -> None:
    store.put("p/a.mp4", b"ictu", 206, **{"Content-Range": "bytes 1-4/7"})
    file = storage(store).open(Entry("a.mp4", 5, "e1"))
    file.seek(1)
    assert file.read(4) == b"ictu"


def test_what_may_pass_is_tried_again(store: Store) -> None:
    store.put("p/a.jpg", b"", status=503)
    store.put("p/a.jpg")
    assert storage(store).fetch(Entry("a.jpg", 7, "e1")) == b"picture"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        pytest.param(403, b"<Error><Code>AccessDenied</Code></Error>", "AccessDenied. ", id="denied"),
        pytest.param(401, b"", "status 401. ", id="unknown"),
        pytest.param(404, b"<Error><Code>NoSuchBucket</Code></Error>", "no such bucket", id="no-bucket"),
        pytest.param(409, b"<Error><Code>PublicAccessNotPermitted</Code></Error>", "no credentials. ", id="not-public"),
    ],
)
def test_what_a_person_must_do_is_said_at_once(store: Store, status: int, body: bytes, told: str) -> None:
    store.server.put(f"{store.path}?{store.first}", body, status)
    with pytest.raises(StorageError, match=told) as caught:
        listed(store)
    if told.endswith(". "):
        assert "by --anonymous" in str(caught.value)
    assert len(store.server.heard) == 1


def test_a_public_bucket_is_read_without_credentials(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_BEARER_TOKEN")
    server.put("/photos/a%2Ejpg", b"picture", headers=OBJECT)
    assert open_images("gs://photos", anonymous=True).fetch(Entry("a.jpg", 7, "e1")) == b"picture"


def test_a_container_of_nobody_knows_whose_account_is_refused(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_USE_EMULATOR")
    with pytest.raises(StorageError, match=r"Account must be specified\. Set AZURE_STORAGE_ACCOUNT_NAME"):
        open_images("az://photos")


@pytest.mark.parametrize("key", ["a//b.jpg", "a\x01.jpg", "./a.jpg"])
def test_a_key_that_obstore_cannot_say_is_that_images_failure(store: Store, key: str) -> None:
    assert storage(store).entry(key) == Entry(key, 0, "")
    with pytest.raises(ImageError, match="the object's key has a part"):
        storage(store).fetch(Entry(key, 7, "e"))


# -- as a source -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("list.csv", "is a list: copy it to a folder first"),
        ("photos.zip", "is an archive. Unpack it first"),
        ("clip.mp4", r"is a video\. .*pip install 'trtjob\[video\]'"),
    ],
)
def test_an_object_that_is_no_image_is_said_to_be_what_it_is(store: Store, name: str, told: str) -> None:
    store.put(f"p/{name}")
    with pytest.raises(ConfigError, match=told):
        source_from(f"{store.uri}/{name}")


def test_an_object_whose_name_says_nothing_is_a_source_where_no_image_is_below_it(store: Store) -> None:
    store.put("p/IMG1")
    for name in ("IMG1", "gone"):
        store.put_page(store.first.replace("p%2F", f"p%2F{name}%2F"))
    assert source_from(f"{store.uri}/IMG1") == (Source(kind="list", root=store.uri), ["IMG1"])
    with pytest.raises(ConfigError, match="no image in"):
        source_from(f"{store.uri}/gone")


def test_a_prefix_an_image_and_a_pattern_are_sources(store: Store) -> None:
    scheme = store.uri.split(":")[0]
    store.put("p/a.jpg")
    store.put_page(store.first, "p/a.jpg", "p/b.png")
    assert source_from(store.uri + "/") == (Source(kind="folder", root=store.uri), [])
    assert source_from(f"{scheme.upper()}://photos/p/a.jpg") == (Source(kind="list", root=store.uri), ["a.jpg"])
    store.put_page(store.first.replace("p%2F", "p%2F*.png%2F"))  # nothing has the pattern for its name
    pattern, _ = source_from(f"{store.uri}/*.png")
    assert (pattern.root, pattern.patterns) == (store.uri, ("/*.png",))
    names = ImageList((f"{store.uri}/a.jpg", "s3://photos/b.jpg"), Path("/"))
    mixed, keys = source_from(names)
    assert sorted(mixed.roots) == sorted([f"{scheme}://photos", "s3://photos"])
    assert len(keys) == 2
