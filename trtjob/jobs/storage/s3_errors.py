"""What an S3 store's refusals mean: whether trying again may help, and what a person can do."""

import re
from enum import Enum

from trtjob.errors import StorageError


class Absent(Exception):
    """There is no such object."""


class Exists(Exception):
    """The object is there."""


class Damaged(Exception):
    """An answer is not what it says it is."""


class Verdict(Enum):
    """What a failed request calls for."""

    AGAIN = "again"  # the network or the store failed: it may pass
    ABSENT = "absent"  # there is no such object
    EXISTS = "exists"  # created only if absent, and it is there
    PERSON = "person"  # a person must do something: credentials, permissions, the bucket's name


_CREDENTIALS = "Check the credentials (environment, AWS_PROFILE, `aws configure`) and AWS_ENDPOINT_URL"
_HINTS = {
    "SignatureDoesNotMatch": f"the secret key is wrong. {_CREDENTIALS}",
    "InvalidAccessKeyId": f"the access key is not known there. {_CREDENTIALS}",
    "ExpiredToken": "the session's token has run out. Log in again (aws sso login, for instance)",
    "InvalidToken": f"the session's token is not valid. {_CREDENTIALS}",
    "AccessDenied": "access is denied. Ask for the permissions s3:ListBucket and s3:GetObject, for outputs also "
    "s3:PutObject and s3:DeleteObject",
    "NoSuchBucket": "there is no such bucket. Check its name, and AWS_ENDPOINT_URL where it is not at AWS",
    "RequestTimeTooSkewed": "this machine's clock is wrong. Set it",
    "PermanentRedirect": "the bucket is in another region. Set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region. Set AWS_REGION",
    "NotImplemented": "the store cannot do what is needed here: it must support If-None-Match on PUT",
}
_AGAIN_STATUS = frozenset({408, 425, 429})
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_NETWORK = {
    "Connect": "no connection",
    "Timeout": "no answer in time",
    "Interrupted": "the connection broke off",
    "Request": "the connection broke off",
    "Decode": "the answer broke off",
}


def judge(err: Exception) -> tuple[Verdict, str]:
    """Return what an error of a request calls for, and its reason in a few words, without URL or signature."""
    if isinstance(err, Damaged):
        return Verdict.AGAIN, str(err)
    if isinstance(err, TimeoutError):
        return Verdict.AGAIN, "no answer in time"
    code, status, text = _parts(err)
    if code == "NoSuchBucket":
        return Verdict.PERSON, code
    if isinstance(err, FileNotFoundError) or status == 404:
        return Verdict.ABSENT, code or "not found"
    if status in (409, 412):
        return Verdict.EXISTS, code
    if code in _HINTS:
        return Verdict.PERSON, code
    if status and 400 <= status < 500 and status not in _AGAIN_STATUS:
        return Verdict.PERSON, code or f"status {status}"
    if status:
        return Verdict.AGAIN, f"{code} (status {status})" if code else f"status {status}"
    kind = re.search(r"kind: (\w+)", text)
    return Verdict.AGAIN, _NETWORK.get(kind[1], "the request failed") if kind else type(err).__name__


def _parts(err: Exception) -> tuple[str, int, str]:
    """Return an error's S3 code, HTTP status (0: none) and text."""
    response = getattr(err, "response", None)  # botocore's ClientError
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return ("" if code.isdigit() else code), status, ""
    text = str(err)
    code_match, status_match = _CODE.search(text), _STATUS.search(text)
    return code_match[1] if code_match else "", int(status_match[1]) if status_match else 0, text


def person_error(place: str, what: str, reason: str) -> StorageError:
    """Return the error that tells a person what to do. what: `read`, `write`, `list`."""
    return StorageError(f"cannot {what} {place}: {_HINTS.get(reason, reason)}")
