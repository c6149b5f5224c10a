"""Calls a daemon on this machine, with nothing but Python's own library. The examples beside it use it; copy it if you like it.

    from outrigger import Outrigger
    node = Outrigger()
    print(node.call("node.info")["node_id"])
"""

import base64
import http.client
import json
import os
import pathlib
import ssl
import time

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
    """The daemon that OUTRIGGER_DATA_DIR and OUTRIGGER_NETWORK name, or the one that runs with ~/.outrigger."""

    def __init__(self, directory=None):
        data = pathlib.Path(os.environ.get("OUTRIGGER_DATA_DIR") or pathlib.Path.home() / ".outrigger")
        network = os.environ.get("OUTRIGGER_NETWORK")
        networks = [network] if network else [name for name in NETWORKS if (data / name / "rpc_address").exists()]
        self.directory = pathlib.Path(directory) if directory else data / (networks or NETWORKS)[0]

    def _connection(self, address):
        """Where the port speaks TLS, the daemon is known by the certificate that it left beside its address, whatever its names."""
        if not address.startswith("https://"):
            return http.client.HTTPConnection(address, timeout=630)
        certificates = (self.directory / "rpc_certificate.pem").read_text()
        own = certificates.partition("-----END CERTIFICATE-----")
        trust = ssl.create_default_context(cadata=own[0] + own[1])
        trust.check_hostname = False
        trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return http.client.HTTPSConnection(address.removeprefix("https://"), timeout=630, context=trust)

    def call(self, method, **parameters):
        """The result of a method. Address and cookie are new at every start of the daemon, so they are read for every call."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        try:
            address = (self.directory / "rpc_address").read_text().strip()
            cookie = (self.directory / ".cookie").read_bytes().strip()
            credentials = base64.b64encode(cookie).decode()
            headers = {"content-type": "application/json", "authorization": f"Basic {credentials}"}
            connection = self._connection(address)
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
