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

from trtjob.errors import StorageError
from trtjob.storage.listing import Entry, why_not_taken
from trtjob.storage.s3.errors import Damaged
from trtjob.storage.selection import OLDER, Rules

Page = dict[str, Any]


@dataclass(slots=True)
class S3Listing:
    """The images below a prefix that the rules take, sorted as S3 sorts: by the bytes of UTF-8.

    page: asks for the page that begins behind another one's mark, with retries; mark: of a page, what `page` takes;
    prefix: "" or ends with a slash.
    """

    page: Callable[[str], Page]
    mark: Callable[[Page], str]
    prefix: str
    rules: Rules = field(default_factory=Rules)
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        cut, last = len(self.prefix), ""
        kind_of_folder = _kinds_of_folders(self.rules)
        for item in self._objects():
            key = item["Key"][cut:]
            if key <= last:
                # AWS and the stores known to us list in this order; the plan, its updates and the results stand on it.
                raise StorageError(f"the store lists {key!r} behind {last!r}: its order is not that of the keys' bytes")
            last = key
            kind = kind_of_folder(key.rpartition("/")[0])
            if kind is None or key.endswith("/"):  # which is what consoles make for an empty folder
                continue
            if kind := kind or why_not_taken(key, self.rules):
                self.ignored[kind] += 1
                continue
            entry = Entry(key, item["Size"], item["ETag"].strip('"'), modified_s(item["LastModified"]))
            if self.rules.is_too_old(entry.modified_s):
                self.ignored[OLDER] += 1
            else:
                yield entry

    def _objects(self) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(1, "trtjob-listing") as ahead:
            coming = ahead.submit(self.page, "")
            while True:
                page = coming.result()
                if page["IsTruncated"]:
                    coming = ahead.submit(self.page, self.mark(page))
                yield from page.get("Contents", [])
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
