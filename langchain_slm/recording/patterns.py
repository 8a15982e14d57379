"""What personal data and secrets look like. Pure, and linear in the length of a text.

A form that can be checked is checked: Luhn for cards, modulo 97 and the country's length
for IBANs, the standard library for IP addresses. It refuses to guess: a bare run of
digits, a date, a price, a version number of three parts or a hash is no finding.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

SHORTEST = len("a@b.co")


class Found(NamedTuple):
    """Where in a text a pattern matched, what it found, and its value unspelled."""

    start: int
    end: int
    kind: str
    value: str


def find(text: str) -> list[Found]:
    """Return what the patterns find in `text`; overlaps are left to the caller.

    Of two that start together the first is the better one.
    """
    if len(text) < SHORTEST:
        return []
    return [
        found
        for group in _GROUPS
        if group.screen(text)
        for pattern in group.patterns
        for found in pattern.find(text)
    ]


def may_match(written: str) -> bool:
    """Return whether a pattern may match in a text that `written` is the JSON of.

    False is certain: it says that no string in the JSON has a finding.

    Args:
        written: JSON that keeps what is not ASCII as it is.
    """
    # An escape may end in a digit, and in JSON inside JSON it may be any character.
    return "\\u" in written or any(group.screen(written) for group in _GROUPS)


# Where a word starts; the `n` of an escaped line break does not start one. `_BEGUN` says
# it of the character before: `re` skips fast to a pattern that begins with a character.
_START = r"(?:(?<!\w)|(?<=\\[nrt]))"
_BEGUN = r"(?:(?<!\w.)|(?<=\\[nrt].))"
_BLANK = r" \u00a0\u202f"
_DASH = r"\-\u2011"
# What stands between two groups of a phone number.
_GAP = (
    rf"(?:[{_BLANK}]?[()]|\)[{_BLANK}{_DASH}/]|[{_BLANK}][{_DASH}/][{_BLANK}]"
    rf"|[{_BLANK}{_DASH}./])"
)

_EMAIL = re.compile(r"(?:@|%40)(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_LOCAL_PART = re.compile(r"(?:(?<=\\[nrt])|(?<!\\)|(?<=\\)(?![nrt]))[\w.+%-]+\Z")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----(?:[^-]++|-(?!----))*+"
    r"(?:-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----)?"
)
_KEY = re.compile(
    rf"{_START}(?<!-)(?:"
    r"(?:sk|[sr]k_live|[sr]k_test)[-_](?=[\w-]{0,40}[0-9])[\w-]{16,}"  # OpenAI, Stripe
    r"|nvapi-[\w-]{8,}"  # NVIDIA
    r"|hf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)"  # AWS
    r"|AIza[\w-]{30,}"  # Google
    r"|gsk_[A-Za-z0-9]{16,}|lsv2_\w{16,}"  # Groq, LangSmith
    r"|xox[abeoprs]-[A-Za-z0-9-]{8,}"  # Slack
    r")",
    re.ASCII,
)
_JWT = re.compile(rf"{_START}(?<!-)eyJ[\w-]{{6,}}\.eyJ[\w-]{{6,}}\.[\w-]*", re.ASCII)
_BEARER = re.compile(  # "bearer instruments" is prose: a token has a digit
    rf"{_START}[Bb]earer[ \t]{{1,4}}"
    r"(?P<token>(?=[\w.~+/-]{0,63}[0-9])[\w.~+/-]{8,}={0,2})",
    re.ASCII,
)
_IBAN = re.compile(  # its two letters stand before what is searched for
    r"[0-9](?<=[A-Za-z]{2}.)(?:(?<!\w[A-Za-z]{2}.)|(?<=\\[nrt][A-Za-z]{2}.))"
    rf"[0-9](?:[{_BLANK}-]?[A-Za-z0-9]){{11,30}}"
)
_CARD = re.compile(
    rf"[2-6]{_BEGUN}(?<![0-9][-.].)(?:[0-9]{{12,18}}"
    rf"|[0-9]{{3}}(?P<gap>[{_BLANK}{_DASH}])[0-9]{{4}}(?:(?P=gap)[0-9]{{4}}){{2}}"
    rf"|(?<=3)[0-9]{{3}}(?P<other>[{_BLANK}{_DASH}])[0-9]{{6}}(?P=other)[0-9]{{4,5}})"
    r"(?!\w)(?![-.][0-9])"
)
_INTERNATIONAL = re.compile(
    rf"\+{_BEGUN}(?<!\+.)[1-9][0-9]{{0,14}}(?:{_GAP}[0-9]{{1,14}}){{0,6}}(?!\w)"
)
_AREA = rf"(?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}[{_DASH}.])"
_AMERICAN = re.compile(
    rf"[(1-9]{_BEGUN}(?<![0-9][-.,/].)(?<![+$].)(?:(?<=1)[{_BLANK}{_DASH}.]{_AREA}"
    rf"|(?<=\()[2-9][0-9]{{2}}\) ?|(?<=[2-9])[0-9]{{2}}[{_DASH}.])"
    rf"[0-9]{{3}}[{_BLANK}{_DASH}.][0-9]{{4}}(?!\w)(?![-.,/][0-9])"
)
_TRUNK = re.compile(  # 01.02.2024 starts like a trunk prefix
    rf"[(0]{_BEGUN}(?<![0-9][-.,/:].)"
    r"(?![0-9](?P<s>[./ -])[0-9]{2}(?P=s)(?:[0-9]{4}|[0-9]{2})(?![0-9]|(?P=s)[0-9]))"
    rf"(?:(?<=0)|(?<=\()0(?=[0-9]{{1,4}}\)))[1-9][0-9]{{0,3}}(?:{_GAP}[0-9]{{2,9}}){{1,5}}(?!\w)"
)
_IP_V4 = re.compile(
    r"[0-9](?:(?<![\w.].)|(?<=\\[nrt].))[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w)(?!\.[0-9])"
)
_IP_V6 = re.compile(
    r"(?:(?<![\w:.])|(?<=\\[nrt]))(?=[0-9A-Fa-f]{1,4}:)[0-9A-Fa-f:]{3,38}"
    r"(?:[0-9A-Fa-f]|::)(?!\w)(?!:[0-9A-Fa-f])"
)

# Visa, Mastercard (two ranges), Diners, American Express, JCB, and what starts with 6.
_ISSUED = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|5[0-9]{15}"
    r"|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}|3[47][0-9]{13}|35[0-9]{14}|6[0-9]{15,18}"
)
# Length of an IBAN by country. Source: SWIFT, IBAN Registry.
_IBAN_LENGTH = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 "
        "DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 "
        "GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
        "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 "
        "PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}


class _Checked(NamedTuple):
    start: int
    end: int
    value: str


class _Pattern(NamedTuple):
    """One form: `check` decides on a match, and may shorten it or begin it earlier."""

    kind: str
    expression: re.Pattern[str]
    check: Callable[[re.Match[str]], _Checked | None]

    def find(self, text: str) -> Iterator[Found]:
        position = 0
        while match := self.expression.search(text, position):
            checked = self.check(match)
            if checked:
                yield Found(checked.start, checked.end, self.kind, checked.value)
            position = checked.end if checked else match.start() + 1


def _as_it_is(match: re.Match[str]) -> _Checked:
    return _Checked(match.start(), match.end(), match[0])


def _bearer(match: re.Match[str]) -> _Checked:
    return _Checked(match.start("token"), match.end(), match["token"])


def _email(match: re.Match[str]) -> _Checked | None:
    """Source: RFC 5321, 4.5.3.1.1, at most 64 characters before the `@`."""
    local = _LOCAL_PART.search(match.string, max(0, match.start() - 64), match.start())
    if not local:
        return None
    value = f"{local[0]}{match[0]}".replace("%40", "@").casefold()
    return _Checked(local.start(), match.end(), value)


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _iban(match: re.Match[str]) -> _Checked | None:
    """Source: ISO 13616-1 (lengths by country, remainder 1 modulo 97)."""
    start = match.start() - 2
    written = match.string[start : match.end()]
    length = _IBAN_LENGTH.get(written[:2].upper(), 0)
    marks = list(re.finditer(r"[A-Za-z0-9]", written))[:length]
    if not length or len(marks) < length:
        return None
    end = start + marks[-1].end()
    value = "".join(mark[0] for mark in marks).upper()
    number = "".join(str(int(mark, 36)) for mark in value[4:] + value[:4])
    if match.string[end : end + 1].isalnum() or int(number) % 97 != 1:
        return None
    return _Checked(start, end, value)


def _card(match: re.Match[str]) -> _Checked | None:
    """Source: ISO/IEC 7812-1, annex B (the Luhn check digit)."""
    digits = _digits(match[0])
    total = sum(int(digit) for digit in digits[-1::-2])
    total += sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    if total % 10 or not _ISSUED.fullmatch(digits):
        return None
    return _Checked(match.start(), match.end(), digits)


_MOST_SINGLE_DIGITS = 2  # groups of one digit; more of them are a sum: +1-2-3-4-5-6-7-8


def _phone(match: re.Match[str], fewest: int, most: int) -> _Checked | None:
    """Drop the groups on the right that belong to the next number."""
    groups = list(re.finditer(r"[0-9]+", match[0]))
    while groups and sum(len(group[0]) for group in groups) > most:
        groups.pop()
    digits = "".join(group[0] for group in groups)
    singles = sum(len(group[0]) == 1 for group in groups)
    if len(digits) < fewest or singles > _MOST_SINGLE_DIGITS:
        return None
    return _Checked(match.start(), match.start() + groups[-1].end(), digits)


def _international(match: re.Match[str]) -> _Checked | None:
    """Source: ITU-T E.164, at most 15 digits; below 8 it is no subscriber."""
    following = match.string[match.end() : match.end() + 2]
    is_decimal = re.fullmatch(r"\+[0-9]+\.[0-9]+", match[0])
    checked = _phone(match, 8, 15)
    if is_decimal or re.match(r"[.,][0-9]", following) or not checked:
        return None
    written = match.string[checked.start : checked.end].replace("(0)", "")
    return checked._replace(value=f"+{_digits(written)}")


def _american(match: re.Match[str]) -> _Checked:
    return _Checked(match.start(), match.end(), _digits(match[0])[-10:])


def _trunk(match: re.Match[str]) -> _Checked | None:
    return _phone(match, 9, 12)


def _ip(match: re.Match[str]) -> _Checked | None:
    """Refuse, of version 6, what is also a slice (`a[1::2]`) or a name (`abc::def`).

    They read as addresses of ranges that are assigned to nobody.
    """
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return None
    nobody = address.is_reserved or address.is_loopback or address.is_unspecified
    if nobody and isinstance(address, ipaddress.IPv6Address):
        return None
    return _Checked(match.start(), match.end(), address.compressed)


# A screen finds something in every text in which its patterns match, and in that text as
# JSON too: of what stands before, it only asks that it is no digit.
_KEY_SCREENS = tuple(
    re.compile(mark).search
    for mark in (
        r"sk[-_][\w-]{16}",
        "rk_(?:live|test)_",
        "nvapi-",
        "hf_",
        "gh[opsur]_",
        "pat[-_]",
        "A(?:KIA|SIA|Iza)",
        "lsv2_",
        "xox[abeoprs]-",
    )
)
_NUMBER_SCREEN = re.compile(
    rf"[+0-9](?=[0-9{_BLANK}{_DASH}()./\\]{{6}})(?<![0-9].)(?:"
    rf"(?<=[+0])[1-9](?:[{_BLANK}{_DASH}()./\\]{{0,6}}[0-9]){{7}}"
    rf"|(?<=[0-9])(?:[{_BLANK}{_DASH}]?[0-9]){{12}}"
    rf"|(?<=[2-9])[0-9]{{2}}[{_BLANK}{_DASH}.)]{{1,2}}[0-9]{{3}}[{_BLANK}{_DASH}.][0-9]{{4}}"
    r"|(?<=[0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3})"
)
_IBAN_SCREEN = re.compile(
    rf"[0-9](?<=[A-Za-z]{{2}}.)[0-9](?:[{_BLANK}-]?[A-Za-z0-9]){{11}}"
)
_COLON_SCREEN = re.compile(r":(?:[0-9A-Fa-f]{0,4}:){5}|::")


def _may_be_email(text: str) -> bool:
    return "@" in text or "%40" in text


def _may_be_key(text: str) -> bool:
    return any(search(text) for search in _KEY_SCREENS)


class _Group(NamedTuple):
    screen: Callable[[str], object]
    patterns: tuple[_Pattern, ...]


_NUMBERS = (
    _Pattern("CARD", _CARD, _card),
    _Pattern("PHONE", _INTERNATIONAL, _international),
    _Pattern("PHONE", _AMERICAN, _american),
    _Pattern("PHONE", _TRUNK, _trunk),
    _Pattern("IP", _IP_V4, _ip),
)
# Where two findings start together the earlier pattern is the better one.
_GROUPS = (
    _Group(_may_be_email, (_Pattern("EMAIL", _EMAIL, _email),)),
    _Group(
        re.compile("PRIVATE KEY-----").search,
        (_Pattern("KEY", _PRIVATE_KEY, _as_it_is),),
    ),
    _Group(_may_be_key, (_Pattern("KEY", _KEY, _as_it_is),)),
    _Group(re.compile("eyJ").search, (_Pattern("TOKEN", _JWT, _as_it_is),)),
    _Group(re.compile("earer").search, (_Pattern("TOKEN", _BEARER, _bearer),)),
    _Group(_IBAN_SCREEN.search, (_Pattern("IBAN", _IBAN, _iban),)),
    _Group(_NUMBER_SCREEN.search, _NUMBERS),
    _Group(_COLON_SCREEN.search, (_Pattern("IP", _IP_V6, _ip),)),
)
