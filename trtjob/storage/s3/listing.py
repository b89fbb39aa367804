"""List the images of a bucket's prefix, a page of 1,000 keys at a time, the next page on its way while one is read."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from xml.etree import ElementTree

from trtjob.errors import ImageError, StorageError
from trtjob.imaging.headers import begins_as_image
from trtjob.storage.listing import NO_SUFFIX, Entry, is_unknown, suffix_of, why_not_taken
from trtjob.storage.s3.errors import Damaged
from trtjob.storage.selection import OLDER, Rules

Page = dict[str, Any]

# Of a page so many objects are asked for their first bytes at a time: nearly all of the time of an answer is waiting.
HEADS_AT_ONCE = 32


@dataclass(slots=True)
class BucketListing:
    """The images below a prefix that the rules take, sorted as S3 sorts: by the bytes of UTF-8.

    head: asks for the first bytes of an object whose name does not say what it is, with retries; raises ImageError;
    page: asks for the page that begins behind another one's mark, with retries; mark: of a page, what `page` takes;
    prefix: "" or ends with a slash.
    """

    head: Callable[[Entry], bytes]
    page: Callable[[str], Page]
    mark: Callable[[Page], str]
    prefix: str
    rules: Rules = field(default_factory=Rules)
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        pool = ThreadPoolExecutor(HEADS_AT_ONCE, "trtjob-look")  # which starts a thread when there is something to ask
        try:
            for entries in self._named():
                looks = pool.map(self._begins_as_image, [entry for entry in entries if is_unknown(entry.key)])
                for entry in entries:
                    if is_unknown(entry.key) and not next(looks):
                        self.ignored[suffix_of(entry.key) or NO_SUFFIX] += 1
                    else:
                        yield entry
        finally:
            pool.shutdown(cancel_futures=True)

    def _named(self) -> Iterator[list[Entry]]:
        """Yield of each page what its names do not keep from being taken."""
        last, kind_of_folder = "", _kinds_of_folders(self.rules)
        for objects in self._pages():
            entries = []
            for item in objects:
                key = item["Key"][len(self.prefix) :]
                if key <= last:
                    # AWS and the stores known to us list in this order; plans, their updates and results stand on it.
                    what = f"the store lists {key!r} behind {last!r}: its order is not that of the keys' bytes"
                    raise StorageError(what)
                last = key
                kind = kind_of_folder(key.rpartition("/")[0])
                if kind is None or key.endswith("/"):  # which is what consoles make for an empty folder
                    continue
                entry = Entry(key, item["Size"], item["ETag"].strip('"'), modified_s(item["LastModified"]))
                if kind := kind or self._why_not(entry):
                    self.ignored[kind] += 1
                else:
                    entries.append(entry)
            yield entries

    def _why_not(self, entry: Entry) -> str:
        kind = why_not_taken(entry.key, suffix_of(entry.key), self.rules)
        return kind or (OLDER if self.rules.is_too_old(entry.modified_s) else "")

    def _begins_as_image(self, entry: Entry) -> bool:
        try:
            return begins_as_image(self.head(entry))
        except ImageError:
            return False

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        with ThreadPoolExecutor(1, "trtjob-listing") as ahead:
            coming = ahead.submit(self.page, "")
            while True:
                page = coming.result()
                if page["IsTruncated"]:
                    coming = ahead.submit(self.page, self.mark(page))
                yield page.get("Contents", [])
                if not page["IsTruncated"]:
                    return


def _kinds_of_folders(rules: Rules) -> Callable[[str], str | None]:
    """Return what tells the kind of all that is below a folder, None for one that is not looked into."""

    @lru_cache(maxsize=1024)
    def kind_of(folder: str) -> str | None:
        if not folder:
            return ""
        above = kind_of(folder.rpartition("/")[0])
        if above is None or above:
            return above
        return rules.why_not_folder(folder) if rules.enters(folder) else None

    return kind_of


def last_key(page: Page) -> str:
    """Return the mark of a page behind which the next one begins."""
    return str(page["Contents"][-1]["Key"])


def modified_s(when: str | datetime) -> float:
    """Return when an object was written, in seconds since the epoch, from how it is listed or how boto3 has it."""
    return (when if isinstance(when, datetime) else datetime.fromisoformat(when)).timestamp()


def checked_page(page: Page, follows: str = "Contents") -> Page:
    """Return a page that is one. follows: what says where the next page begins. Raises Damaged for another answer."""
    is_whole = all({"Key", "Size", "ETag", "LastModified"} <= item.keys() for item in page.get("Contents", []))
    if "IsTruncated" not in page or not is_whole or (page["IsTruncated"] and not page.get(follows)):
        raise Damaged("the answer is no page of keys")
    return page


def take_objects(operation_model: Any, response_dict: Page, customized_response_dict: Page, **_: object) -> None:
    """Take the objects out of a page before botocore parses it: an event handler, for `before-parse`.

    botocore needs 0.1 ms for each, most of it for dates that nobody here asks for; this takes a tenth. A page that is
    not as expected is left as it is, and botocore says what is wrong with it.
    """
    if operation_model.name != "ListObjectsV2" or response_dict["status_code"] != HTTPStatus.OK:
        return
    try:
        page = ElementTree.fromstring(response_dict["body"])
        found = [_object(node) for node in page if node.tag.endswith("Contents")]
    except (ElementTree.ParseError, KeyError, ValueError):
        return
    if found:
        page[:] = [node for node in page if not node.tag.endswith("Contents")]
        response_dict["body"] = ElementTree.tostring(page)
        customized_response_dict["Contents"] = found


def _object(node: ElementTree.Element) -> dict[str, Any]:
    fields = {field.tag.rpartition("}")[2]: field.text or "" for field in node}
    size = int(fields["Size"])
    return {"Key": fields["Key"], "Size": size, "ETag": fields["ETag"], "LastModified": fields["LastModified"]}
