"""The certificate that a server shows to its clients, and TLS over their connections with it."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import attrs
import trio

from runtime.platform import RunBlocking


class CertificateUnusable(Exception):
    """A certificate or its key cannot be used; the text is all that a person needs to mend it."""


@attrs.define(eq=False)
class Certificate:
    """A certificate with its key, in two files of PEM, as it was when they were last read.

    TLS 1.2 or newer, with the ciphers of Python's defaults, all of which are forward secret.

    Args:
        chain: the file of the certificate, and of those that lead from it to its authority.
        key: the file of its private key, not encrypted.

    Attributes:
        sha256: the fingerprint of the certificate, in hex.
    """

    _chain: Path
    _key: Path
    _run_blocking: RunBlocking
    _context: ssl.SSLContext = attrs.field(init=False)
    sha256: str = attrs.field(default="", init=False)

    @classmethod
    async def read(cls, chain: Path, key: Path, run_blocking: RunBlocking) -> Certificate:
        """Read both files.

        Raises:
            CertificateUnusable: one cannot be read, or they do not belong together.
        """
        certificate = cls(chain, key, run_blocking)
        await certificate.reload()
        return certificate

    async def reload(self) -> None:
        """Read both files again, for the connections that come from now on; those that are open keep what they have.

        Raises:
            CertificateUnusable: as for `read`; then all stays as it was.
        """
        self._context, self.sha256 = await self._run_blocking(_read, self._chain, self._key)

    def wrap(self, stream: trio.abc.Stream) -> trio.SSLStream[trio.abc.Stream]:
        """TLS over a connection that a client has just opened; its handshake has yet to be made."""
        # Clients of HTTP close without a word of TLS; each message of theirs has a length of its own.
        return trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)


def _read(chain: Path, key: Path) -> tuple[ssl.SSLContext, str]:
    """The context of a server and the certificate's fingerprint, from a thread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    pem = _text(chain, "certificate")
    if "-----BEGIN CERTIFICATE-----" not in pem:
        raise CertificateUnusable(f"certificate {chain}: there is no certificate in it; it must be PEM")
    if "PRIVATE KEY-----" not in _text(key, "key"):
        raise CertificateUnusable(f"key {key}: there is no private key in it; it must be PEM")

    def encrypted() -> str:  # without it OpenSSL would ask on the terminal
        raise CertificateUnusable(f"key {key}: it is encrypted; decrypt it, and let only the server's user read it")

    try:
        context.load_cert_chain(chain, key, encrypted)
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN") : pem.index("-----END CERTIFICATE-----") + 25])
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateUnusable(f"key {key}: it is not that of the certificate {chain}") from error
        raise CertificateUnusable(f"certificate {chain} and key {key}: cannot be used: {error}") from error
    except (OSError, ValueError) as error:
        raise CertificateUnusable(f"certificate {chain} and key {key}: cannot be used: {error}") from error
    return context, hashlib.sha256(der).hexdigest()


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise CertificateUnusable(f"{what} {path}: cannot be read: {error.strerror}") from error
