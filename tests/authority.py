"""A certificate authority for tests, and the files of a server's certificate that it has signed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme


class Authority:
    """Signs certificates for `localhost` and `127.0.0.1`.

    Args:
        folder: where `chain`, `key` and `root` are written, all of them PEM.
    """

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.chain, self.key, self.root = folder / "chain.pem", folder / "key.pem", folder / "root.pem"
        self.root.write_bytes(self.ca.cert_pem.bytes())
        self.issue()

    def issue(self) -> None:
        """Write a new certificate with a new key over the old ones."""
        leaf = self.ca.issue_cert("localhost", "127.0.0.1")
        self.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.key.write_bytes(leaf.private_key_pem.bytes())

    def client(self, **limits: Any) -> ssl.SSLContext:
        """The context of a client that trusts it; `limits` are set on it."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        for name, value in limits.items():
            setattr(context, name, value)
        return context
