#!/usr/bin/env python3
"""Appends to a CSV file everything that moved money since its last line.

    accounting_export.py books.csv          # each night, or as often as you like

Each line carries the `seq` of its event, one order for the whole node, so the file itself says where to go on: nothing is written
twice, and nothing is missed. A line that an interruption cut short is taken back and written again. Where events are gone that were
never exported it stops and says so (kind `event_gap`): the node keeps events up to a size, `event.keep_kib`. Books that are to begin
behind what is gone, or what an earlier build wrote without amounts, are a new file, with the number of the event before the first:

    accounting_export.py new_books.csv 1234

Their first line `forwards` has all that relaying has earned, also before.

A node that was restored from a backup begins its events again at 1: begin new books then. It says so while the node has fewer events
than the file; later it cannot know.

`wallet_msat` is what the line adds to the wallet, `channel_msat` what it adds to the channels; what is negative leaves. Their sums are those
of balance_sheet.py once nothing is under way: neither a payment, nor a transaction that no block holds. From the close of a channel until
`channel_closed`, when it is deep enough, what comes home is in both, here as there. `fee_msat` is what of it went to fees, where that is known;
of a payment in parts it may still fall, see `payment.get`. A deposit, and what a close or a sweep pays, is `wallet_received`; the event
`channel_closing` or `channel_swept` has the same transaction. A channel whose funding transaction never comes is `channel_closed` too. What relaying has earned is one line at each run, `forwards`; the channels
of each are in `forward.list`.

What is not known, and is to be booked by hand:
- A transaction that a reorganisation takes back and that never comes again stays in the books; so book deposits that are deep enough.
- Of a channel that closes by force the fees are what `channel_msat` loses and the wallet does not gain: commitment, sweep and anchors.
- What HTLCs bring or cost that end on the chain has no event yet.

OUTRIGGER_DATA_DIR and OUTRIGGER_NETWORK say which daemon, or OUTRIGGER_URL and OUTRIGGER_TOKEN_FILE; a token needs the scope read.
"""

import csv
import datetime
import os
import pathlib
import sys
import time

from outrigger import Outrigger, Refused, Unreachable

COLUMNS = ["seq", "time", "kind", "wallet_msat", "channel_msat", "fee_msat", "reference", "description"]
KINDS = [
    "invoice_paid",
    "keysend_received",
    "payment_succeeded",
    "channel_pending",
    "channel_closed",
    "wallet_received",
    "wallet_confirmed",
]


def moment(unix):
    return datetime.datetime.fromtimestamp(unix, datetime.timezone.utc).isoformat()


def line(node, event):
    """An event as a line of the books."""
    kind = event["kind"]
    row = {
        "seq": event["seq"],
        "time": moment(event["at"]),
        "kind": kind,
        "reference": event.get("payment_hash") or event.get("txid"),
        "description": event.get("channel_id"),
    }
    if "fee_sat" in event:
        row["fee_msat"] = event["fee_sat"] * 1000
    if kind in ("invoice_paid", "keysend_received"):
        row["channel_msat"] = event["amount_msat"]
        row["description"] = node.call("invoice.get", payment_hash=event["payment_hash"])["description"]
    elif kind == "payment_succeeded":
        payment = node.call("payment.get", payment_id=event["payment_id"])
        row["channel_msat"], row["fee_msat"] = -payment["amount_msat"] - payment["fee_msat"], payment["fee_msat"]
        row["description"] = payment["node_id"]
    elif kind == "channel_pending":
        row["channel_msat"] = event["amount_msat"]
    elif kind == "channel_closed":
        row["channel_msat"] = -event["amount_msat"]
    elif kind == "wallet_received":
        row["wallet_msat"] = event["amount_sat"] * 1000
    elif kind == "wallet_confirmed":
        row["wallet_msat"] = (event["received_sat"] - event["spent_sat"]) * 1000
    # One line each; and a spreadsheet takes a text that begins so for a formula.
    text = " ".join((row["description"] or "").split())
    row["description"] = "'" + text if text[:1] in ("=", "+", "-", "@") else text
    return row


def booked(node, event):
    """The same; an event that cannot be booked is named."""
    try:
        return line(node, event)
    except KeyError as absent:
        sys.exit(
            f"accounting_export.py: event {event['seq']} ({event['kind']}) has no {absent}: an earlier build wrote it. Book it by hand, "
            f"and go on behind it in a new file: accounting_export.py NEW_FILE {event['seq']}"
        )


def has_events_until(node, seq):
    """Whether the node's newest event is this one, or came after it."""
    try:
        return bool(node.call("event.list", after_seq=seq - 1, limit=1)["items"])
    except Refused as fault:
        # Events that are gone were there, and newer ones are.
        if fault.kind != "event_gap":
            raise
        return True


def forwards(node, booked_msat, seq):
    """What relaying has earned and the books do not have: none, or one line."""
    stats = node.call("forward.stats", since_at=0)
    earned = stats["fees_msat"] - booked_msat
    row = {"seq": seq, "time": moment(time.time()), "kind": "forwards", "channel_msat": earned}
    return [row | {"description": f"{stats['settled']} forwards so far"}] if earned > 0 else []


def whole_lines(books):
    """The lines that the file has; what comes behind the last whole one is cut off."""
    whole = books.read_bytes() if books.exists() else b""
    whole = whole[: whole.rfind(b"\n") + 1]
    if books.exists():
        os.truncate(books, len(whole))
    lines = csv.DictReader(whole.decode().splitlines())
    if whole and lines.fieldnames != COLUMNS:
        sys.exit(f"accounting_export.py: {books} has other columns: an older release began it. Give a new file")
    return list(lines)


def main():
    words = sys.argv[1:]
    if len(words) not in (1, 2) or words[0].startswith("-") or not all(word.isdecimal() for word in words[1:]):
        sys.exit(__doc__)
    books, node = pathlib.Path(words[0]), Outrigger()
    rows = whole_lines(books)
    if rows and len(words) == 2:
        sys.exit(f"accounting_export.py: {books} says itself where to go on. Give the number with a new file alone")
    seq = int(rows[-1]["seq"]) if rows else int(words[1]) if len(words) == 2 else 0
    # Told again where a reorganisation moved it to another block.
    moved = {row["reference"] for row in rows if row["kind"].startswith("wallet_")}
    booked_msat = sum(int(row["channel_msat"]) for row in rows if row["kind"] == "forwards")
    try:
        if seq > 0 and not has_events_until(node, seq):
            sys.exit(
                f"accounting_export.py: the node has no event {seq} yet, behind which {books} is to go on: it is another node, or was "
                "restored from a backup and began its events again. Begin new books: give a new file"
            )
        with open(books, "a", newline="") as file:
            sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if file.tell() == 0:
                sheet.writeheader()
            for events, _ in node.events(seq, KINDS):
                for event in events:
                    seq = event["seq"]
                    if not event["kind"].startswith("wallet_") or event["txid"] not in moved:
                        sheet.writerow(booked(node, event))
                    if event["kind"].startswith("wallet_"):
                        moved.add(event["txid"])
                file.flush()
                os.fsync(file.fileno())
            sheet.writerows(forwards(node, booked_msat, seq))
    except Refused as fault:
        sys.exit(f"accounting_export.py: {fault} ({fault.kind}). {fault.hint}")
    except Unreachable as fault:
        sys.exit(f"accounting_export.py: no daemon answers: {fault}")


if __name__ == "__main__":
    main()
