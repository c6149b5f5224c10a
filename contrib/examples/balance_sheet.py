#!/usr/bin/env python3
"""What the node holds, as CSV on the standard output: one line for each place where there is money, then the sums.

    balance_sheet.py > sheet.csv

OUTRIGGER_DATA_DIR and OUTRIGGER_NETWORK say which daemon, or OUTRIGGER_URL and OUTRIGGER_TOKEN_FILE; a token needs the scope read.

`state` says how far a line can be relied on. What is `coming_home` is on its way from a channel to the wallet, less fees: from when
its transaction is published until it is deep enough it may stand under `wallet` too, so it has a sum of its own. Payments under way are
taken off the channels; they come back where they fail. What a peer has promised, by a channel whose funding transaction no block holds,
is in no sum of channels: it stands under `promise`. accounting_export.py tells how it came to be so: its sums are these once nothing
is under way.
"""

import csv
import sys

from outrigger import Outrigger, Refused, Unreachable

STATES = {
    "funding": "open",
    "normal": "open",
    "shutting_down": "open",
    "closing": "coming_home",
    "failed": "coming_home",
    "frozen": "unknown",
    "closed": "gone",
}


def channels(node):
    """Every channel, page by page."""
    after = {}
    while True:
        page = node.call("channel.list", limit=1000, **after)
        yield from page["items"]
        if "next" not in page:
            return
        after = {"after": page["next"]}


def lines(node):
    """(account, name, state, millisatoshi)"""
    balance = node.call("wallet.balance")
    for name in ("confirmed", "unconfirmed", "locked"):
        yield "wallet", name, name, balance[f"{name}_sat"] * 1000
    for channel in channels(node):
        state = STATES.get(channel["state"], "unknown")
        is_promise = not channel["is_opener"] and "short_channel_id" not in channel
        if is_promise and state in ("open", "coming_home"):
            yield "promise", channel["channel_id"], "promised", channel["local_msat"]
        elif state != "gone":
            yield "channel", channel["channel_id"], state, channel["local_msat"]


def main():
    node = Outrigger()
    try:
        info = node.call("node.info")
        found = list(lines(node))
    except (Refused, Unreachable) as fault:
        sys.exit(f"balance_sheet.py: {fault}")
    sheet = csv.writer(sys.stdout, lineterminator="\n")
    sheet.writerow(["account", "name", "state", "amount_msat"])
    sheet.writerows(found)
    sums = {}
    for account, _, state, amount_msat in found:
        sums[account, state] = sums.get((account, state), 0) + amount_msat
    for (account, state), amount_msat in sums.items():
        sheet.writerow(["sum", account, state, amount_msat])
    print(f"node {info['node_id']} at height {info.get('block_height')}", file=sys.stderr)


if __name__ == "__main__":
    main()
