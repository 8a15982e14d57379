import os
import socket

import pytest
from google import genai

from langchain_slm.errors import GraphLoadError
from langchain_slm.loading.keys import (
    PLACEHOLDER,
    Placeholders,
    missing_key,
    offline,
    without_secrets,
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    monkeypatch.setattr(os, "environ", kept)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (KeyError("TAVILY_API_KEY"), "TAVILY_API_KEY"),
        (KeyError("DESK_URL"), "DESK_URL"),
        (KeyError("desk"), None),
        (ValueError("set GROQ_API_KEY or pass one"), "GROQ_API_KEY"),
        (ValueError("set OPENAI_API_KEY or OPENAI_ADMIN_KEY"), "OPENAI_API_KEY"),
        (ValueError("MY_OWN_VALUE is wrong"), None),
        (ValueError("XOPENAI_API_KEY_2"), None),
    ],
)
def test_the_variable_that_an_error_misses_is_named(error, name):
    assert missing_key(error) == name


def test_a_variable_that_is_set_is_not_missing():
    os.environ["GROQ_API_KEY"] = "wrong"
    assert missing_key(ValueError("GROQ_API_KEY is not valid")) is None


def test_the_cause_of_an_error_may_name_the_variable():
    error = RuntimeError("no settings")
    error.__cause__ = KeyError("NVIDIA_API_KEY")
    assert missing_key(error) == "NVIDIA_API_KEY"


def test_a_client_that_names_no_variable_is_known_by_its_package():
    with pytest.raises(ValueError, match="API key") as caught:
        genai.Client()
    assert missing_key(caught.value) == "GOOGLE_API_KEY"


def test_a_placeholder_stands_for_each_missing_key_and_is_taken_back():
    placeholders = Placeholders()
    error = GraphLoadError("no key", missing_key="GROQ_API_KEY")
    assert placeholders.stand_in(error)
    assert os.environ["GROQ_API_KEY"] == PLACEHOLDER
    assert not placeholders.stand_in(error)  # it did not help
    placeholders.remove()
    assert "GROQ_API_KEY" not in os.environ


def test_only_keys_of_known_clients_get_a_placeholder():
    error = GraphLoadError("no url", missing_key="DESK_URL")
    assert not Placeholders().stand_in(error)
    assert "DESK_URL" not in os.environ


def test_a_key_that_the_app_set_meanwhile_stays():
    placeholders = Placeholders()
    placeholders.stand_in(GraphLoadError("no key", missing_key="GROQ_API_KEY"))
    os.environ["GROQ_API_KEY"] = "the app's own"
    placeholders.remove()
    assert os.environ["GROQ_API_KEY"] == "the app's own"


def test_offline_only_this_machine_is_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, offline():
        socket.create_connection(server.getsockname()).close()
        with pytest.raises(ConnectionRefusedError, match=r"connection to 192\.0\.2\.1"):
            socket.create_connection(("192.0.2.1", 443), timeout=0.1)
        with pytest.raises(ConnectionRefusedError, match=r"to api\.invalid"):
            socket.getaddrinfo("api.invalid", 443)
        with (
            socket.socket(socket.AF_INET6) as other,
            pytest.raises(ConnectionRefusedError, match="2001:db8::1"),
        ):
            other.connect(("2001:db8::1", 443))


def test_afterwards_connections_are_tried_again():
    message = ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:  # sends nothing
        with offline(), pytest.raises(ConnectionRefusedError, match="placeholders"):
            silent.connect(("192.0.2.1", 9))
        try:
            silent.connect(("192.0.2.1", 9))
        except OSError as error:  # of a machine without a network
            message = str(error)
    assert "placeholders" not in message


def test_values_are_replaced_by_the_names_of_their_variables():
    os.environ |= {"DESK_TOKEN": "abcdefgh", "DESK_KEY_LONG": "abcdefgh-longer"}
    text = "abcdefgh-longer, then abcdefgh, then 12345678 and short"
    more = {"DESK_LABEL": "12345678", "DESK_SHORT": "short"}
    assert without_secrets(text, more) == (
        "<value of DESK_KEY_LONG>, then <value of DESK_TOKEN>, "
        "then <value of DESK_LABEL> and short"
    )
