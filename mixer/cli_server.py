"""How commands reach a running server: options that all of them take, and the client made of them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from mixer.cli_words import failure
from mixer.client import MixerClient, Tls
from mixer.faults import describe

_PANEL = "Reaching the server"


def _option(words: str, name: str, variable: str) -> Any:
    return typer.Option(name, help=words, envvar=variable, rich_help_panel=_PANEL)


Ca = Annotated[Path | None, _option("PEM: who signs the server's certificate.", "--tls-ca", "MIXER_TLS_CA")]
Certificate = Annotated[Path | None, _option("PEM: to show to the server.", "--tls-cert", "MIXER_TLS_CERT")]
Key = Annotated[Path | None, _option("PEM: of the certificate to show.", "--tls-key", "MIXER_TLS_KEY")]
ServerName = Annotated[
    str, _option("Name in the server's certificate, if not the target's.", "--tls-name", "MIXER_TLS_NAME")
]
System = Annotated[bool, typer.Option("--tls", help="Trust what gRPC trusts.", rich_help_panel=_PANEL)]
ApiKey = Annotated[
    str,
    typer.Option("--api-key-env", help="Environment variable that holds an API key.", rich_help_panel=_PANEL),
]
Token = Annotated[
    str, typer.Option("--token-env", help="Environment variable that holds a token.", rich_help_panel=_PANEL)
]


@dataclass(frozen=True, slots=True)
class Reach:
    """How to reach a server, as typed; secrets are named by their environment variables."""

    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_name: str = ""
    api_key_env: str = "MIXER_API_KEY"
    token_env: str = "MIXER_TOKEN"  # noqa: S105

    @property
    def options(self) -> Mapping[str, Any]:
        """For a client of either kind. Ends the command where they make no sense."""
        return {"tls": self._tls(), "api_key": _secret(self.api_key_env), "token": _secret(self.token_env)}

    def _tls(self) -> Tls | None:
        named = {"ca": self.tls_ca, "certificate": self.tls_cert, "key": self.tls_key}
        if not self.tls and not self.tls_name and not any(named.values()):
            return None
        try:
            return Tls(**named, server_name=self.tls_name)
        except ValidationError as error:
            raise failure("; ".join(f"TLS: {fault.message}" for fault in describe(error))) from None


HERE = Reach(api_key_env="", token_env="")
"""A server that this process started for itself."""


def _secret(variable: str) -> str:
    """The secret that a variable holds. One that is named by the caller, and not by us, must be there."""
    value = os.environ.get(variable, "")
    if variable and not value and variable not in (Reach().api_key_env, Reach().token_env):
        raise failure(f"{variable} is not set; it is to hold the secret")
    return value


@contextmanager
def client_of(target: str, reach: Reach, timeout_s: float) -> Iterator[MixerClient]:
    """A client of the server. Ends the command where files of TLS cannot be used."""
    options = reach.options
    try:
        client = MixerClient(target, timeout_s=timeout_s, **options)
    except (OSError, ValueError) as error:
        raise failure(f"TLS: {error}") from error
    with client:
        yield client


def reaches_a_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, which gets a `reach`, with the options that make one."""
    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=getattr(_DEFAULT, name), annotation=kind
        )
        for name, kind in _OPTIONS.items()
    ]

    @wraps(command)
    def reaching(**typed: Any) -> Any:
        reach = Reach(**{name: typed.pop(name) for name in _OPTIONS})
        return command(**typed, reach=reach)

    kept = [parameter for name, parameter in own.parameters.items() if name != "reach"]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in kept] + added
    reaching.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    reaching.__annotations__ = {each.name: each.annotation for each in parameters}
    return reaching


_DEFAULT = Reach()
_OPTIONS: Mapping[str, Any] = {
    "tls": System,
    "tls_ca": Ca,
    "tls_cert": Certificate,
    "tls_key": Key,
    "tls_name": ServerName,
    "api_key_env": ApiKey,
    "token_env": Token,
}
