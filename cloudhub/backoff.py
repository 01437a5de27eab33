"""
Whether and when to try again, as pure functions of what went wrong.

Delays have full jitter (uniform between nothing and a ceiling that doubles): after an apiserver's restart all
clients come back, and spread over the whole interval they disturb it least (AWS Architecture Blog,
"Exponential Backoff And Jitter", 2015).
"""

from apimachinery.errors import ApiError, Conflict, Expired, NotFound, Unauthorized, is_retriable

BASE_S = 0.25
CAP_S = 15.0  # client-go's reflector has 30; here a person may be waiting for a device to obey
ABSENT_CAP_S = 2.0  # a resource that is not defined: one small request now and then, and its user is at the keyboard
CONFLICT_CAP_S = 1.0  # somebody else writes the same object: read again soon


def full_jitter_s(failures: int, jitter: float, cap_s: float = CAP_S) -> float:
    """
    The delay before the next attempt, in seconds.

    failures: how many attempts have failed in a row, from 1. jitter: uniform in [0, 1).
    """
    return jitter * min(cap_s, BASE_S * 2.0 ** min(failures, 16))


def read_delay_s(error: ApiError, failures: int, jitter: float) -> float:
    """
    When to list or watch again.

    Reading is never given up: rights can be granted and definitions applied while we wait.
    """
    match error:
        case Expired():
            # Listing again is the cure, not waiting; a second Expired in a row is a server in trouble.
            return 0.0 if failures <= 1 else full_jitter_s(failures, jitter)
        case NotFound():
            return full_jitter_s(failures, jitter, ABSENT_CAP_S)
        case _:
            return max(full_jitter_s(failures, jitter), float(error.retry_after_s or 0))


def write_delay_s(error: ApiError, failures: int, jitter: float) -> float | None:
    """When to write again; None when the same request would be refused again."""
    if isinstance(error, Conflict):
        # The first conflict is mostly our own stale copy: read and write again at once.
        return 0.0 if failures <= 1 else full_jitter_s(failures, jitter, CONFLICT_CAP_S)
    if is_retriable(error) or isinstance(error, Unauthorized):
        return max(full_jitter_s(failures, jitter), float(error.retry_after_s or 0))
    return None
