"""TLS towards a service: whom to trust, and what to show. PEM files, which may be replaced while they are in use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import grpc
from pydantic import AfterValidator, ValidationInfo, model_validator

from backends.base import EngineSettings


def _beside_settings(path: Path | None, info: ValidationInfo) -> Path | None:
    """Relative paths start at the folder of the settings file, where the reader of one says which that is."""
    folder = (info.context or {}).get("folder")
    return folder / path if folder is not None and path is not None else path


PemFile = Annotated[Path | None, AfterValidator(_beside_settings)]


class Tls(EngineSettings):
    """How to reach a service by TLS; all defaults trust what the machine trusts and show no certificate."""

    ca: PemFile = None
    """Whom to trust; None for the authorities that gRPC comes with."""
    certificate: PemFile = None
    """To show to the service, with what signed it; needs the key."""
    key: PemFile = None
    server_name: str = ""
    """The name in the service's certificate, where it is not that of the target."""

    @model_validator(mode="after")
    def _is_pair(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together; name both or neither")
        return self

    @property
    def paths(self) -> list[Path]:
        """The files that are named."""
        return [path for path in (self.ca, self.certificate, self.key) if path is not None]

    def credentials(self, contents: Sequence[bytes]) -> grpc.ChannelCredentials:
        """For a channel, of the contents of `paths`. Raises: ValueError where they are wrong."""
        left = list(contents)
        ca = left.pop(0) if self.ca else None
        if ca is not None:
            authorities(ca)
        if not left:
            return grpc.ssl_channel_credentials(ca)
        certificate, key = left
        check_pair(certificate, key)
        return grpc.ssl_channel_credentials(ca, key, certificate)

    @property
    def options(self) -> list[tuple[str, str]]:
        """For a channel."""
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


def read(tls: Tls) -> grpc.ChannelCredentials:
    """What the files hold now. Raises: OSError, ValueError."""
    return tls.credentials([path.read_bytes() for path in tls.paths])


def check_pair(certificate: bytes, key: bytes) -> datetime:
    """When a certificate ends. Raises: ValueError where it is none, is over, or the key is not its own."""
    from cryptography.hazmat.primitives import serialization

    chain = _certificates(certificate, "certificate")
    try:
        private = serialization.load_pem_private_key(key, None)
    except (
        TypeError,
        ValueError,
    ) as error:  # TypeError: it has a password. The error's words may show the key.
        raise ValueError(f"key: is no PEM private key without a password ({type(error).__name__})") from None
    spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*spki) != chain[0].public_key().public_bytes(*spki):
        raise ValueError("certificate and key: do not belong together")
    ends: datetime = min(each.not_valid_after_utc for each in chain)
    if ends <= datetime.now(UTC):
        raise ValueError(f"certificate: is over since {ends:%Y-%m-%d %H:%M} UTC")
    return ends


def authorities(ca: bytes) -> None:
    """Raises: ValueError where these are no certificates."""
    _certificates(ca, "ca")


def _certificates(pem: bytes, what: str) -> list[Any]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"{what}: is no PEM certificate") from error
