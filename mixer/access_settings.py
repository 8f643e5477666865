"""Settings of who may ask: the server's TLS, API keys and tokens, what each tenant may ask."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, StringConstraints, model_validator

from mixer.frozen import Frozen, beside_the_file, beside_the_file_if_any

PemPath = Annotated[Path, AfterValidator(beside_the_file)]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Those that are checked with a public key: what checks a token cannot make one."""
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]


class ServerTlsSettings(Frozen):
    """PEM files of the gRPC port; they may be replaced while it serves."""

    certificate: PemPath
    """The server's, followed by what signed it."""
    key: PemPath
    client_ca: Annotated[Path | None, AfterValidator(beside_the_file_if_any)] = None
    """Who signs callers' certificates."""
    require_client: bool = False
    """Callers without such a certificate are turned away."""

    @model_validator(mode="after")
    def _asks_whom_it_can_check(self) -> ServerTlsSettings:
        if self.require_client and self.client_ca is None:
            raise ValueError("require_client needs client_ca: who signs callers' certificates")
        if self.client_ca and not self.require_client:
            raise ValueError("client_ca is of no use without require_client: true")
        return self


class JwtSettings(Frozen):
    """Tokens that somebody else issues; needs the extra `jwt`."""

    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)]
    jwks: Annotated[Path, AfterValidator(beside_the_file)]
    """Public keys: a JSON file of a key set, or a PEM file; it may be replaced while it is in use."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    tenant_claim: Annotated[str, Field(min_length=1)] = "tenant"
    scopes_claim: Annotated[str, Field(min_length=1)] = "scope"
    """Words apart by spaces, or a list; those that Mixer does not know are passed over."""
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 10.0
    """How far the issuer's clock may be off."""


class AuthSettings(Frozen):
    """How callers prove who they are; whoever cannot is turned away. Health is open to all."""

    keys: Annotated[Path | None, AfterValidator(beside_the_file_if_any)] = None
    """YAML or JSON: {SHA-256 of a key: {tenant, scopes}}; `mixer keys new` makes a line of it."""
    jwt: JwtSettings | None = None
    reflection: bool = True
    """Whether the server describes its services, to anybody who asks."""

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> AuthSettings:
        if self.keys is None and self.jwt is None:
            raise ValueError("lets nobody in: name keys, jwt or both")
        return self


class TenantSettings(Frozen):
    """What one tenant may ask; what is not given is not limited."""

    per_second: PositiveFloat | None = None
    """Calls, on the long run."""
    burst: PositiveInt | None = None
    """Calls at once after a pause; as many as in a second where not given."""
    per_day: PositiveInt | None = None
    """Calls from one midnight UTC to the next."""

    @model_validator(mode="after")
    def _bursts_of_a_rate(self) -> TenantSettings:
        if self.burst and not self.per_second:
            raise ValueError("burst is of no use without per_second")
        return self

    @property
    def at_once(self) -> int:
        """Calls at once after a pause."""
        return self.burst or math.ceil(self.per_second or 1)

    def shared_by(self, processes: int) -> TenantSettings:
        """The part of each of so many processes, none of which knows what the others let through."""
        return TenantSettings(
            per_second=self.per_second and self.per_second / processes,
            burst=math.ceil(self.at_once / processes) if self.per_second else None,
            per_day=self.per_day and math.ceil(self.per_day / processes),
        )
