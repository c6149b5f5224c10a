#!/usr/bin/env bash
# Tells you when something happens to a channel that you should know of, or to what the channels need: bitcoind, room, backups, peers.
#
#     contrib/examples/channel_alert.sh STATE COMMAND...           # for ever; --once in front of STATE: for cron
#
# Runs COMMAND with one more argument, a line of words, for each event, and writes into the file STATE how far it is, so that
# nothing is missed over a restart of either side. A daemon that cannot be reached is told once, and so is its return. Where COMMAND
# fails the same event comes again. Events wait where a required backup lacks what they tell; so backup.status is asked each time too,
# and a backup that is waited for, and its end, are told by words of their own. Needs outrigger-cli and jq; OUTRIGGER_DATA_DIR and
# OUTRIGGER_NETWORK say which daemon, or OUTRIGGER_URL and OUTRIGGER_TOKEN_FILE; a token needs the scope read.
set -euo pipefail
once=
if [ "${1:-}" = --once ]; then once=yes && shift; fi
state=${1:?STATE COMMAND...} && shift
: "${1:?COMMAND...}"

kinds=channel_ready,channel_funding_stuck,channel_closing,channel_close_stuck,channel_closed,channel_failed
kinds+=,channel_underpaid,channel_swept,channel_alarm,channel_frozen,wallet_reserve_low,backup_not_verified,node_restored
kinds+=,disk_low,disk_relieved,chain_blind,chain_synced,backup_behind,backup_complete,peer_disconnected,peer_connected

# keep FILE TEXT: replaces a file whole, or not at all.
keep() { printf '%s\n' "$2" >"$1.new" && sync "$1.new" && mv "$1.new" "$1"; }

# Required backups that are in trouble, or late by 20 seconds.
late='[.items[] | select(.required and (.state == "troubled" or .state == "failed" or .lag_secs >= 20)) | .name] | join(" ")'

while :; do
  if backups=$(outrigger-cli --json backup.status 2>/dev/null); then
    waits=$(jq -r "$late" <<<"$backups") was=
    if [ -s "$state.waits" ]; then was=$(<"$state.waits"); fi
    if [ "$waits" != "$was" ]; then
      words="events wait for no backup any more"
      if [ -n "$waits" ]; then words="events wait for the backup $waits: see backup.status"; fi
      "$@" "$words"
      keep "$state.waits" "$waits"
    fi
  fi
  after=()
  if [ -s "$state" ]; then after=("after_seq=$(<"$state")"); fi
  if ! page=$(outrigger-cli --json event.list kinds="$kinds" limit=1000 "${after[@]}" 2>"$state.error"); then
    # Exit code 1 is a refusal, such as event_gap: its words say what to do.
    if ! cmp -s "$state.error" "$state.told"; then
      "$@" "no events: $(jq -r '"\(.message) \(.data.hint // "")"' <"$state.error")"
      cp "$state.error" "$state.told"
    fi
    if [ -n "$once" ]; then exit 1; fi
    sleep 5
    continue
  fi
  if [ -e "$state.told" ]; then
    "$@" "events come again"
    rm "$state.told"
  fi
  while IFS=$'\t' read -r seq line; do
    "$@" "$line"
    keep "$state" "$seq"
  done < <(jq -r '.items[] | [.seq, "\(.kind) \(.channel_id // .backup // .node_id // "") \(.message // "")"] | @tsv' <<<"$page")
  next=$(jq .next_seq <<<"$page")
  if [ "${after[0]:-}" = "after_seq=$next" ]; then
    if [ -n "$once" ]; then exit 0; fi
    sleep 1
  fi
  keep "$state" "$next"
done
