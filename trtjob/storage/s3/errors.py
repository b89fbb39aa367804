"""What an S3 store's refusals mean: whether trying again may help, and what a person can do."""

import re
from enum import Enum

from trtjob.errors import StorageError


class Damaged(Exception):
    """An answer is not what it says it is."""


class Verdict(Enum):
    """What a failed request calls for."""

    AGAIN = "again"  # the network or the store failed: it may pass
    ABSENT = "absent"  # there is no such object
    UNMET = "unmet"  # the request's condition does not hold: the object is there, or is another one by now
    PERSON = "person"  # a person must do something: credentials, permissions, the bucket's name


_CREDENTIALS = "Check the credentials (environment, AWS_PROFILE, `aws configure`) and AWS_ENDPOINT_URL"
_FULL = "the store is full. Free some space, then run the same command again: it does only what is missing"
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
    "NotImplemented": "the store cannot do what is needed here: it must support If-None-Match on PUT. "
    "Use another store",
    "status 401": f"the credentials are refused. {_CREDENTIALS}",
    "status 403": f"access is denied. Ask for the permissions that are needed. {_CREDENTIALS}",
    "StorageFull": _FULL,
    "XMinioStorageFull": _FULL,
    "QuotaExceeded": _FULL,
}
# What may pass, whatever the status that it comes with. See "Error responses" of the S3 API, and botocore's retries.
_AGAIN = frozenset(
    {
        "BadDigest",
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "NoSuchUpload",  # ended by somebody who clears up: it begins anew
        "OperationAborted",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_CLOSED = frozenset({"AccessDenied", "AuthorizationPermissionMismatch", "BlobArchived", "InvalidObjectState"})
_AGAIN_STATUS = frozenset({408, 409, 425, 429})
_PERSON_STATUS = {301: "PermanentRedirect", 307: "PermanentRedirect", 501: "NotImplemented", 507: "StorageFull"}
ABSENT_BUCKET = "NoSuchBucket"  # also what an absent object means to those who need none: who write, or list
ONCE_MORE = "Run the same command again; where it stays so, the store's own log says more"
_ELSE = "Check the address, the permissions and AWS_ENDPOINT_URL; the store's own log says more"
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
    if status or isinstance(err, FileNotFoundError):
        return _judge_answer(code, status)
    if "redirect without LOCATION" in text or isinstance(err, RecursionError):  # obstore's and botocore's ways
        return Verdict.PERSON, "PermanentRedirect"
    if type(err).__name__ == "ParamValidationError":  # botocore's, before anything is sent: a bucket's name, say
        return Verdict.PERSON, " ".join(text.split())
    kind = re.search(r"kind: (\w+)", text)
    return Verdict.AGAIN, _NETWORK.get(kind[1], "the request failed") if kind else type(err).__name__


def _judge_answer(code: str, status: int) -> tuple[Verdict, str]:
    """status: 0 where only obstore knows that it was 404."""
    told = f"{code} (status {status})" if code else f"status {status}"
    if code in _AGAIN or status in _AGAIN_STATUS:
        return Verdict.AGAIN, told
    if code in _HINTS:
        return Verdict.PERSON, code
    if status in (0, 404):
        return Verdict.ABSENT, code or "not found"
    if status == 412:
        return Verdict.UNMET, told
    if status in _PERSON_STATUS:
        return Verdict.PERSON, _PERSON_STATUS[status]
    if 300 <= status < 500:
        return Verdict.PERSON, f"status {status}" if f"status {status}" in _HINTS else told
    return Verdict.AGAIN, told


def is_closed(err: Exception) -> bool:
    """Whether one object is refused where others may be read: it is archived, or somebody else's."""
    code, _, _ = _parts(err)
    return code in _CLOSED


def check_whole(came: int, size: int) -> None:
    """Raise Damaged where not all bytes of an answer have come."""
    if came != size:
        raise Damaged(f"{came:,} of {size:,} bytes came")


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


def first_line(err: Exception) -> str:
    """Return the first line of what an error of obstore says; the others are of its insides."""
    return " ".join(str(err).split("\n", 1)[0].split())


def person_error(place: str, what: str, reason: str) -> StorageError:
    """Return the error that tells a person what to do. what: was asked, as of `BucketRequests`; reason: of `judge`."""
    return StorageError(f"cannot {what} {place}: {_HINTS.get(reason, f'{reason}. {_ELSE}')}")
