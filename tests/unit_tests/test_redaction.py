"""Redaction: what is found, what must stay, and what a placeholder promises."""

import doctest
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm.recording import redaction
from langchain_slm.recording.redaction import (
    Finding,
    PatternRedactor,
    redact_call,
    redact_text,
)
from langchain_slm.schema import Answer, Call, Request

DATA = Path(__file__).parents[2].parent / "shared" / "data"

FOUND = {
    "ada@example.org": "<EMAIL_1>",
    "Ada.Byron+news@mail.example.co.uk.": "<EMAIL_1>.",
    "jörg@müller.de": "<EMAIL_1>",
    "see https://x.example/?to=ada%40example.org": "see https://x.example/?to=<EMAIL_1>",
    r"first\nada@example.org": r"first\n<EMAIL_1>",
    r"CORP\ada@example.org": r"CORP\<EMAIL_1>",
    "+49 171 2345678": "<PHONE_1>",
    "+491712345678": "<PHONE_1>",
    "+1 (555) 123-4567": "<PHONE_1>",
    "+33 6 12 34 56 78": "<PHONE_1>",
    "+49 (0)171 2345678": "<PHONE_1>",
    "+49\u00a0171\u00a02345678": "<PHONE_1>",
    "Call +442071838750, please": "Call <PHONE_1>, please",
    "(555) 123-4567": "<PHONE_1>",
    "555-123-4567": "<PHONE_1>",
    "555.123.4567": "<PHONE_1>",
    "1-800-555-0199": "<PHONE_1>",
    "0171 2345678": "<PHONE_1>",
    "0171/2345678": "<PHONE_1>",
    "(030) 12345678": "<PHONE_1>",
    "020 7183 8750": "<PHONE_1>",
    "06 12 34 56 78": "<PHONE_1>",
    "06.12.34.56.78": "<PHONE_1>",
    "0171 2345678 0172 3456789": "<PHONE_1> <PHONE_2>",
    "4111 1111 1111 1111": "<CARD_1>",
    "4111-1111-1111-1111": "<CARD_1>",
    "4111111111111111": "<CARD_1>",
    "4111111111111111,123": "<CARD_1>,123",
    "5555555555554444": "<CARD_1>",
    "2223003122003222": "<CARD_1>",
    "3782 822463 10005": "<CARD_1>",
    "378282246310005": "<CARD_1>",
    "30569309025904": "<CARD_1>",
    "6011111111111117": "<CARD_1>",
    "3530111333300000": "<CARD_1>",
    "card\n4111111111111111": "card\n<CARD_1>",
    "DE89 3704 0044 0532 0130 00": "<IBAN_1>",
    "DE89370400440532013000": "<IBAN_1>",
    "de89370400440532013000": "<IBAN_1>",
    "GB82 WEST 1234 5698 7654 32 AND MORE": "<IBAN_1> AND MORE",
    "NO9386011117947": "<IBAN_1>",
    "IBAN: FR1420041010050500013M02606.": "IBAN: <IBAN_1>.",
    "203.0.113.7": "<IP_1>",
    "http://203.0.113.7:8080/": "http://<IP_1>:8080/",
    "from 203.0.113.7.": "from <IP_1>.",
    "2001:db8::8a2e:370:7334": "<IP_1>",
    "[2001:0db8:85a3:0000:0000:8a2e:0370:7334]": "[<IP_1>]",
    "fe80::1": "<IP_1>",
    "sk-abcdefghij1234567890": "<KEY_1>",
    "sk-proj-ab_cdEFGH-1234567890": "<KEY_1>",
    "OPENAI_API_KEY=sk-abcdefghij1234567890": "OPENAI_API_KEY=<KEY_1>",
    "nvapi-A1b2C3d4E5f6G7h8": "<KEY_1>",
    "hf_AbCdEfGhIjKlMnOpQrSt": "<KEY_1>",
    "ghp_0123456789abcdefABCDEF0123456789abcd": "<KEY_1>",
    "github_pat_11ABCDEFG0123456789_abcdef": "<KEY_1>",
    "glpat-abcdefghij0123456789": "<KEY_1>",
    "AKIAIOSFODNN7EXAMPLE": "<KEY_1>",
    "ASIAIOSFODNN7EXAMPLE": "<KEY_1>",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv": "<KEY_1>",
    "gsk_abcdefghij0123456789": "<KEY_1>",
    "lsv2_pt_0123456789abcdef0123456789abcdef": "<KEY_1>",
    "sk_live_abcdefghij0123456789": "<KEY_1>",
    "rk_test_abcdefghij0123456789": "<KEY_1>",
    "xoxb-123456789012-abcdef": "<KEY_1>",
    "Bearer abcdef123456": "Bearer <TOKEN_1>",
    "Authorization: Bearer sk-abcdefghij1234567890": "Authorization: Bearer <KEY_1>",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N": "<TOKEN_1>",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n+/aB\n-----END PRIVATE KEY-----": "<KEY_1>",
}

KEPT = [
    "order 10452, invoice 2024-001234",
    "1,234,567 and 1.234.567,89 and 12345678901234567890",
    "$4,999.99, 45.00 EUR, +12.5 %, -3.25",
    "2024-01-15, 15.01.2024, 01/15/2024, 2024-01-15T10:30:00+01:00",
    "01.02.2024 10:30 to 03.04.2024 12:45",
    "52.520008, 13.404954 and -33.8688, +151.2093",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "550e8400-e29b-41d4-a716-446655440000",
    "12345678-1234-1234-1234-123456789012",
    "4111111111111112",  # fails Luhn
    "4111 1111 1111 1112",
    "1234567812345670",  # passes Luhn, but no issuer starts with 1
    "9780306406157",  # an ISBN
    "1700000000000",  # a time in milliseconds
    "DE88370400440532013000",  # fails modulo 97
    "XX89370400440532013000",  # no such country
    "version 1.2.3, 10.4.2 and v1.2.3.4",
    "1.2.3.4.5 is an OID, 256.1.1.1 and 1.2.3.04 are no addresses",
    "10:30:45, 00:1a:2b:3c:4d:5e, std::vector, abc::def, a[::2], a[1::2]",
    "0.5 + 0.25 = 0.75; 007; 0 1 2 3 4 5 6 7 8 9",
    "+1-2-3-4-5-6-7-8 and 12+34567890 and +1234567.5 and +12345678,50",
    "555-1234 and 100 200 3000 and 5551234567",
    "what is 3 @ 5? see @ada or ada@localhost, pkg@1.2.3",
    "task-based risk-adjusted-return sk-learn hf_hub_download",
    "the bearer instruments, a bearer of news",
    "eyJ is how base64 of JSON begins",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "AKIA and ASIA are prefixes",
]


def call(
    *messages: dict[str, Any],
    answer: dict[str, Any] | None = None,
    error: str | None = None,
    **request: Any,
) -> Call:
    return Call(
        call_id="c1",
        trace_id="t1",
        thread_id="ada@example.org",
        graph="g",
        site="s",
        model="m",
        provider="p",
        request=Request(messages=messages, **request),
        answer=Answer(message=answer) if answer else None,
        error=error,
    )


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def calls_tool(arguments: str) -> dict[str, Any]:
    function = {"name": "send", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }


def arguments(redacted: Call) -> str:
    assert redacted.answer is not None
    written: str = redacted.answer.tool_calls[0]["arguments"]
    return written


@pytest.mark.parametrize(("text", "expected"), FOUND.items())
def test_personal_data_and_secrets_become_placeholders(text, expected):
    assert redact_text(text, PatternRedactor()) == expected


@pytest.mark.parametrize("text", FOUND)
def test_they_are_found_inside_a_sentence_and_inside_a_call(text):
    placeholder = redact_text(text, PatternRedactor())

    redacted = redact_call(call(user(f"Take ({text}), then go.")), PatternRedactor())

    assert redacted.request.messages == (user(f"Take ({placeholder}), then go."),)


@pytest.mark.parametrize("text", KEPT)
def test_ordinary_numbers_and_words_stay(text):
    assert redact_text(text, PatternRedactor()) == text


def test_a_private_key_without_an_end_is_taken_to_the_end_of_the_text():
    text = "key: -----BEGIN RSA PRIVATE KEY-----\nMIIEvQ\ncut off"

    assert redact_text(text, PatternRedactor()) == "key: <KEY_1>"


def test_equal_values_share_a_placeholder_however_they_are_written():
    recorded = call(
        user("I am Ada@Example.org, +49 (0)171 2345678, DE89 3704 0044 0532 0130 00"),
        user("and bob@example.org"),
        answer=calls_tool(
            '{"mail": "ada@example.org", "iban": "DE89370400440532013000",'
            ' "phone": "+491712345678", "cc": ["bob@example.org"]}'
        ),
        error="BadRequest: bob@example.org",
    )

    redacted = redact_call(recorded, PatternRedactor())

    assert [message["content"] for message in redacted.request.messages] == [
        "I am <EMAIL_1>, <PHONE_1>, <IBAN_1>",
        "and <EMAIL_2>",
    ]
    assert arguments(redacted) == (
        '{"mail": "<EMAIL_1>", "iban": "<IBAN_1>",'
        ' "phone": "<PHONE_1>", "cc": ["<EMAIL_2>"]}'
    )
    assert redacted.error == "BadRequest: <EMAIL_2>"


def test_every_part_of_the_content_is_redacted_and_no_identifier():
    mail = "ada@example.org"
    tool = {"type": "function", "function": {"name": "f", "description": mail}}
    recorded = call(
        user([{"type": "text", "text": mail}, {"type": "text", "text": "hello"}]),
        answer={"role": "assistant", "content": mail},
        tools=(tool,),
        tool_choice={"type": "function", "function": {"name": mail}},
        response_format={"type": "json_schema", "json_schema": {"description": mail}},
        parameters={"user": mail, "card": 4111111111111111, mail: True, "n": 10452},
    )

    redacted = redact_call(recorded, PatternRedactor())

    assert mail not in redacted.request.model_dump_json()
    assert redacted.request.parameters == {
        "user": "<EMAIL_1>",
        "card": "<CARD_1>",
        "<EMAIL_1>": True,
        "n": 10452,
    }
    assert redacted.answer == Answer(
        message={"role": "assistant", "content": "<EMAIL_1>"}
    )
    assert redacted.thread_id == mail


def test_a_call_without_findings_is_returned_as_it_is():
    recorded = call(user("order 10452"), answer=calls_tool('{"order": 10452}'))

    assert redact_call(recorded, PatternRedactor()) is recorded


def test_a_failed_call_without_an_answer_is_redacted():
    recorded = call(user("hi"), error="401 for sk-abcdefghij1234567890")

    redacted = redact_call(recorded, PatternRedactor())

    assert redacted.error == "401 for <KEY_1>"
    assert redacted.answer is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{"card": 4111111111111111, "n": 1.50}', '{"card": "<CARD_1>", "n": 1.50}'),
        (r'{"to": "ada\u0040example.org"}', '{"to": "<EMAIL_1>"}'),
        (r'{"a": "x\nada@example.org"}', r'{"a": "x\n<EMAIL_1>"}'),
        (r'{"p": "0171\/2345678"}', '{"p": "<PHONE_1>"}'),
        ('{"ada@example.org": 1, "a": 2, "a": 3}', '{"<EMAIL_1>": 1, "a": 2, "a": 3}'),
        ('["é ada@example.org"]', '["é <EMAIL_1>"]'),
        (
            r'{"json": "{\"to\": \"ada\\u0040example.org\"}"}',
            r'{"json": "{\"to\": \"<EMAIL_1>\"}"}',
        ),
        ('{"cut": "ada@example.org', '{"cut": "<EMAIL_1>'),
    ],
)
def test_arguments_stay_the_json_that_they_were(written, expected):
    recorded = call(user("go"), answer=calls_tool(written))

    assert arguments(redact_call(recorded, PatternRedactor())) == expected


def test_placeholders_that_are_there_keep_their_numbers():
    text = "<EMAIL_1> wrote to ada@example.org and bob@example.org, cc <EMAIL_3>"

    redacted = redact_text(text, PatternRedactor())

    assert redacted == "<EMAIL_1> wrote to <EMAIL_2> and <EMAIL_4>, cc <EMAIL_3>"


def test_placeholders_spelled_as_escapes_keep_their_numbers():
    written = r'{"a": "\u003cEMAIL_1\u003e", "b": "ada@example.org"}'

    redacted = redact_call(
        call(user("go"), answer=calls_tool(written)), PatternRedactor()
    )

    assert json.loads(arguments(redacted)) == {"a": "<EMAIL_1>", "b": "<EMAIL_2>"}


class FindsRecordNumbers:
    """A user's own redactor: knows the numbers of its hospital and nothing else."""

    def find(self, text: str) -> Iterable[Finding]:
        for match in re.finditer(r"MRN-\d+", text):
            yield Finding(match.start(), match.end(), "RECORD_NUMBER")


class FindsBoth(PatternRedactor):
    """The default and one more."""

    def find(self, text: str) -> list[Finding]:
        return [*super().find(text), *FindsRecordNumbers().find(text)]


def test_a_users_own_redactor_decides_what_is_found():
    recorded = call(user("MRN-1 and MRN-2, ada@example.org"), user("MRN-1"))

    redacted = redact_call(recorded, FindsRecordNumbers())

    assert redacted.request.messages == (
        user("<RECORD_NUMBER_1> and <RECORD_NUMBER_2>, ada@example.org"),
        user("<RECORD_NUMBER_1>"),
    )


def test_a_redactor_that_extends_the_default_sees_what_the_default_would_skip():
    assert redact_call(call(user("MRN-7")), FindsBoth()).request.messages == (
        user("<RECORD_NUMBER_1>"),
    )


def test_the_words_of_the_form_are_never_content():
    class FindsAll:
        def find(self, text: str) -> Iterable[Finding]:
            return [Finding(0, len(text), "ALL")]

    redacted = redact_call(call(user([{"type": "text", "text": "a"}])), FindsAll())

    assert redacted.request.messages == (user([{"type": "text", "text": "<ALL_1>"}]),)


def test_of_overlapping_findings_the_first_wins():
    class Overlaps:
        def find(self, text: str) -> Iterable[Finding]:
            if text == "abcdef":
                yield Finding(2, 5, "B")
                yield Finding(0, 4, "A")

    assert redact_text("abcdef", Overlaps()) == "<A_1>ef"


@pytest.mark.parametrize(
    "finding",
    [
        Finding(-1, 2, "A"),
        Finding(2, 2, "A"),
        Finding(0, 9, "A"),
        Finding(0, 2, "a"),
        Finding(0, 2, ""),
        Finding(0, 2, "A_"),
        Finding(0, 2, "A" * 21),
    ],
)
def test_a_finding_that_cannot_be_is_refused(finding):
    class Wrong:
        def find(self, text: str) -> Iterable[Finding]:
            return [finding]

    with pytest.raises(ValueError, match="a finding"):
        redact_text("abcd", Wrong())


def test_the_example_in_the_documentation_runs():
    assert doctest.testmod(redaction) == (0, 1)


PARTS = st.one_of(
    st.sampled_from([*FOUND, *KEPT, "<EMAIL_1>", "<PHONE_2>"]),
    st.sampled_from(
        ["", " ", "\n", "-", ".", "\\n", "1", "x", '"', "{", "[", "+", "/", "("]
    ),
    st.text(max_size=6),
)
TEXTS = st.lists(PARTS, max_size=6).map("".join)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_redacting_twice_is_redacting_once(text):
    once = redact_text(text, PatternRedactor())

    assert redact_text(once, PatternRedactor()) == once


@given(
    st.lists(TEXTS, min_size=1, max_size=3), st.dictionaries(st.text(max_size=3), TEXTS)
)
@settings(max_examples=200, deadline=None)
def test_a_call_is_redacted_once_with_valid_arguments(contents, values):
    recorded = call(*map(user, contents), answer=calls_tool(json.dumps(values)))

    once = redact_call(recorded, PatternRedactor())

    assert isinstance(json.loads(arguments(once)), dict)
    assert redact_call(once, PatternRedactor()) == once


@given(TEXTS, st.sampled_from(list(FOUND)))
@settings(max_examples=300, deadline=None)
def test_the_screen_lets_no_finding_through(text, known):
    """What each text has found alone is found in a call, where a screen comes first."""
    for content in (text, known, f"{text}\n{known}"):
        alone = redact_text(content, PatternRedactor())
        recorded = call(user(content), answer=calls_tool(json.dumps({"a": content})))

        redacted = redact_call(recorded, PatternRedactor())

        assert redacted.request.messages == (user(alone),)
        assert json.loads(arguments(redacted)) == {"a": alone}


@given(st.text(alphabet="0123456789 -./()+,:", max_size=60))
@settings(max_examples=300, deadline=None)
def test_what_remains_of_any_run_of_digits_has_no_finding(text):
    redacted = redact_text(text, PatternRedactor())

    for piece in re.split(r"<[A-Z]+_\d+>", redacted):
        assert PatternRedactor().find(piece) == []


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "a.b" * 70_000,
        "@a" * 100_000,
        "a@" + "a." * 100_000,
        "1 " * 100_000,
        "0171 " * 40_000,
        "4111-" * 40_000,
        "+1 " * 70_000,
        "sk-" * 70_000,
        "eyJ" * 70_000,
        "eyJaaaaaa." * 20_000,
        "ab:" * 70_000,
        "1.2." * 50_000,
        "DE89 " * 40_000,
        "Bearer " * 30_000,
        "-----BEGIN PRIVATE KEY-----" * 8_000,
        "<A_" * 70_000,
        '{"a": ' * 40_000,
        "[" * 200_000,
        "\\u" * 100_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_is_read_in_linear_time(text):
    """Anything worse than linear would hang here: each text is 200,000 characters."""
    redacted = redact_call(call(user(text)), PatternRedactor())
    assert redacted.request.messages[0]["role"] == "user"


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        # One question names an e-mail address, and every model copies it.
        ("bfcl_v1", {"<EMAIL_1>": 12}),
        # Two answers print numbers filled up with zeros, in groups.
        ("zeroeval", {"<PHONE_1>": 2}),
    ],
)
def test_recorded_suites_stay_as_they_are(suite, expected):
    placeholders: Counter[str] = Counter()
    for path in (DATA / suite).rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            asked = call(*row.get("messages", ()), tools=tuple(row.get("tools") or ()))
            answered = call(answer=row.get("message"))
            for recorded in (asked, answered):
                redacted = redact_call(recorded, PatternRedactor())
                if redacted is not recorded:
                    placeholders.update(
                        set(re.findall(r"<[A-Z]+_\d+>", str(redacted.model_dump())))
                    )
    assert placeholders == expected
