#!/usr/bin/env python3
"""A shop of many orders, in two programs that need not run at the same time.

    shop.py sell ORDER AMOUNT_MSAT DESCRIPTION     prints an invoice; the same again for the same order
    shop.py deliver STATE [--once] COMMAND...      runs COMMAND ORDER RECEIVED_MSAT for every order that is paid

`deliver` follows the events and writes into the file STATE how far it is, after COMMAND has succeeded. Where it is interrupted in
between it runs COMMAND again for the same order: COMMAND must know the orders that it has delivered. With --once it ends when
nothing new has come, else it goes on for ever. OUTRIGGER_DATA_DIR and OUTRIGGER_NETWORK say which daemon,
or OUTRIGGER_URL and OUTRIGGER_TOKEN_FILE; a token needs the scopes invoice and read.
"""

import argparse
import os
import pathlib
import subprocess
import sys

from outrigger import Outrigger, Refused, Unreachable

LABEL = "shop.py "


def sell(node, order, amount_msat, description):
    """An invoice, which carries the order as its label."""
    created = node.call(
        "invoice.create",
        amount_msat=amount_msat,
        description=description,
        label=LABEL + order,
        idempotency_key=LABEL + order,
    )
    print(created["invoice"])


def write(path, text):
    """Replaces a file whole, or not at all."""
    new = path.with_name(path.name + ".new")
    with open(new, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def deliver(node, state, once, command):
    """Everything that is paid and not delivered yet."""
    after_seq = int(state.read_text()) if state.exists() else None
    pages = node.events if once else node.follow
    for events, next_seq in pages(after_seq, ["invoice_paid"]):
        for event in events:
            invoice = node.call("invoice.get", payment_hash=event["payment_hash"])
            label = invoice.get("label", "")
            if label.startswith(LABEL):
                subprocess.run([*command, label.removeprefix(LABEL), str(event["amount_msat"])], check=True)
            write(state, str(event["seq"]))
        write(state, str(next_seq))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    uses = parser.add_subparsers(dest="use", required=True)
    selling = uses.add_parser("sell")
    selling.add_argument("order")
    selling.add_argument("amount_msat", type=int)
    selling.add_argument("description")
    delivering = uses.add_parser("deliver")
    delivering.add_argument("state", type=pathlib.Path)
    delivering.add_argument("--once", action="store_true")
    delivering.add_argument("command", nargs="+")
    given = parser.parse_args()
    try:
        if given.use == "sell":
            sell(Outrigger(), given.order, given.amount_msat, given.description)
        else:
            deliver(Outrigger(), given.state, given.once, given.command)
    except Refused as fault:
        sys.exit(f"shop.py: {fault} ({fault.kind}). {fault.hint}")
    except Unreachable as fault:
        sys.exit(f"shop.py: no daemon answers: {fault}")
    except subprocess.CalledProcessError as fault:
        sys.exit(f"shop.py: {fault}. Nothing later is delivered before this is.")


if __name__ == "__main__":
    main()
