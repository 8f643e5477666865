"""Secrets do not reach what people read, wherever they stand."""

from __future__ import annotations

import logging
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import keys
from mixer.caller import Scope
from mixer.cli_words import failure
from mixer.mask import MASK, masked, masked_values
from tests.doubles.certificates import Authority

SECRET = "zqmask7secret"
PLACES = (
    "cannot reach postgresql://mixer:{}@db.internal:5432/search",
    "redis://:{}@cache:6379/0 refused",
    "https://{}@registry.example.com/models",
    "s3://id:{}@bucket/models is not there",
    "host=db user=mixer password={} dbname=search",
    "host=db user=mixer password='{} more' dbname=search",
    'password="{}"',
    "sasl.password={}; sasl.username=mixer",
    "{{'sasl.password': '{}', 'sasl.username': 'mixer'}}",
    '{{"api_key": "{}"}}',
    "x-api-key: {}",
    "X-Api-Key={}",
    "authorization: Bearer {}",
    "Authorization: Basic {}",
    "metadata ('authorization', 'Bearer {}')",
    "x-honeycomb-team={}",
    "MIXER_CURSOR_KEY and MIXER_KAFKA_PASSWORD={}",
    "client_secret={}&grant_type=x",
    "https://host/path?token={}&a=b",
    "AWS_SECRET_ACCESS_KEY={}",
    "aws_session_token = {}",
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\n{}",
)


@pytest.mark.parametrize("place", PLACES)
def test_secrets_in_words(place: str) -> None:
    """Passwords of URLs and connection strings, headers, variables, keys: the words around them stay."""
    text = place.format(SECRET)
    told = masked(f"before {text} after")
    assert SECRET not in told
    assert MASK in told
    assert told.startswith("before ")
    if "BEGIN EC" not in place:
        assert told.endswith(" after")


def test_what_is_a_secret_by_its_form() -> None:
    """Our own keys, tokens and private keys are known wherever they stand."""
    made, issued = keys.new("acme", [Scope.SEARCH]), Authority().issue()
    token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJpIn0.c2lnbmF0dXJl"
    told = masked(f"{made.key} {token} {issued.key.decode()} {issued.certificate.decode()}")
    for secret in (made.key, token, issued.key.decode().splitlines()[1]):
        assert secret not in told
    assert issued.certificate.decode() in told


@pytest.mark.parametrize(
    "text",
    [
        "dns:///lexical:50061",
        "s3://search/models: no such version",
        "tls: certificate and key do not belong together",
        "keys: entry 2: is not the SHA-256 of a key, 64 hex digits",
        "the token is over; ask the issuer for another",
        "mixes.default.features.3.name: 'token_count' is declared twice",
        "no model is called 'mixer_movies'; did you mean 'movies'?",
        "at http://127.0.0.1:9464/metrics, write to search@example.com",
    ],
)
def test_other_words_stay(text: str) -> None:
    """A message that holds no secret is as it was."""
    assert masked(text) == text


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """Masking ends, and what is masked stays so."""
    once = masked(text)
    assert masked(once) == once


@pytest.mark.parametrize(
    "piece",
    ["y", "a.", "eyJ", "://", "token", "token=", "password='\\\\", "bearer ", "-----BEGIN ", "mixer_"],
)
def test_long_lines(piece: str) -> None:
    """Their time is in proportion to their length: a line of any kind is masked at once, or this never ends."""
    assert masked(piece * 200_000)


def test_values_within_values() -> None:
    """Of a log line, whatever its form; numbers stay numbers."""
    url = f"redis://:{SECRET}@cache"
    told = masked_values({"a": url, "b": [url, 1], "c": {"d": (url,)}, "n": 1.5, "x": None})
    assert SECRET not in repr(told)
    assert (told["n"], told["x"], told["b"][1]) == (1.5, None, 1)


def test_log_lines(logged: StringIO) -> None:
    """Of ours and of libraries: in the message, its arguments, and what goes along."""
    url = f"postgresql://mixer:{SECRET}@db/search"
    logging.getLogger("mixer.follow").error("no registry", extra={"why": f"cannot reach {url}"})
    logging.getLogger("psycopg").warning("reconnecting to %s", url)
    logging.getLogger("urllib3").warning("retry", extra={"headers": {"authorization": f"Bearer {SECRET}"}})
    try:
        raise ConnectionError(url)
    except ConnectionError:
        logging.getLogger("mixer.call").exception("unexpected error")
        logging.getLogger("mixer").exception("failed")
    text = logged.getvalue()
    assert len(text.splitlines()) == 5
    assert SECRET not in text
    assert f"mixer:{MASK}@db" in text or f"//{MASK}@db" in text


def test_raw_tracebacks(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Where messages of errors are logged, since the user's words may be, secrets are masked all the same."""
    from mixer import telemetry

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        telemetry.start_logging("info", raw_messages=True)
        try:
            raise ConnectionError(f"password={SECRET}")
        except ConnectionError:
            logging.getLogger("mixer.call").exception("unexpected error")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    text = capsys.readouterr().out
    assert "ConnectionError" in text
    assert SECRET not in text


def test_commands_that_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """What they say on standard error."""
    failure(f"postgresql://mixer:{SECRET}@db: no such host")
    told = capsys.readouterr().err
    assert "no such host" in told
    assert SECRET not in told
