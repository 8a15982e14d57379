import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from urllib.error import HTTPError

import aiohttp
import httpx
import openai
import pytest
import requests
from aiohttp.http_exceptions import BadStatusLine
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from langchain_slm.errors import (
    BrokenStreamError,
    BudgetExceededError,
    DeadlineExceededError,
    EndpointError,
    IncompleteAnswerError,
)
from langchain_slm.routing.failures import (
    is_callers_fault,
    is_transient,
    is_typed,
    named,
    status_of,
    wait_s,
)

ADDRESS = "http://localhost:9/v1/chat/completions"
REQUEST = httpx.Request("POST", ADDRESS)


def of_openai(status, **headers):
    """What its client raises for a status, of the class that it chooses."""
    client = openai.OpenAI(api_key="any", base_url="http://localhost:9/v1")
    response = httpx.Response(status, request=REQUEST, headers=headers)
    return client._make_status_error("no", body=None, response=response)


def of_httpx(status, **headers):
    response = httpx.Response(status, request=REQUEST, headers=headers)
    return httpx.HTTPStatusError("no", request=REQUEST, response=response)


def of_requests(status, **headers):
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return requests.HTTPError("no", response=response)


def of_aiohttp(status, **headers):
    url = URL(ADDRESS)
    told = CIMultiDictProxy(CIMultiDict(headers))
    about = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict()), url)
    return aiohttp.ClientResponseError(about, (), status=status, headers=told)


def of_nvidia(status, **headers):
    return Exception(f"[{status}] Unknown Error\n{{'error': 'no'}}")


class GoogleError(Exception):
    code = HTTPStatus.SERVICE_UNAVAILABLE


class BotoError(Exception):
    response: Mapping[str, Mapping[str, int]] = {
        "ResponseMetadata": {"HTTPStatusCode": 503}
    }


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError


STATUS_ERRORS = [of_openai, of_httpx, of_requests, of_aiohttp, of_nvidia]


def unreadable():
    """What aiohttp raises for a response that is none: it calls it a 400."""
    error = of_aiohttp(400)
    error.__cause__ = BadStatusLine("garbage")
    return error


# The status


@pytest.mark.parametrize("make", STATUS_ERRORS)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 503])
def test_the_status_is_read_from_the_exceptions_of_each_client(make, status):
    assert status_of(make(status)) == status


@pytest.mark.parametrize(
    "error",
    [
        GoogleError(),
        BotoError(),
        HTTPError(ADDRESS, 503, "Unavailable", None, None),
    ],
)
def test_the_status_is_read_under_other_names_too(error):
    assert status_of(error) == 503


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ValueError(),
        ValueError(503),
        ValueError("[9999] too long"),
        ValueError("[000] not HTTP's"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        UnspeakableError("quiet"),
        openai.APIConnectionError(request=REQUEST),
        requests.ConnectionError("refused"),
        httpx.ReadTimeout("late", request=REQUEST),
        aiohttp.ServerDisconnectedError(),
        of_aiohttp(0),
        unreadable(),
    ],
    ids=repr,
)
def test_an_exception_without_a_status_has_none(error):
    assert status_of(error) is None


def test_a_code_that_is_no_status_is_none():
    error = openai.APIError("no", request=REQUEST, body={"code": "rate_limited"})
    assert status_of(error) is None


# The name


def test_a_failure_is_named_by_its_class_and_status():
    assert named(of_openai(429)) == "RateLimitError (HTTP 429)"
    assert named(of_nvidia(503)) == "Exception (HTTP 503)"
    assert named(ValueError("no")) == "ValueError"


def test_a_name_never_quotes_the_text():
    assert named(ValueError("my card is 4111")) == "ValueError"
    assert named(UnspeakableError("my card is 4111")) == "UnspeakableError"


# Whether another try may help


@pytest.mark.parametrize("make", STATUS_ERRORS)
@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_these_statuses_are_transient(make, status):
    assert is_transient(make(status))


@pytest.mark.parametrize("make", STATUS_ERRORS)
@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413, 422])
def test_other_statuses_are_not_transient(make, status):
    assert not is_transient(make(status))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        OSError(errno.ENETUNREACH, "unreachable"),
        TimeoutError("late"),
        socket.gaierror(socket.EAI_AGAIN, "no name"),
        ssl.SSLEOFError("cut"),
        openai.APIConnectionError(request=REQUEST),
        openai.APITimeoutError(request=REQUEST),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("cut"),
        requests.ConnectionError("refused"),
        requests.ReadTimeout("late"),
        requests.exceptions.ChunkedEncodingError("cut"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ServerTimeoutError("late"),
        aiohttp.ClientOSError(errno.ECONNRESET, "reset"),
        aiohttp.ClientPayloadError("cut"),
        IncompleteAnswerError("cut"),
    ],
    ids=repr,
)
def test_connections_that_break_are_transient(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("HTML"),
        TypeError("null"),
        IndexError("no choices"),
        Exception("no"),
        UnspeakableError("quiet"),
        # `requests` calls these OSErrors.
        requests.exceptions.JSONDecodeError("HTML", "<html>", 0),
        requests.exceptions.MissingSchema("no http"),
        requests.exceptions.InvalidHeader("a line break"),
        requests.TooManyRedirects("in circles"),
        ssl.SSLCertVerificationError("self-signed"),
        FileNotFoundError(errno.ENOENT, "no certificate"),
        PermissionError(errno.EACCES, "no certificate"),
        openai.APIError("no", request=REQUEST, body=None),
        httpx.DecodingError("not gzip"),
        aiohttp.InvalidURL(ADDRESS),
        unreadable(),
        # Ours: the limits are used up, or the app has seen a part of it.
        DeadlineExceededError("late"),
        BudgetExceededError("spent"),
        BrokenStreamError("cut"),
        EndpointError("endless"),
    ],
    ids=repr,
)
def test_what_fails_again_in_the_same_way_is_not_transient(error):
    assert not is_transient(error)


# Whose fault


@pytest.mark.parametrize("make", STATUS_ERRORS)
def test_a_request_that_is_refused_says_nothing_of_the_endpoint(make):
    faults = [is_callers_fault(make(status)) for status in (400, 413, 422, 401, 429, 500)]
    assert faults == [True, True, True, False, False, False]


def test_a_malformed_response_is_not_the_callers_fault():
    assert not is_callers_fault(unreadable())
    assert not is_callers_fault(ValueError("no"))


# Whose type


@pytest.mark.parametrize(
    "error",
    [
        of_openai(500),
        of_httpx(500),
        of_requests(500),
        of_aiohttp(500),
        socket.gaierror(),
        DeadlineExceededError("late"),
    ],
    ids=repr,
)
def test_an_exception_of_a_client_is_typed(error):
    assert is_typed(error)


@pytest.mark.parametrize(
    "error",
    [Exception("[500] no"), ValueError(), KeyError("a"), TimeoutError()],
    ids=repr,
)
def test_a_plain_exception_is_not_typed(error):
    assert not is_typed(error)


# How long to wait


def told(value):
    return wait_s(of_openai(429, **{"Retry-After": value}), 0, spread=0.0)


@pytest.mark.parametrize("make", [of_openai, of_httpx, of_requests, of_aiohttp])
def test_retry_after_decides_whichever_client_met_it(make):
    assert wait_s(make(429, **{"Retry-After": "7"}), 3, spread=0.9) == 7.0


@pytest.mark.parametrize(
    ("value", "wait"),
    [("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("1.5", 1.5), ("86400", 86_400.0)],
)
def test_retry_after_is_a_number_of_seconds(value, wait):
    assert told(value) == wait


def test_milliseconds_go_before_seconds():
    error = of_openai(429, **{"Retry-After": "1", "Retry-After-Ms": "300"})
    assert wait_s(error, 0, spread=0.0) == pytest.approx(0.3)


def test_milliseconds_that_are_nonsense_leave_the_seconds():
    error = of_openai(429, **{"Retry-After": "2", "Retry-After-Ms": "soon"})
    assert wait_s(error, 0, spread=0.0) == 2.0


def test_retry_after_may_be_a_date():
    when = datetime.now(tz=UTC) + timedelta(days=1)
    assert 86_000 < told(format_datetime(when, usegmt=True)) <= 86_400


def test_a_date_that_is_over_is_no_wait():
    assert told("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_a_date_without_a_zone_is_universal_time():
    assert told("Wed, 21 Oct 2015 07:28:00") == 0.0


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "Wed, 99 Foo 2015 07:28:00 GMT",
        "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999",
    ],
)
def test_nonsense_counts_as_no_header(value):
    assert told(value) == 0.5


@pytest.mark.parametrize("value", ["9999999999", "1" + "0" * 400, "9" * 30 + ".5"])
def test_an_endless_wait_can_be_slept(value):
    assert told(value) == 1e9


def test_a_client_without_headers_waits_by_itself():
    assert wait_s(of_nvidia(429), 0, spread=0.0) == 0.5
    assert wait_s(ValueError("no"), 0, spread=0.0) == 0.5
    assert wait_s(BotoError(), 0, spread=0.0) == 0.5
    assert wait_s(None, 0, spread=0.0) == 0.5


def test_the_wait_doubles_up_to_the_longest():
    waits = [wait_s(None, retries, spread=0.0) for retries in (0, 1, 2, 3, 4, 5, 5000)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_the_spread_takes_up_to_a_quarter_off():
    assert wait_s(None, 0, spread=0.5) == 0.4375
    assert wait_s(None, 4, spread=1.0) == 6.0


class Headers(Mapping[str, str]):
    """Headers as a client might have them, with one of any text."""

    def __init__(self, name: str, value: str) -> None:
        self._told = {name: value}

    def __getitem__(self, name: str) -> str:
        return self._told[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._told)

    def __len__(self) -> int:
        return 1


class ToldError(Exception):
    def __init__(self, headers: Headers) -> None:
        super().__init__()
        self.headers = headers


DATES = st.from_regex(
    r"(Mon, )?\d{1,4} (Jan|May) -?\d{1,20} \d{1,3}:\d{2}(:\d{2})?( GMT| [+-]\d{1,9})?",
    fullmatch=True,
)


@given(
    st.sampled_from(["retry-after", "retry-after-ms"]),
    st.text() | DATES | st.integers().map(str) | st.floats().map(str),
    st.integers(min_value=0),
    st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_whatever_a_header_says_there_is_a_wait(name, value, retries, spread):
    error = ToldError(Headers(name, value))
    assert 0.0 <= wait_s(error, retries, spread=spread) <= 1e9
