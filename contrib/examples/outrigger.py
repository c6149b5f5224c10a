"""Calls a daemon, with nothing but Python's own library. The examples beside it use it; copy it if you like it.

    from outrigger import Outrigger
    node = Outrigger()
    print(node.call("node.info")["node_id"])
"""

import base64
import http.client
import ipaddress
import json
import os
import pathlib
import ssl
import time
import urllib.parse

NETWORKS = ("signet", "regtest")


class Refused(Exception):
    """The daemon refused the call: `kind` is for programs, `hint` says what to do."""

    def __init__(self, error):
        super().__init__(error.get("message", ""))
        data = error.get("data") or {}
        self.code, self.kind, self.hint = error.get("code"), data.get("kind"), data.get("hint")
        self.retryable = data.get("retryable", False)


class Unreachable(Exception):
    """There is no answer. Whether the call was carried out is not known: repeat it, with the same `idempotency_key`."""


class Outrigger:
    """The daemon at OUTRIGGER_URL, with the token in the file OUTRIGGER_TOKEN_FILE, as outrigger-cli takes them; without a URL the one
    that OUTRIGGER_DATA_DIR and OUTRIGGER_NETWORK name, or the one that runs with ~/.outrigger, and its cookie.

    For https:// the file OUTRIGGER_CA has the authority that signed the daemon's certificate, or that certificate, as PEM; without it
    those that this machine trusts. Either way the certificate must be for the name in the URL."""

    def __init__(self, directory=None):
        self.url = None if directory else os.environ.get("OUTRIGGER_URL") or None
        data = pathlib.Path(os.environ.get("OUTRIGGER_DATA_DIR") or pathlib.Path.home() / ".outrigger")
        network = os.environ.get("OUTRIGGER_NETWORK")
        networks = [network] if network else [name for name in NETWORKS if (data / name / "rpc_address").exists()]
        self.directory = pathlib.Path(directory) if directory else data / (networks or NETWORKS)[0]

    def _door(self):
        """A connection, and what admits. Where a port of this machine speaks TLS, the daemon is known by the certificate that it left
        beside its address, whatever its names."""
        if self.url:
            return self._elsewhere()
        address = (self.directory / "rpc_address").read_text().strip()
        cookie = (self.directory / ".cookie").read_bytes().strip()
        credentials = f"Basic {base64.b64encode(cookie).decode()}"
        if not address.startswith("https://"):
            return http.client.HTTPConnection(address, timeout=630), credentials
        certificates = (self.directory / "rpc_certificate.pem").read_text()
        own = certificates.partition("-----END CERTIFICATE-----")
        trust = ssl.create_default_context(cadata=own[0] + own[1])
        trust.check_hostname = False
        trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        address = address.removeprefix("https://")
        return http.client.HTTPSConnection(address, timeout=630, context=trust), credentials

    def _elsewhere(self):
        """The same for a daemon that is not found by its files. A token goes over http:// to this machine alone."""
        file = os.environ.get("OUTRIGGER_TOKEN_FILE")
        if not file:
            raise Unreachable("OUTRIGGER_URL needs OUTRIGGER_TOKEN_FILE: a file that holds what token.create gave")
        credentials = f"Bearer {pathlib.Path(file).read_text().strip()}"
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme == "https":
            trust = ssl.create_default_context(cafile=os.environ.get("OUTRIGGER_CA") or None)
            trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            return http.client.HTTPSConnection(parts.netloc, timeout=630, context=trust), credentials
        try:
            is_here = parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            is_here = False
        if not is_here:
            raise Unreachable("OUTRIGGER_URL must be https://HOST:PORT, or http://127.0.0.1:PORT, for a token is not sent unencrypted")
        return http.client.HTTPConnection(parts.netloc, timeout=630), credentials

    def call(self, method, **parameters):
        """The result of a method. Address and cookie are new at every start of the daemon, and a token may be replaced, so they are
        read for every call."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        try:
            connection, credentials = self._door()
            headers = {"content-type": "application/json", "authorization": credentials}
            connection.request("POST", "/", json.dumps(call), headers)
            response = connection.getresponse()
            text = response.read()
            connection.close()
        except (OSError, http.client.HTTPException) as fault:
            raise Unreachable(f"{method}: {fault}") from fault
        try:
            answer = json.loads(text)
        except ValueError as fault:
            raise Unreachable(f"{method}: HTTP {response.status}") from fault
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def events(self, after_seq=None, kinds=None):
        """Every event after a number that there is now, oldest first, page by page: (events, the number to go on from)."""
        while True:
            given = {"after_seq": after_seq} if after_seq is not None else {}
            if kinds:
                given["kinds"] = kinds
            page = self.call("event.list", limit=1000, **given)
            yield page["items"], page["next_seq"]
            if page["next_seq"] == (after_seq or 0):
                return
            after_seq = page["next_seq"]

    def follow(self, after_seq=None, kinds=None, every_secs=1):
        """The same without end; a daemon that is away is waited for."""
        while True:
            try:
                for items, next_seq in self.events(after_seq, kinds):
                    yield items, next_seq
                    after_seq = next_seq
            except Unreachable:
                pass
            time.sleep(every_secs)
