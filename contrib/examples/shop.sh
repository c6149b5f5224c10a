#!/usr/bin/env bash
# Sells one thing: prints an invoice, waits until it is paid, and says so.
#
#     contrib/examples/shop.sh ORDER AMOUNT_MSAT DESCRIPTION [EXPIRY_SECS] && ship-it
#
# Run it again with the same words after any interruption: the order is the idempotency key, so the invoice is the same, and a
# payment that came meanwhile is found. Exit code 0: paid; 1: it expired unpaid; 2: refused, as an order is that was made before with
# other words, or no daemon is reached. Needs outrigger-cli and jq; OUTRIGGER_DATA_DIR and OUTRIGGER_NETWORK say which daemon, or
# OUTRIGGER_URL and OUTRIGGER_TOKEN_FILE; a token needs the scopes invoice and read.
set -euo pipefail
order=${1:?ORDER AMOUNT_MSAT DESCRIPTION} amount_msat=${2:?AMOUNT_MSAT DESCRIPTION} description=${3:?DESCRIPTION}

call() { outrigger-cli --json "$@"; }

created=$(call invoice.create amount_msat="$amount_msat" description="$description" label="$order" \
  idempotency_key="shop $order" ${4:+expiry_secs="$4"}) || exit 2
payment_hash=$(jq -r .payment_hash <<<"$created")
jq -r .invoice <<<"$created"

# What an event tells is safe in every required backup, which invoice.get does not say. The first page begins at the oldest.
after=()
while :; do
  page=$(call event.list kinds=invoice_paid limit=1000 "${after[@]}") || exit 2
  paid_msat=$(jq -r --arg hash "$payment_hash" '.items[] | select(.payment_hash == $hash).amount_msat' <<<"$page")
  if [ -n "$paid_msat" ]; then
    echo "paid: $order, $paid_msat msat"
    exit 0
  fi
  next=after_seq=$(jq .next_seq <<<"$page")
  if [ "$next" = "${after[0]:-}" ]; then
    if [ "$(call invoice.get payment_hash="$payment_hash" | jq -r .state)" = expired ]; then
      echo "expired: $order" >&2
      exit 1
    fi
    sleep 1
  fi
  after=("$next")
done
