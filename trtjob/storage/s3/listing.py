"""List the images of a bucket's prefix, a page of 1,000 keys at a time, the next page on its way while one is read."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from xml.etree import ElementTree

from trtjob.errors import StorageError
from trtjob.storage.listing import IMAGE_SUFFIXES, Entry, suffix_of
from trtjob.storage.s3.errors import Damaged

Page = dict[str, Any]


@dataclass(slots=True)
class S3Listing:
    """The images below a prefix, behind the key `after`, sorted as S3 sorts: by the bytes of UTF-8.

    page: asks for the page that begins behind a key of the bucket, with retries; prefix: "" or ends with a slash.
    """

    page: Callable[[str], Page]
    prefix: str
    after: str = ""
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        cut, last = len(self.prefix), ""
        for item in self._objects():
            key = item["Key"][cut:]
            if key <= last:
                # AWS and the stores known to us list in this order; the plan, its updates and the results stand on it.
                raise StorageError(f"the store lists {key!r} behind {last!r}: its order is not that of the keys' bytes")
            last = key
            suffix = suffix_of(key)
            if suffix in IMAGE_SUFFIXES:
                yield Entry(key, item["Size"], item["ETag"].strip('"'))
            elif not key.endswith("/"):  # which is what consoles make for an empty folder
                self.ignored[suffix or "no suffix"] += 1

    def _objects(self) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(1, "trtjob-listing") as ahead:
            coming = ahead.submit(self.page, self.prefix + self.after if self.after else "")
            while True:
                page = coming.result()
                found = page.get("Contents", [])
                if page["IsTruncated"]:
                    coming = ahead.submit(self.page, found[-1]["Key"])
                yield from found
                if not page["IsTruncated"]:
                    return


def checked_page(page: Page, follows: str = "Contents") -> Page:
    """Return a page that is one. follows: what says where the next page begins. Raises Damaged for another answer."""
    is_whole = all({"Key", "Size", "ETag"} <= item.keys() for item in page.get("Contents", []))
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
    return {"Key": fields["Key"], "Size": int(fields["Size"]), "ETag": fields["ETag"]}
