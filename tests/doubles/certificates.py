"""Certificates as an authority issues them, and files that are replaced as orchestrators replace them."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes
    ends: datetime


class Authority:
    """Issues certificates for the loopback."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    @cached_property
    def pem(self) -> bytes:
        """Its own certificate."""
        draft = self._draft(self._name, self._key.public_key(), timedelta(days=30))
        constrained = draft.add_extension(x509.BasicConstraints(True, None), True)
        return constrained.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str = "localhost", lasts: timedelta = timedelta(days=20)) -> Issued:
        """A certificate for this name and the loopback's address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        draft = self._draft(subject, key.public_key(), lasts)
        signed = draft.add_extension(x509.SubjectAlternativeName(names), False).sign(
            self._key, hashes.SHA256()
        )
        plain = serialization.NoEncryption()
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return Issued(
            signed.public_bytes(pem), key.private_bytes(pem, form, plain), signed.not_valid_after_utc
        )

    def _draft(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, lasts: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        draft = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        dated = draft.not_valid_before(now - timedelta(days=60)).not_valid_after(now + lasts)
        return dated.serial_number(x509.random_serial_number())


class Mount:
    """A folder that is replaced as a whole, by a symbolic link, as Kubernetes does with secrets."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir()

    def put(self, **contents: bytes) -> dict[str, Path]:
        """These files are there from now on; the paths stay the same."""
        version = self._root / f"..{uuid4().hex}"
        version.mkdir()
        for name, content in contents.items():
            (version / name).write_bytes(content)
        draft = self._root / "..draft"
        draft.symlink_to(version.name)
        os.replace(draft, self._root / "..data")
        for name in contents:
            if not (self._root / name).is_symlink():
                (self._root / name).symlink_to(f"..data/{name}")
        return {name: self._root / name for name in contents}

    def pair(self, issued: Issued, **more: bytes) -> dict[str, Path]:
        """A certificate, its key, and more."""
        return self.put(certificate=issued.certificate, key=issued.key, **more)
