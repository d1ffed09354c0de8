"""What schemathesis cannot read from the OpenAPI document, but the contract says."""

import os
from datetime import datetime, timezone

import schemathesis
from schemathesis.core.failures import ServerError
from schemathesis.openapi.checks import RejectedPositiveData

CALLER = os.environ["FRONTROW_FUZZ_CALLER"]

# A waiting room takes nobody more (503).
ROOM = {"ROOM_CLOSED", "ROOM_FULL"}

# What a request may be refused for although its form is right: what there is already, and who asks. Never MALFORMED_REQUEST.
STATE = ROOM | {
    "NOT_YOUR_RESOURCE",
    "NOT_FOUND",
    "CONCERT_NOT_FOUND",
    "PERFORMANCE_DATE_NOT_FOUND",
    "SEAT_NOT_FOUND",
    "RESERVATION_NOT_FOUND",
    "SOLD_OUT",
    "SALE_PAUSED",
    "NOT_ON_SALE",
    "SEAT_LIMIT_EXCEEDED",
    "SEAT_NOT_AVAILABLE",
    "RESERVATION_EXPIRED",
    "RESERVATION_CANCELLED",
    "ALREADY_PAID",
    "INSUFFICIENT_BALANCE",
    "ACCOUNT_CONFLICT",
    "CONFLICT",
    "IDEMPOTENCY_KEY_REUSED",
    # A place of another room, and one that is used up: who pays gives it up.
    "WAIT_TOKEN_INVALID",
    "WAIT_TOKEN_EXPIRED",
}
if CALLER != "operator":
    STATE.add("FORBIDDEN")
if CALLER != "buyer":
    STATE.add("WAIT_TOKEN_NOT_ACTIVE")

# What an operator may not do although it is signed in: a token with a role is not renewed.
NOT_FOR_OPERATORS = {"renewSession"}

# The fields with rules that a schema cannot say.
RULES = {
    # Characters are counted in NFC; invisible ones beyond the basic plane are none of a pattern.
    "createConcert": {"title", "venue"},
    # Each section once, and 200,000 seats in all; sales start before the performance. Labels as above.
    "createPerformanceDate": {"sections", "onSaleAt", "section", "grade"},
    # How many seats a person may hold is configured.
    "reserveSeats": {"seatIds"},
}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Refusals of valid requests are failures, unless they are for what there is or who asks."""
    if isinstance(failure, ServerError):
        # Not of the server, but of the room.
        return response.json()["code"] not in ROOM
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = response.json()
    if problem["code"] == "INVALID_REQUEST":
        return problem["field"] not in RULES.get(case.operation.definition.raw["operationId"], ())
    if problem["code"] == "FORBIDDEN" and case.operation.definition.raw["operationId"] in NOT_FOR_OPERATORS:
        return False
    return problem["code"] not in STATE


@schemathesis.hook
def filter_body(context, body):
    """Leaves times out that RFC 3339 can write, but that are not in the years 1 to 9999 of UTC: no schema can say that of an offset."""
    times = [body.get(name) for name in ("startsAt", "onSaleAt")] if isinstance(body, dict) else []
    return all(not isinstance(time, str) or has_year(time) for time in times)


def has_year(text):
    try:
        datetime.fromisoformat(text).astimezone(timezone.utc)
    except OverflowError:
        return False
    except ValueError:
        pass
    return True


@schemathesis.hook
def map_body(context, body):
    """Writes 1.0 as 1: JSON Schema takes both for integers, the contract refuses fractions."""
    if isinstance(body, float) and body.is_integer():
        return int(body)
    if isinstance(body, list):
        return [map_body(context, item) for item in body]
    if isinstance(body, dict):
        return {name: map_body(context, value) for name, value in body.items()}
    return body
