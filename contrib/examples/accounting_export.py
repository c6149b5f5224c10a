#!/usr/bin/env python3
"""Appends to a CSV file everything that moved money since its last line.

    accounting_export.py books.csv          # each night, or as often as you like

Each line carries the `seq` of its event, one order for the whole node, so the file itself says where to go on: nothing is written
twice, and nothing is missed while the node keeps its events. A line that an interruption cut short is taken back and written again.
Where events are gone that were never exported it stops and says so (kind `event_gap`).

`in_msat` came from others and `out_msat` went to them; `moved_msat` went from a channel to the wallet and was ours before. What a payment
or a transaction cost is in `fee_msat`; of a payment in parts it may still fall, see `payment.get`. What relaying earned is not an
event: `forward.list` tells it, with a number of its own to go on from.
"""

import csv
import datetime
import os
import pathlib
import sys

from outrigger import Outrigger, Refused, Unreachable

COLUMNS = ["seq", "time", "kind", "in_msat", "out_msat", "moved_msat", "fee_msat", "reference", "description"]
KINDS = ["invoice_paid", "keysend_received", "payment_succeeded", "channel_fee_paid", "channel_swept", "channel_closed"]


def line(node, event):
    """An event as a line of the books."""
    kind = event["kind"]
    row = {
        "seq": event["seq"],
        "time": datetime.datetime.fromtimestamp(event["at"], datetime.timezone.utc).isoformat(),
        "kind": kind,
        "reference": event.get("payment_hash") or event.get("txid") or event.get("channel_id"),
    }
    if kind in ("invoice_paid", "keysend_received"):
        row["in_msat"] = event["amount_msat"]
        row["description"] = node.call("invoice.get", payment_hash=event["payment_hash"])["description"]
    elif kind == "payment_succeeded":
        payment = node.call("payment.get", payment_id=event["payment_id"])
        row["out_msat"], row["fee_msat"] = payment["amount_msat"], payment["fee_msat"]
        row["description"] = payment["node_id"]
    else:
        row["fee_msat"] = event["fee_sat"] * 1000 if "fee_sat" in event else None
        row["moved_msat"] = event["amount_sat"] * 1000 if "amount_sat" in event else None
        row["description"] = event.get("channel_id")
    # One line each; and a spreadsheet takes a text that begins so for a formula.
    text = " ".join((row["description"] or "").split())
    row["description"] = "'" + text if text[:1] in ("=", "+", "-", "@") else text
    return row


def last_seq(books):
    """The number of the last whole line; what comes behind it is cut off."""
    whole = books.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    os.truncate(books, len(whole))
    rows = list(csv.DictReader(whole.decode().splitlines()))
    return int(rows[-1]["seq"]) if rows else None


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    books, node = pathlib.Path(sys.argv[1]), Outrigger()
    after_seq = last_seq(books) if books.exists() else None
    try:
        with open(books, "a", newline="") as file:
            sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if file.tell() == 0:
                sheet.writeheader()
            for events, _ in node.events(after_seq, KINDS):
                sheet.writerows([line(node, event) for event in events])
                file.flush()
                os.fsync(file.fileno())
    except Refused as fault:
        sys.exit(f"accounting_export.py: {fault} ({fault.kind}). {fault.hint}")
    except Unreachable as fault:
        sys.exit(f"accounting_export.py: no daemon answers: {fault}")


if __name__ == "__main__":
    main()
