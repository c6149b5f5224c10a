// The interface of Outrigger. Made from the types in rpc-schema/src: UPDATE_OPENRPC=1 cargo test -p outrigger-rpc-schema

/** One backup. */
export interface BackupInfo {
  /** When it last completed a write, in unix seconds; absent before the first since the start of the daemon. */
  completed_at?: number;
  /** What to do; absent where nothing is to be done. */
  hint?: string;
  /** What it is: `mirror`, `directory` or `command`. */
  kind: string;
  /** What it has yet to complete, in bytes of keys and rows, about: what waits to be given to it, and what it has in hand. Until a write of a whole channel is made it is an estimate: as much as the last one, or as the updates that it stands for where they are more, and 2,048 bytes at least. It is 0 only where nothing waits. */
  lag_bytes: number;
  /** For how long the oldest write that it has yet to complete waits, in seconds. */
  lag_secs: number;
  /** How many writes of all channels it has yet to complete, a count. */
  lag_updates: number;
  /** Its name in the configuration. */
  name: string;
  /** What is wrong, and absent where nothing is known to be. */
  reason?: string;
  /** Whether promises to peers wait for it. */
  required: boolean;
  /** How it stands. */
  state: BackupState;
  /** Why no restore is tried from it now, or not of all channels; absent where one is. */
  unverified?: string;
  /** When a restore from it was last tried by the node and found right, in unix seconds, over restarts; absent before the first. `outriggerd verify-backup` changes nothing, and so not this. */
  verified_at?: number;
  /** Why the last restore that was tried from it would not have brought back what the node has; absent where it would, and before the first. */
  verify_failure?: string;
}

/** How the backups stand. */
export interface BackupReport {
  /** How many events are not told yet because a required backup lacks a channel that they, or events before them, tell of. */
  held_events: number;
  /** The channels that the oldest of them waits for, 16 at most. */
  held_events_for: string[];
  /** For how long the oldest of them waits, in seconds. */
  held_events_secs: number;
  /** The backups, in the order of the configuration; none where none is configured. */
  items: BackupInfo[];
  /** How many channels take no new HTLCs because a required backup has been late with them for more than 20 seconds. */
  stalled_channels: number;
}

/** How a backup stands. */
export type BackupState =
  /** It has not told yet what it holds. */
  | "starting"
  /** It has everything. */
  | "complete"
  /** It is behind, and nothing is known to be wrong. */
  | "behind"
  /** It cannot be reached or written to, and is tried again. */
  | "troubled"
  /** It refused a channel for good. A second refusal stops the daemon where it is required. */
  | "failed"
  /** It holds more than the database, which is an old copy; it is left as it is. */
  | "ahead"
  /** The node is in restored mode and gives nothing to backups. */
  | "off";

/** Tells how every backup of the configuration stands, and how far it is behind. */
export interface BackupStatus {}

/** What the node allows itself to ask of bitcoind at once, and what it asks. The long poll for the next block has a connection of its own and is not counted. */
export interface ChainBudget {
  /** The most calls that are under way at once; one of them is kept for those with a deadline. */
  calls_at_once: number;
  /** Calls that are under way now. */
  calls_now: number;
  /** The most that were under way at once since the start of the daemon. */
  calls_peak: number;
  /** How long one waited for its turn on average, in microseconds. */
  turn_mean_micros: number;
  /** 99 of 100 waited no longer than this, in microseconds: the end of a bucket of a histogram, 120 s at the most. */
  turn_most_within_micros: number;
  /** How many calls have had their turn since the start of the daemon. */
  turns: number;
}

/** What was asked of bitcoind by one method since the start of the daemon. */
export interface ChainCalls {
  /** How many calls have ended. */
  calls: number;
  /** How many of them had no answer, or one that is an error; a block that bitcoind does not have is one too. */
  errors: number;
  /** Half of them took no longer than this, in microseconds: the end of a bucket of a histogram, 120 s at the most. */
  half_within_micros: number;
  /** How long one took on average, in microseconds. `waitfornewblock` waits for the next block. */
  mean_micros: number;
  /** The method's name at bitcoind. */
  method: string;
  /** 99 of 100 took no longer than this, in microseconds: as above. */
  most_within_micros: number;
}

/** Tells the feerates that the node goes by, each in satoshi per virtual byte, rounded up. */
export interface ChainFeerates {}

/** Feerates. */
export interface ChainFeeratesReport {
  /** What commitment transactions of our channels are asked to pay. */
  commitment_sat_per_vb: number;
  /** The least that is relayed. */
  floor_sat_per_vb: number;
  /** What funding and closing transactions pay unless the caller says otherwise. */
  normal_sat_per_vb: number;
}

/** The node looks for blocks. */
export interface ChainNotified {
  /** Height of the newest block that the node had taken in before; absent before the first. */
  block_height?: number;
}

/** Says that there may be a new block, as bitcoind's `blocknotify` does. The node finds blocks by itself; this makes it look at once where it is waiting to ask again. */
export interface ChainNotifyBlock {
  /** The block's hash, 32 bytes as hex: taken for what bitcoind calls with, and not relied on. */
  block_hash?: string;
}

/** How the node stands to bitcoind's chain. */
export type ChainState =
  /** bitcoind does not answer, or is not ready. */
  | "waiting_for_bitcoind"
  /** Blocks are being taken in. */
  | "syncing"
  /** The node has taken in bitcoind's newest block. */
  | "synced"
  /** What bitcoind says cannot be used: another chain, a pruned block, a block that is not what was asked for. */
  | "blind";

/** Tells how far the node follows the chain. */
export interface ChainStatus {}

/** How far the node follows the chain. */
export interface ChainStatusReport {
  /** Hash of that block, hex in display order. */
  block_hash?: string;
  /** Height of the newest block that the node has taken in. */
  block_height?: number;
  /** What the node allows itself to ask at once, and what it asks. */
  budget: ChainBudget;
  /** What was asked of bitcoind since the start of the daemon, by method. */
  calls: ChainCalls[];
  /** The Bitcoin network: `regtest` or `signet`. */
  network: string;
  /** Why the node is in this state; absent where the state says it all. */
  reason?: string;
  /** The state. */
  state: ChainState;
  /** Height that bitcoind has reached. */
  target_height?: number;
}

/** Closes a channel together with the peer. Answers at once; pending payments end first. A repeat tells how far it is, and takes no key; with a higher feerate it replaces the closing transaction, where the peer knows `option_simple_close`. */
export interface ChannelClose {
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
  /** Feerate of the closing transaction in satoshi per virtual byte; bitcoind's estimate without it. */
  feerate_sat_per_vb?: number;
}

/** A channel is being closed. */
export interface ChannelClosing {
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
  /** The state of the channel. */
  state: ChannelState;
}

/** Closes a channel without the peer: our newest commitment transaction, or, of a channel that a backup refused, the newest that every required backup has, goes on chain, and our balance comes to the wallet after the delay that the peer set, less fees. `channel.close` is cheaper where the peer answers. Refused for a channel of which the peer has proved a newer state. Where a required backup has not told since the start what it holds, nothing is published before it has: `reason` in `channel.get` says so. Answers at once; a repeat tells how far it is, and takes no key. */
export interface ChannelForceClose {
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
}

/** A channel is being closed without the peer. */
export interface ChannelForceClosing {
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
  /** The id of our commitment transaction, or of the transaction that closed the channel instead of it. */
  closing_txid?: string;
  /** The state of the channel: `failed` until the money is home, then `closed`. */
  state: ChannelState;
}

/** Shows one channel. It tells what the database has: where backups are required, what every one of them has is told by events. */
export interface ChannelGet {
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
}

/** A channel. Every amount is of the state that both sides have signed, the pending HTLCs taken off. */
export interface ChannelInfo {
  /** Whether the channel is to be announced to the network. */
  announce: boolean;
  /** The amount of the funding output, in satoshi. */
  capacity_sat: number;
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
  /** The channel type (BOLT 9): the bit field as hex, most significant byte first. */
  channel_type: string;
  /** The id of the transaction that closes the channel; absent until one is known. Where several are signed, the newest of them, until one confirms. */
  closing_txid?: string;
  /** The number of the newest commitment transaction of ours, counting up from 0 (BOLT 3). */
  commitment_number: number;
  /** Whether the peer is connected and the channel is agreed on since (BOLT 2, `channel_reestablish`). */
  connected: boolean;
  /** What is asked for forwarding HTLCs to the peer; absent where nothing is forwarded any more. */
  forwarding?: ForwardingTerms;
  /** Why the channel is frozen, and absent otherwise. What cannot be read of it is empty or 0. */
  frozen_reason?: string;
  /** The funding output, as `txid:n`. */
  funding_outpoint: string;
  /** How many HTLCs are pending. */
  htlcs: number;
  /** Whether this node opened the channel and pays its commitment fees. */
  is_opener: boolean;
  /** What is ours, in millisatoshi. */
  local_msat: number;
  /** How many confirmations the funding output still needs; absent once it has them. */
  needed_blocks?: number;
  /** The peer's public key: 33 bytes, hex. */
  node_id: string;
  /** Why the channel failed, or why its cooperative close has not come about and what to do; absent otherwise. Under restored mode also what to do where the peer does not close. What the peer said is escaped and cut short. */
  reason?: string;
  /** The most that one payment could bring now, in millisatoshi. */
  receivable_msat: number;
  /** What is the peer's, in millisatoshi. */
  remote_msat: number;
  /** Where the funding output stands in the chain, as `BxTxO`; absent until a block holds it. */
  short_channel_id?: string;
  /** The most that one payment could send now, in millisatoshi: ours less reserve, fees and limits. */
  spendable_msat: number;
  /** Whether a required backup is so late with the channel that it takes no new HTLCs; `backup.status` says why. */
  stalled?: boolean;
  /** The state of the channel. */
  state: ChannelState;
}

/** Lists channels that are not forgotten, in the order of their names. It tells what the database has, as `channel.get`. */
export interface ChannelList {
  /** The `next` of the page before; the first page without it. */
  after?: string;
  /** How many channels to give at most: 1 to 1000; 100 without it. */
  limit?: number;
  /** Only channels with this peer: 33 bytes, hex. */
  node_id?: string;
  /** Only channels in this state. */
  state?: ChannelState;
}

/** Opens a channel with a connected peer. Answers as soon as the opening is stored, which is before the peer has agreed: `channel.open_wait` waits for its end, and an event tells of it. A repeat of the same call tells how far the opening is, at once too. */
export interface ChannelOpen {
  /** Whether the channel shall be announced to the network; false without it. */
  announce?: boolean;
  /** Feerate of the funding transaction in satoshi per virtual byte; bitcoind's estimate without it. */
  feerate_sat_per_vb?: number;
  /** The channel's capacity in satoshi, taken from the wallet; the fee of the funding transaction comes on top. */
  funding_sat: number;
  /** Any text of 1 to 128 characters that names this opening: the same text with the same parameters never opens a second channel, and with other parameters is refused. It is remembered for 1,000 days, and at least until the opening is over. */
  idempotency_key: string;
  /** The peer's public key: 33 bytes, hex. */
  node_id: string;
  /** Millisatoshi of the capacity that are given to the peer; 0 without it. */
  push_msat?: number;
}

/** Waits until an opening is over, and tells what became of it: `pending` with the channel's name, once every required backup has the channel; or `failed`, once the coins that were meant for it are free again; or `unknown`. After `timeout_secs` it answers how far it is then. */
export interface ChannelOpenWait {
  /** The opening, as `channel.open` named it: 16 bytes, hex. A token finds those that it began itself, or that another token of its name did; one that may do everything finds all. */
  op_id: string;
  /** How long to wait at most, in seconds: 1 to 600; 60 without it. */
  timeout_secs?: number;
}

/** How far an opening is. */
export interface ChannelOpened {
  /** The channel's name, hex; absent until it is final. */
  channel_id?: string;
  /** Why it failed, and then no coins were spent; or why it is not known what became of it, and what to look at. Present where the state is `failed` or `unknown`. */
  failure?: string;
  /** The id of the funding transaction; absent until it is final. */
  funding_txid?: string;
  /** Names the opening: 16 bytes, hex. `channel.open_wait` finds it by that. */
  op_id: string;
  /** How far it is. */
  state: OpenState;
}

/** A page of channels. */
export interface ChannelPage {
  /** The channels. */
  items: ChannelInfo[];
  /** What to give as `after` for the next page; absent on the last. */
  next?: string;
}

/** Changes what is asked for forwarding over one channel; what is not given stays. The peer is told, and for ten minutes payments that meet the terms before this change are forwarded too. Answers with all terms of the channel as they are then. It takes no key: a repeat sets the same again, over what another caller may have set meanwhile. */
export interface ChannelSetPolicy {
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
  /** Blocks between the expiry of the incoming and of the outgoing HTLC: 34 to 2016. */
  cltv_delta_blocks?: number;
  /** The fee of each HTLC, in millisatoshi. */
  fee_base_msat?: number;
  /** The fee for each million that is forwarded. */
  fee_proportional_millionths?: number;
  /** Whether all that was set for this channel before is dropped first, so that the config's terms hold again where nothing is given here; false without it. */
  from_config?: boolean;
  /** The largest HTLC that is forwarded, in millisatoshi; 0 for as much as the channel carries. */
  htlc_maximum_msat?: number;
  /** The smallest HTLC that is forwarded, in millisatoshi. */
  htlc_minimum_msat?: number;
}

/** The state of a channel. */
export type ChannelState =
  /** Waits for its confirmations, or for the peer's `channel_ready`. */
  | "funding"
  /** Carries payments. */
  | "normal"
  /** Takes no new payments and waits for the pending ones to end. */
  | "shutting_down"
  /** The closing transaction is agreed on or published, and not deep enough yet. */
  | "closing"
  /** Closed for good. */
  | "closed"
  /** Failed: our newest commitment transaction goes on chain, and the money comes home from there. Where a required backup refused the channel, only what every required backup has goes there, at the first deadline of an HTLC or by `channel.force_close`, or nothing where that is not known; in restored mode nothing. `reason` says which. */
  | "failed"
  /** Stored rows of it cannot be read: nothing of it is signed or published, and its rows stay as they are. */
  | "frozen";

/** Waits until a channel is in a state, or in one from which it cannot come there any more, and shows it: after `timeout_secs` as it is then. What became of it stands in `state`. */
export interface ChannelWait {
  /** The channel's name: 32 bytes, hex. */
  channel_id: string;
  /** The state to wait for. */
  state: ChannelState;
  /** How long to wait at most, in seconds: 1 to 600; 60 without it. */
  timeout_secs?: number;
}

/** Tells every key of the configuration with the value that is in force, its default, and where the value comes from. */
export interface ConfigGet {
  /** Only these keys, by their names; all without it. */
  keys?: string[];
}

/** A key of the configuration. */
export interface ConfigItem {
  /** What it would be if nobody had said anything. */
  default: string;
  /** Its name: `name`, or `section.name`; of a backup `backup.NAME.key`. */
  key: string;
  /** Where the value comes from. */
  origin: ConfigOrigin;
  /** The place where the value stands: `file:line`, the name of a variable, a flag, a directory; absent for a default. */
  place?: string;
  /** What it takes. */
  takes: OptionTakes;
  /** The value that is in force, as text; of a secret only whether there is one: `(hidden)`, of a program its name without its arguments. */
  value: string;
}

/** Where a value of the configuration comes from. */
export type ConfigOrigin =
  /** Nobody said anything. */
  | "default"
  /** The configuration file. */
  | "file"
  /** A variable of the environment. */
  | "environment"
  /** The command line. */
  | "flag"
  /** bitcoind's own configuration, `bitcoin.conf`. */
  | "bitcoin_conf"
  /** Where bitcoind puts it by itself, in its data directory. */
  | "bitcoind_directory";

/** The configuration that is in force. It was read when the daemon was started. */
export interface ConfigReport {
  /** The configuration file that was read; absent where there was none. */
  file?: string;
  /** Keys in the order of the example file, and those of each `[[backup]]` after them, as `backup.NAME.path`. */
  items: ConfigItem[];
}

/** The `data` of an error. */
export interface ErrorData {
  /** The number of the event to go on from, where it is events that the caller missed or stopped at. */
  after_seq?: number;
  /** What to do next, for people. */
  hint: string;
  /** What went wrong, in snake case: stable, for programs. One of [`ErrorKind`], or of a newer version's. */
  kind: string;
  /** The parameter that is at fault, where it is one. */
  parameter?: string;
  /** Whether the same call may succeed later without anybody changing anything but time. */
  retryable: boolean;
}

/** Something that has happened. Which names it carries follows from its kind. */
export interface Event {
  /** The amount concerned, in millisatoshi. */
  amount_msat?: number;
  /** The amount concerned on chain, in satoshi. */
  amount_sat?: number;
  /** When it was stored, in unix seconds. */
  at: number;
  /** The backup concerned, by its name. */
  backup?: string;
  /** The height of the block concerned. */
  block_height?: number;
  /** The channel concerned: 32 bytes, hex. */
  channel_id?: string;
  /** What is paid in fees on chain, in satoshi. */
  fee_sat?: number;
  /** What happened. */
  kind: EventKind;
  /** What there is to say about it; what a peer sent is escaped and cut short. */
  message?: string;
  /** The peer concerned: 33 bytes, hex. */
  node_id?: string;
  /** The call concerned: an opening, or coins that are sent. */
  op_id?: string;
  /** The payment hash concerned: 32 bytes, hex. */
  payment_hash?: string;
  /** The payment concerned. */
  payment_id?: string;
  /** What a transaction pays the wallet, its change included, in satoshi. */
  received_sat?: number;
  /** Its number: one order for the whole node, rising. */
  seq: number;
  /** What a transaction takes from the wallet, in satoshi. */
  spent_sat?: number;
  /** The transaction concerned. */
  txid?: string;
}

/** What happened. */
export type EventKind =
  /** A channel has its name and its funding transaction; it waits for confirmations. `amount_sat` of our coins goes into it, and `amount_msat` of it is ours to begin with: the opener may push some, or all, to the other side. `op_id` is the call that opened it. What a peer opens is told once a block holds it, also where it has failed before. */
  | "channel_pending"
  /** A channel carries payments. */
  | "channel_ready"
  /** The funding transaction of a channel that we opened is not confirmed after a day of blocks. */
  | "channel_funding_stuck"
  /** A channel is closing: no new payments. */
  | "channel_closing"
  /** A cooperative close was begun and does not come about: why and what to do. */
  | "channel_close_stuck"
  /** A channel is closed for good. `amount_msat` of it was ours at the end. A cooperative close has paid us `amount_sat`, and `fee_sat` of ours went to fees, or were too few to be paid out; of a channel that failed `channel_swept` and `wallet_received` tell what came home. Also told of a channel that is given up since its funding transaction, `txid`, never came or never left: the message says why, `amount_msat` is what `channel_pending` told to be ours, 0 where that was not told, and `channel.get` knows it no more. */
  | "channel_closed"
  /** A channel failed: our newest commitment transaction goes on chain. Where a required backup refused the channel, only what every required backup has goes there, at the first deadline of an HTLC or by `channel.force_close`, or nothing where that is not known; in restored mode nothing. `reason` of `channel.get` says which. */
  | "channel_failed"
  /** A transaction that pays `fee_sat` goes out for a failed channel: it carries the fee of our commitment, or brings our balance to the wallet. A later one for the same output takes its place. */
  | "channel_fee_paid"
  /** A transaction of a failed channel cannot pay the fee that it should: what lacks and what to do. */
  | "channel_underpaid"
  /** `amount_sat` of a failed channel is in the wallet to stay, `fee_sat` less than stood in the channel. */
  | "channel_swept"
  /** Something is in the chain that should never be there: money may be lost. */
  | "channel_alarm"
  /** The wallet holds less than it should keep to pay for closing its channels alone. */
  | "wallet_reserve_low"
  /** The chain is not seen to its end, since bitcoind is away, far behind, or shows what cannot be trusted: nothing is opened, relayed or paid. The message says why and what to do. Told after ten seconds, in the first minute of a start not at all. Of what comes and goes this is the last word until it has been right for longer and longer, up to an hour. The same holds for `backup_behind` and `peer_disconnected`; what was told before a restart is not told again. */
  | "chain_blind"
  /** The chain is seen to its end again, at `block_height`, for ten seconds at the least. Told once after each `chain_blind`, and never else. */
  | "chain_synced"
  /** The backup `backup` is in trouble, has been behind for more than 20 seconds, or has not told what it holds: why, what waits for it, and what to do. Where events wait for a required backup, this one waits behind them; `backup.status` waits for nothing. */
  | "backup_behind"
  /** The backup `backup` keeps pace again: it has everything but what is younger than five seconds. Told at most once after each `backup_behind`, and never else: not where the configuration has it no more. */
  | "backup_complete"
  /** A peer that has channels is not connected; the message says whether it is dialled. A peer whose only channels are promises of its own is not told of. */
  | "peer_disconnected"
  /** The peer is connected again. Told at most once after each `peer_disconnected`, and never else: not where it has no channel any more. */
  | "peer_connected"
  /** The disk of the data directory has too little free (`disk_reserve_bytes`): nothing is opened, relayed, invoiced or paid, and what stands goes on. The message says how much there is, and is to be. Told and ended as `chain_blind` is. */
  | "disk_low"
  /** There is enough room on the disk again. Told once after each `disk_low`, and never else. */
  | "disk_relieved"
  /** A restore from a backup was tried, and would not bring back what the node has: which one, why, and what to do. Told once, until one is right again. */
  | "backup_not_verified"
  /** A start found rows of a channel that it cannot read; the message says what to do. Told again at each start. */
  | "channel_frozen"
  /** The opening `op_id` ended without a channel. `channel_id` is the name that it had been told under, if it was. */
  | "open_failed"
  /** The node's database proved to be older than what its peers were told: it signs nothing any more and waits for its peers to close the channels. */
  | "node_restored"
  /** An invoice was paid. */
  | "invoice_paid"
  /** A payment came that nobody asked for; `invoice.get` shows it by its payment hash. */
  | "keysend_received"
  /** A payment succeeded. */
  | "payment_succeeded"
  /** A payment failed. */
  | "payment_failed"
  /** Coins of the wallet are sent: `amount_sat` by `txid`, of the call `op_id`. */
  | "wallet_sent"
  /** A block, at `block_height`, holds the transaction `txid`, which spends coins of the wallet worth `spent_sat` and pays it `received_sat`, its change. `fee_sat` is what it pays in fees, where the wallet pays all of them. Told again where another block comes to hold it. */
  | "wallet_confirmed"
  /** A block, at `block_height`, holds the transaction `txid`, which pays the wallet `amount_sat` and spends none of its coins: a deposit, or what comes home from a channel. Told again where another block comes to hold it; before it is buried, it can be taken back. A wallet that has not looked at all its blocks (after a restore, until `wallet.start_height` is obeyed) does not know the coins that such a transaction spends, and takes its own change for a deposit. */
  | "wallet_received"
  /** A token was made; the message is its name. */
  | "token_created"
  /** A token was taken back; the message is its name. */
  | "token_revoked";

/** Lists events after a number, oldest first. Following `next_seq` misses nothing. */
export interface EventList {
  /** Only events after this number; from the oldest kept without it. */
  after_seq?: number;
  /** Only events of these kinds. */
  kinds?: EventKind[];
  /** How many events to give at most: 1 to 1000; 100 without it. */
  limit?: number;
}

/** A page of events. */
export interface EventPage {
  /** The events, oldest first. */
  items: Event[];
  /** What to give as `after_seq` to go on from here. */
  next_seq: number;
}

/** Tells of events as they come, on the connection that asks: WebSocket, or the pipe of `outriggerd --stdio`. It replays those after `after_seq` first, and goes on with the next without gap or repetition. Each comes as a notification of JSON-RPC whose method is `event.subscribe`, with `subscription_id` and `event` in its params; the last has `error` in place of `event`, with `after_seq` in its data to go on from. A reader that falls behind loses its connection after that. `x-notifications` of the OpenRPC document has the schemas of both. */
export interface EventSubscribe {
  /** Only events after this number; those that come from now on without it. */
  after_seq?: number;
  /** Only events of these kinds. */
  kinds?: EventKind[];
}

/** A subscription has begun. */
export interface EventSubscribed {
  /** The number after which events are told. */
  after_seq: number;
  /** Names the subscription on this connection. */
  subscription_id: string;
}

/** An event of a subscription. Within one subscription their `seq` rises, and none of its kinds is left out. */
export interface EventTold {
  /** What has happened. */
  event: Event;
  /** The subscription, as the answer that began it names it. */
  subscription_id: string;
}

/** Ends a subscription of the connection that asks. */
export interface EventUnsubscribe {
  /** The subscription. */
  subscription_id: string;
}

/** What became of a subscription. */
export interface EventUnsubscribed {
  /** Whether there was one of this name. */
  ended: boolean;
}

/** The last word of a subscription: why it has ended. `after_seq` of the error's data is the number to subscribe again from; with `event_gap` what lies before it is gone. After `event_behind` and `auth_token_ended` the connection is closed too. */
export interface EventsEnded {
  /** Why no more comes. */
  error: EventsEndedError;
  /** The subscription, as the answer that began it names it. */
  subscription_id: string;
}

/** An error of JSON-RPC, in the last word of a subscription. */
export interface EventsEndedError {
  /** The code, in the band of a group. */
  code: number;
  /** Kind, hint, and where to go on. */
  data: ErrorData;
  /** What went wrong, for people. */
  message: string;
}

/** What was forwarded over one channel. */
export interface ForwardChannel {
  /** The channel, hex. */
  channel_id: string;
  /** HTLCs that went by it and failed. */
  failed: number;
  /** What was earned with those that went by it, in millisatoshi. */
  fees_msat: number;
  /** Forwards that came by it and were settled. */
  incoming: number;
  /** What they brought, in millisatoshi. */
  incoming_msat: number;
  /** Forwards that went by it and were settled. */
  outgoing: number;
  /** What went on by it, in millisatoshi. */
  outgoing_msat: number;
  /** HTLCs that were to go by it and were not handed on. */
  refused: number;
}

/** An HTLC that was received from one peer, offered to another and claimed by it. */
export interface ForwardInfo {
  /** What was earned, in millisatoshi. */
  fee_msat: number;
  /** The channel that it came by, hex. */
  incoming_channel_id: string;
  /** What it brought, in millisatoshi. */
  incoming_msat: number;
  /** The channel that it went by, hex. */
  outgoing_channel_id: string;
  /** What went on, in millisatoshi; 0 where that came back, and the preimage was known from another HTLC of the same payment: then all that was brought was earned. */
  outgoing_msat: number;
  /** The number of this forward, rising. */
  seq: number;
  /** When its fee was earned: the received HTLC was claimed and is gone; in unix seconds. */
  settled_at: number;
}

/** Lists HTLCs that were relayed and whose fee is earned, the newest million of them, oldest first. `after` the last page seen, it gives what came since. */
export interface ForwardList {
  /** The `next` of the page before, or the `seq` of the last forward that is known; the first page without it. */
  after?: string;
  /** How many forwards to give at most: 1 to 1000; 100 without it. */
  limit?: number;
  /** Whether the newest come first; false without it. */
  newest_first?: boolean;
}

/** A page of forwards. */
export interface ForwardPage {
  /** The forwards. */
  items: ForwardInfo[];
  /** What to give as `after` for the next page; absent on the last. */
  next?: string;
}

/** Sums over forwards. */
export interface ForwardReport {
  /** The channels that had a part in it, those that earned the most first. */
  channels: ForwardChannel[];
  /** HTLCs that were handed on and failed. */
  failed: number;
  /** What was earned, in millisatoshi. */
  fees_msat: number;
  /** What the settled ones brought, in millisatoshi. */
  incoming_msat: number;
  /** What of it went on, in millisatoshi. */
  outgoing_msat: number;
  /** HTLCs that are being forwarded now. */
  pending: number;
  /** What those brought, in millisatoshi. */
  pending_msat: number;
  /** HTLCs that this node did not hand on. */
  refused: number;
  /** Forwards that went through. */
  settled: number;
  /** The first second that counts, in unix seconds. */
  since_at: number;
  /** The last second that counts, in unix seconds. */
  until_at: number;
}

/** Sums over forwards by day and channel, and what is being forwarded now. */
export interface ForwardStats {
  /** How many channels to give at most, those that earned the most: 1 to 1000; 100 without it. */
  limit?: number;
  /** The start of the time that counts, in unix seconds, taken to the start of its day by UTC; 30 days before `until_at` without it. */
  since_at?: number;
  /** The end of that time, in unix seconds, taken to the end of its day by UTC; now without it. */
  until_at?: number;
}

/** What is asked for forwarding HTLCs over a channel to its peer (BOLT 7, `channel_update`). */
export interface ForwardingTerms {
  /** Blocks between the expiry of the incoming and of the outgoing HTLC. */
  cltv_delta_blocks: number;
  /** The fee of each HTLC, in millisatoshi. */
  fee_base_msat: number;
  /** The fee for each million that is forwarded. */
  fee_proportional_millionths: number;
  /** The largest HTLC that is forwarded, in millisatoshi; absent for as much as the channel carries. */
  htlc_maximum_msat?: number;
  /** The smallest HTLC that is forwarded, in millisatoshi; the peer may take only larger ones. */
  htlc_minimum_msat: number;
}

/** Creates an invoice. It is stored before it is given out. */
export interface InvoiceCreate {
  /** The amount asked for, in millisatoshi; without it the payer decides. */
  amount_msat?: number;
  /** What the payment is for; the payer sees it. At most 639 bytes. */
  description: string;
  /** How long the invoice can be paid, in seconds: 1 to 31,536,000; 3600 without it. */
  expiry_secs?: number;
  /** Any text of 1 to 128 characters that names this invoice: the same text with the same parameters gives the same invoice again, and with other parameters is refused. It is remembered for 1,000 days, and at least until the invoice is paid or has expired. */
  idempotency_key?: string;
  /** A text of the operator's own, at most 128 characters; the payer does not see it. */
  label?: string;
}

/** An invoice to hand to the payer. */
export interface InvoiceCreated {
  /** When it expires, in unix seconds. */
  expires_at: number;
  /** The invoice (BOLT 11). */
  invoice: string;
  /** Its payment hash: 32 bytes, hex. */
  payment_hash: string;
  /** How many ways to this node it names, a count: channels whose peers have told what they ask for forwarding. With none, only a node that has a channel with this one can pay it. */
  route_hints: number;
}

/** Reads an invoice of anybody on this node's network, and pays nothing. */
export interface InvoiceDecode {
  /** The invoice (BOLT 11). */
  invoice: string;
}

/** What an invoice asks for. */
export interface InvoiceDecoded {
  /** The amount asked for, in millisatoshi; absent where the payer decides. */
  amount_msat?: number;
  /** When it was made, in unix seconds. */
  created_at: number;
  /** What the payment is for, in the words of who made it; absent where only a hash of it is there. */
  description?: string;
  /** When it expires, in unix seconds. */
  expires_at: number;
  /** Blocks that the last HTLC must leave before it expires. */
  final_cltv_blocks: number;
  /** The node that is paid: 33 bytes, hex. */
  node_id: string;
  /** Its payment hash: 32 bytes, hex. */
  payment_hash: string;
  /** How many ways to the payee it names, a count. */
  route_hints: number;
}

/** Shows one invoice of this node. It tells what the database has: where backups are required, what every one of them has is told by events. Rely on `invoice_paid` of `event.list` before goods are shipped. */
export interface InvoiceGet {
  /** The invoice's payment hash: 32 bytes, hex. */
  payment_hash: string;
}

/** An invoice of this node, or what came to it without one. */
export interface InvoiceInfo {
  /** The amount asked for, in millisatoshi; absent where the payer decides. */
  amount_msat?: number;
  /** When it was created, in unix seconds. */
  created_at: number;
  /** What the payment is for. */
  description: string;
  /** When it expires, in unix seconds. */
  expires_at: number;
  /** The invoice (BOLT 11); absent for a payment that nobody asked for (keysend). */
  invoice?: string;
  /** The operator's own text; absent where none was given. */
  label?: string;
  /** When it was paid, in unix seconds; absent until then. */
  paid_at?: number;
  /** Its payment hash: 32 bytes, hex. */
  payment_hash: string;
  /** The amount received, in millisatoshi; absent until it is paid. */
  received_msat?: number;
  /** The state of the invoice. */
  state: InvoiceState;
}

/** Lists the invoices of this node, and what came to it without one, in the order of their payment hashes. */
export interface InvoiceList {
  /** The `next` of the page before; the first page without it. */
  after?: string;
  /** How many to give at most: 1 to 1000; 100 without it. */
  limit?: number;
}

/** A page of invoices. */
export interface InvoicePage {
  /** The invoices. */
  items: InvoiceInfo[];
  /** What to give as `after` for the next page; absent on the last. */
  next?: string;
}

/** The state of an invoice. */
export type InvoiceState =
  /** Can be paid. */
  | "open"
  /** Has been paid: its preimage has been released. */
  | "paid"
  /** Was not paid in time. */
  | "expired";

/** How much is logged. */
export type LogLevel =
  /** What went wrong and concerns the operator. */
  | "error"
  /** What may go wrong, too. */
  | "warn"
  /** What happens, too. */
  | "info"
  /** How it happens, too. */
  | "debug"
  /** Everything. */
  | "trace";

/** Tells how much each part of the daemon logs, and changes it until the daemon ends. */
export interface LogLevels {
  /** The level from now on, of the part in `target`, or of all parts that have none of their own; without it nothing changes. */
  level?: LogLevel;
  /** The part of the daemon: one of those that the result lists. */
  target?: string;
}

/** How much each part of the daemon logs. */
export interface LogLevelsReport {
  /** The level of all parts that have none of their own. */
  level: LogLevel;
  /** Every part, with the level that it has. */
  targets: LogTarget[];
}

/** A part of the daemon. */
export interface LogTarget {
  /** What it logs. */
  level: LogLevel;
  /** Its name. */
  target: string;
}

/** Tells who this node is and how much it holds. */
export interface NodeInfo {}

/** Who a node is. */
export interface NodeInfoReport {
  /** Where peers can reach the node, as `host:port`. */
  addresses: string[];
  /** The name the operator gave to the node. */
  alias: string;
  /** Hash of that block, hex in display order; absent before the first. */
  block_hash?: string;
  /** Height of the newest block that the node has taken in; absent before the first. */
  block_height?: number;
  /** How many channels are not in history; one that is closed goes there once its end is buried. */
  channels: number;
  /** The features that the node offers in `init` (BOLT 9): the bit field as hex, most significant byte first. */
  features: string;
  /** The Bitcoin network: `regtest` or `signet`. */
  network: string;
  /** The node's public key: 33 bytes, hex. */
  node_id: string;
  /** How many peers are connected. */
  peers: number;
  /** What the store has written since the daemon was started. */
  store: StoreReport;
  /** The version of the daemon. */
  version: string;
}

/** Tells in which phase the daemon is. Answers from the first moment of the process on. */
export interface NodeStatus {}

/** The phase of the daemon and its progress. */
export interface NodeStatusReport {
  /** What is wrong with backups and what to do; absent where nothing is. `backup.status` tells more. */
  backups?: string;
  /** Height of the newest block that the node has taken in. */
  block_height?: number;
  /** What is wrong with the machine's clock and what to do; absent where nothing is known to be. */
  clock?: string;
  /** That the disk of the data directory has too little room, how much, and what to do; absent where it has enough. */
  disk?: string;
  /** The Bitcoin network: `regtest` or `signet`. */
  network: string;
  /** The phase. */
  phase: Phase;
  /** Why the daemon is in this phase, and what to do about it; absent where the phase says it all. */
  reason?: string;
  /** Height that bitcoind has reached. */
  target_height?: number;
  /** The version of the daemon. */
  version: string;
  /** How far the wallet is that looks at older blocks, since `wallet.start_height` was given when it had begun already, or why it cannot; absent otherwise. */
  wallet?: string;
}

/** Stops the daemon. It answers first, then ends its connections and closes its store. */
export interface NodeStop {}

/** The daemon has been told to stop. */
export interface NodeStopping {
  /** Always `stopping`. */
  phase: Phase;
}

/** How far an opening is. */
export type OpenState =
  /** The peers are still agreeing, or a required backup is waited for (`backup.status`); nothing can have been spent. */
  | "opening"
  /** The funding transaction is signed and stored, and is being published; `channel.get` tells the rest, and `channel.wait` waits. */
  | "pending"
  /** The opening has ended without a channel. */
  | "failed"
  /** The node has lost data (restored mode), and with it what became of the opening: the funding transaction may be in the chain. `failure` says what to look at. Nothing more is told of it, and no event. */
  | "unknown";

/** The kind of value that a key of the configuration takes. */
export type OptionKind =
  /** A text; the description says what it is to hold. */
  | "text"
  /** A whole number. */
  | "integer"
  /** `true` or `false`. */
  | "boolean"
  /** A list of texts. */
  | "list";

/** What a key of the configuration takes: a value of this kind, and of these choices or in this range where there are any. */
export interface OptionTakes {
  /** The texts that are taken; absent where it is no choice. */
  choices?: string[];
  /** The kind of value. */
  kind: OptionKind;
  /** The least whole number that is taken, as text as values are; present for whole numbers. */
  least?: string;
  /** The most bytes that a text may have, of which none may be a control character; absent where it may be any. */
  longest_bytes?: number;
  /** The most that is taken, as text. */
  most?: string;
}

/** Has no new attempt made for a payment. What is in flight is decided by the network: the payment stays `pending` until then, and may still succeed. Of a payment that has ended it only tells the end. A token abandons what was begun with it; with the scope `admin`, whatever was begun. A repeat changes nothing, and takes no key. */
export interface PaymentAbandon {
  /** The payment. */
  payment_id: string;
}

/** Why a payment failed. */
export interface PaymentFailure {
  /** The kind of failure, in snake case: the name of a BOLT 4 failure such as `incorrect_or_unknown_payment_details`, or of an error of this interface such as `no_route`. */
  kind: string;
  /** The same for people: who failed it, over which channel, with which code, what that means and what to do. */
  message: string;
}

/** Shows one payment. */
export interface PaymentGet {
  /** The payment. */
  payment_id: string;
}

/** A payment of this node. */
export interface PaymentInfo {
  /** What the receiver gets, in millisatoshi. */
  amount_msat: number;
  /** When it succeeded or failed, in unix seconds; absent until then. */
  completed_at?: number;
  /** When it was asked for, in unix seconds. */
  created_at: number;
  /** Why it failed; present where the state is `failed`. */
  failure?: PaymentFailure;
  /** What was paid in fees, in millisatoshi; present where the state is `succeeded`. Of a payment in parts it may still fall: parts that are not decided yet are counted as paid. */
  fee_msat?: number;
  /** The node paid: 33 bytes, hex. */
  node_id: string;
  /** Its payment hash: 32 bytes, hex. */
  payment_hash: string;
  /** Names the payment. */
  payment_id: string;
  /** The proof of payment: 32 bytes, hex; present where the state is `succeeded`. */
  preimage?: string;
  /** The state of the payment. */
  state: PaymentState;
}

/** Lists the payments that this node sent, in the order of their names. */
export interface PaymentList {
  /** The `next` of the page before; the first page without it. */
  after?: string;
  /** How many to give at most: 1 to 1000; 100 without it. */
  limit?: number;
}

/** A page of payments. */
export interface PaymentPage {
  /** The payments. */
  items: PaymentInfo[];
  /** What to give as `after` for the next page; absent on the last. */
  next?: string;
}

/** Pays an invoice, or a node without one (keysend: `node_id`, `amount_msat` and `idempotency_key`). Answers as soon as the attempt is stored; `payment.wait` gives the outcome. The same invoice is never paid twice. What one channel cannot send goes in parts over several, where the receiver takes them; what fails on one way is tried over another. */
export interface PaymentSend {
  /** The amount in millisatoshi, for an invoice that leaves it to the payer or for a payment without an invoice. */
  amount_msat?: number;
  /** Any text of 1 to 128 characters that names this payment: the same text with the same parameters never pays twice, and with other parameters is refused. It is remembered for 1,000 days, and at least until the payment has ended. Required without an invoice. */
  idempotency_key?: string;
  /** The invoice to pay (BOLT 11). */
  invoice?: string;
  /** The most to pay in fees over all attempts, in millisatoshi. Without it the larger of 5,000 msat and 1 % of the amount. */
  max_fee_msat?: number;
  /** The node to pay without an invoice: 33 bytes, hex. */
  node_id?: string;
  /** The only way to take, from the peer that gets the first HTLC to the receiver: 1 to 20 hops. It is tried once, and the payment is not split. Without it the node finds ways: a channel with the receiver, and those that the invoice names. */
  route?: RouteHop[];
  /** How long new attempts are made, in seconds: 1 to 3600; 60 without it. What is in flight then is still waited for. */
  timeout_secs?: number;
}

/** A payment is stored and under way, or was so before. */
export interface PaymentSent {
  /** Its payment hash: 32 bytes, hex. */
  payment_hash: string;
  /** Names the payment. */
  payment_id: string;
  /** The state of the payment. */
  state: PaymentState;
}

/** The state of a payment. */
export type PaymentState =
  /** Not known yet: the money may or may not arrive. */
  | "pending"
  /** The receiver has it, and the preimage is the proof. */
  | "succeeded"
  /** Nothing was paid, and nothing of this payment can be paid any more. */
  | "failed";

/** Waits until a payment has succeeded or failed, or the time is over; then says how it stands. */
export interface PaymentWait {
  /** The payment. */
  payment_id: string;
  /** How long to wait, in seconds: 0 to 600; 60 without it. */
  timeout_secs?: number;
}

/** Connects to a peer. Where it is connected already, says so at once: a repeat changes nothing, and takes no key. */
export interface PeerConnect {
  /** Where it listens, as `host:port`; an IPv6 address stands in brackets. */
  address: string;
  /** The peer's public key: 33 bytes, hex. */
  node_id: string;
}

/** A peer is connected and has sent its `init`. */
export interface PeerConnected {
  /** The features that the peer offers (BOLT 9): the bit field as hex, most significant byte first. */
  features: string;
  /** The peer's public key: 33 bytes, hex. */
  node_id: string;
}

/** Ends the connection to a peer, which is not dialled again before `peer.connect` or a restart. The peer may come back by itself. It takes no key: a repeat ends a newer connection too. */
export interface PeerDisconnect {
  /** The peer's public key: 33 bytes, hex. */
  node_id: string;
}

/** The peer is not connected. */
export interface PeerDisconnected {
  /** The peer's public key: 33 bytes, hex. */
  node_id: string;
  /** Whether it was connected. */
  was_connected: boolean;
}

/** A peer. */
export interface PeerInfo {
  /** Where it was reached last, as `host:port`; absent where it has only ever come to us. */
  address?: string;
  /** How many channels with it are not in history. */
  channels: number;
  /** Whether it is connected now. */
  connected: boolean;
  /** The features that the peer offers (BOLT 9), as hex; absent while it is not connected. */
  features?: string;
  /** The peer's public key: 33 bytes, hex. */
  node_id: string;
}

/** Lists the peers that are connected or have a channel with this node, in the order of their keys. */
export interface PeerList {
  /** The `next` of the page before; the first page without it. */
  after?: string;
  /** How many peers to give at most: 1 to 1000; 100 without it. */
  limit?: number;
}

/** A page of peers. */
export interface PeerPage {
  /** The peers. */
  items: PeerInfo[];
  /** What to give as `after` for the next page; absent on the last. */
  next?: string;
}

/** A phase in the life of the daemon. */
export type Phase =
  /** The daemon is opening its store. */
  | "starting"
  /** bitcoind does not answer yet, or is not ready. */
  | "waiting_for_bitcoind"
  /** Blocks are being taken in; nothing is opened, accepted or paid. */
  | "syncing"
  /** All methods work. */
  | "ready"
  /** The database is older than what peers were told: the node signs nothing and only collects what is its own. */
  | "restored"
  /** The daemon is closing its store. */
  | "stopping";

/** A group of methods. */
export interface PluginGroup {
  /** Their names. */
  methods: string[];
  /** What stands before the point in their names. */
  name: string;
}

/** Begins to work with a host: tells it which of its options are in force, and subscribes this connection to events. Options are read at the start of the daemon, from flags and file, so one that differs from what is in force is refused and changes nothing. */
export interface PluginInit {
  /** Options that the host expects, each as `name=value`. */
  options?: string[];
  /** Kinds of events to tell of on this connection, from now on: as `event.subscribe`. */
  subscriptions?: EventKind[];
}

/** What was accepted. */
export interface PluginInitialised {
  /** Options that are in force as the host expects, each as it was given. */
  accepted: string[];
  /** The version of this interface's protocol. */
  protocol: number;
  /** Those that are not: unknown, or set otherwise. Give them as flags when the daemon is started. */
  refused: string[];
  /** Names the subscription; absent where none was asked for. */
  subscription_id?: string;
}

/** Tells a host all that it needs to drive this plugin. */
export interface PluginManifest {}

/** What the plugin is. */
export interface PluginManifestReport {
  /** The kinds of events that can be subscribed to. */
  event_kinds: EventKind[];
  /** The features that the node offers in `init` (BOLT 9): the bit field as hex; absent until the database is open. */
  features?: string;
  /** The methods by their groups. */
  groups: PluginGroup[];
  /** Calls that the plugin makes to its host; none in this version. */
  hooks: string[];
  /** The plugin's name. */
  name: string;
  /** What the operator can set, in `outrigger.toml` or as flags. */
  options: PluginOption[];
  /** The version of this interface's protocol. */
  protocol: number;
  /** The version of the daemon. */
  version: string;
}

/** What the operator can set. */
export interface PluginOption {
  /** Its default, as text; empty where it depends on the network or the machine, or where there is none. */
  default: string;
  /** What it means. */
  description: string;
  /** The flag by which it is given on the command line; absent for what stands in the file alone. */
  flag?: string;
  /** The key, with its section. */
  name: string;
  /** Values of `kind` in the same table beside which it has a meaning; beside others it is refused. Absent: all. */
  only_of_kinds?: string[];
  /** Whether it is a key of a table that may stand several times: `backup.path` is `path` of each `[[backup]]`, and `node.config_get` tells it as `backup.NAME.path`. */
  repeats: boolean;
  /** Whether it must be given, where `repeats` in each such table. */
  required: boolean;
  /** What it takes: any other value is refused at the start, and by `--check-config`. */
  takes: OptionTakes;
}

/** A hop of a route: a node, and the HTLC that leads to it. What a node keeps for itself is the difference to the next hop. */
export interface RouteHop {
  /** What the HTLC over that channel brings, in millisatoshi. The last hop's is the amount of the payment. */
  amount_msat: number;
  /** Blocks from now until that HTLC expires: for the last hop at least what the invoice asks for, and a few more in case blocks are found on the way. */
  expiry_blocks: number;
  /** The node that the hop leads to: 33 bytes, hex. */
  node_id: string;
  /** The channel that leads there, `BxTxO`, as the node before calls it. Needed but for the first hop, whose channel is one of ours: without it the one that fits is taken. */
  short_channel_id?: string;
}

/** Gives the OpenRPC document of this interface. */
export interface RpcDiscover {}

/** The OpenRPC document. */
export interface RpcDiscovered {
  /** Every error. */
  components: {};
  /** Name and version of the interface. */
  info: {};
  /** Every method. */
  methods: {}[];
  /** The version of OpenRPC. */
  openrpc: string;
}

/** What a caller may do. The cookie, the unix socket and the parent of a child process may do everything. */
export type Scope =
  /** Look at everything. */
  | "read"
  /** Create invoices, and look at those. */
  | "invoice"
  /** Pay over channels, within the token's budget where it has one, and look at payments by their id. */
  | "pay"
  /** Open and set channels, close them together with the peer, and connect peers. Nothing is given away: `push_msat` and `channel.force_close` need admin. */
  | "channel"
  /** Everything, tokens and coins on chain included. */
  | "admin";

/** How far a transaction is. */
export type SendState =
  /** It is published until a block holds it. */
  | "pending"
  /** A block holds it. */
  | "confirmed";

/** What the store has written since the daemon was started. */
export interface StoreReport {
  /** Time that the commits took together, in microseconds, syncs included. */
  commit_micros: number;
  /** Transactions that were written and synced; each holds the steps of all channels that waited for it. */
  commits: number;
  /** Rows that were written or deleted. */
  rows: number;
  /** What was in the rows that were written, in bytes; the file takes more, since it is written in pages. */
  staged_bytes: number;
}

/** Makes a token, a secret that stands for some rights. It is shown in this answer and never again: only a salted hash of it is kept. Callers send it as `Authorization: Bearer TOKEN`. */
export interface TokenCreate {
  /** The most that payments made with it may cost together, fees included, in millisatoshi; no limit without it. It needs the scope pay, and not admin, which could make itself another token. */
  budget_msat?: number;
  /** Seconds until it is good no more: at most ten years; for ever without it. Not with the scope admin, which could make itself another token. */
  expiry_secs?: number;
  /** What the token is called: 1 to 128 characters, and no other token's name. Idempotency keys belong to this name: no program is answered with what a key of another did, and a new token of the name of one that was revoked goes on with its keys. */
  name: string;
  /** What its holder may do; one scope at least. */
  scopes: Scope[];
}

/** A new token. */
export interface TokenCreated {
  /** When it is good no more, in unix seconds; absent where it is good for ever. */
  expires_at?: number;
  /** What it is called. */
  name: string;
  /** The secret itself. It cannot be shown again. */
  token: string;
}

/** A token, without its secret. */
export interface TokenInfo {
  /** The most that payments made with it may cost together, in millisatoshi; absent where there is no limit. */
  budget_msat?: number;
  /** When it was made, in unix seconds. */
  created_at: number;
  /** When it is good no more, in unix seconds; absent where it is good for ever. */
  expires_at?: number;
  /** What it is called. */
  name: string;
  /** What its holder may do. */
  scopes: Scope[];
  /** What payments made with it have cost, and pending ones may cost at most, fees included, in millisatoshi. */
  spent_msat: number;
}

/** Lists the tokens, by name. Their secrets are not kept. */
export interface TokenList {
  /** The `next` of the page before; the first page without it. */
  after?: string;
  /** How many tokens to give at most: 1 to 1000; 100 without it. */
  limit?: number;
}

/** A page of tokens. */
export interface TokenPage {
  /** The tokens. */
  items: TokenInfo[];
  /** What to give as `after` for the next page; absent on the last. */
  next?: string;
}

/** Takes a token back at once, also from connections that are open. Payments that it has begun go on. A repeat finds no such token, and takes no key. */
export interface TokenRevoke {
  /** What the token is called. */
  name: string;
}

/** A token that is no more. */
export interface TokenRevoked {
  /** What it was called. */
  name: string;
}

/** An address of the wallet. */
export interface WalletAddress {
  /** A segwit address of the node's network. */
  address: string;
}

/** Tells what the on-chain wallet holds. Channels are not in it. */
export interface WalletBalance {}

/** What the on-chain wallet holds. */
export interface WalletBalanceReport {
  /** Satoshis in confirmed outputs that nothing has claimed: what a channel can be funded with. */
  confirmed_sat: number;
  /** Satoshis in outputs that a funding transaction under way has claimed. */
  locked_sat: number;
  /** Satoshis in outputs that wait for their first confirmation. */
  unconfirmed_sat: number;
}

/** Gives a new address of the wallet, never given before but to a call of the same key. */
export interface WalletNewAddress {
  /** Any text of 1 to 128 characters that names this call: the same text gives the same address again. Without it each call gives another one. It is remembered for 1,000 days. */
  idempotency_key?: string;
}

/** Sends coins on chain. It answers once the signed transaction is stored, which which is then published until a block holds it; the events `wallet_sent` and `wallet_confirmed` tell of it, and `wallet.wait` waits for the block. What the node keeps to pay for closing its channels is left in the wallet. */
export interface WalletSend {
  /** Where to: an address of the node's network. */
  address: string;
  /** How much arrives, in satoshi; the fee comes on top. */
  amount_sat: number;
  /** Feerate in satoshi per virtual byte; bitcoind's estimate without it. */
  feerate_sat_per_vb?: number;
  /** Any text of 1 to 128 characters that names this transaction: the same text with the same parameters never sends twice, and with other parameters is refused. It is remembered for 1,000 days, and at least until a block holds the transaction. */
  idempotency_key: string;
}

/** A transaction is on its way. */
export interface WalletSent {
  /** Names the call. */
  op_id: string;
  /** How far it is. */
  state: SendState;
  /** The id of the transaction. */
  txid: string;
}

/** A transaction of the wallet's. */
export interface WalletTransaction {
  /** Height of the block that holds it; absent while it is in none. */
  confirmed_height?: number;
  /** How many blocks there are from the one that holds it to the newest, both counted; 0 while it is in none. */
  depth_blocks: number;
  /** How far it is. */
  state: SendState;
  /** Its id. */
  txid: string;
}

/** An unspent output of the wallet. */
export interface WalletUtxo {
  /** The address that it pays. */
  address: string;
  /** What it is worth, in satoshi. */
  amount_sat: number;
  /** Height of the block that holds it; absent while it is in none. */
  confirmed_height?: number;
  /** Whether a transaction in the making has claimed it. */
  locked: boolean;
  /** Where it is, as `txid:n`. */
  outpoint: string;
}

/** A page of outputs. */
export interface WalletUtxoPage {
  /** The outputs. */
  items: WalletUtxo[];
  /** What to give as `after` for the next page; absent on the last. */
  next?: string;
}

/** Lists the unspent outputs of the wallet, by outpoint. */
export interface WalletUtxos {
  /** The `next` of the page before; the first page without it. */
  after?: string;
  /** How many to give at most: 1 to 1000; 100 without it. */
  limit?: number;
}

/** Waits until blocks hold a transaction of the wallet's, such as one of `wallet.send` or a funding transaction of `channel.open`, and answers with how far it is: the longest after `timeout_secs`, as it is then. The event `wallet_confirmed` tells of the first block. */
export interface WalletWait {
  /** How many blocks there shall be from the one that holds it to the newest, both counted: 1 to 144; 1 without it. */
  depth_blocks?: number;
  /** How long to wait at most, in seconds: 1 to 600; 60 without it. */
  timeout_secs?: number;
  /** The id of the transaction: one that spends coins of the wallet, or pays it. */
  txid: string;
}

/** What went wrong, where this version knows it: `kind` of `ErrorData`. */
export type ErrorKind =
  | "parse_error"
  | "invalid_request"
  | "notification_refused"
  | "unknown_method"
  | "invalid_parameter"
  | "internal"
  | "starting"
  | "stopping"
  | "restored"
  | "idempotency_conflict"
  | "operation_not_found"
  | "chain_not_synced"
  | "bitcoind_unavailable"
  | "chain_blind"
  | "insufficient_funds"
  | "wallet_failed"
  | "wallet_transaction_not_found"
  | "peer_not_connected"
  | "peer_unreachable"
  | "peer_handshake_failed"
  | "peer_incompatible"
  | "peer_is_self"
  | "channel_not_found"
  | "channel_state_unfit"
  | "feerate_out_of_range"
  | "invoice_not_found"
  | "invoice_invalid"
  | "invoice_expired"
  | "invoice_wrong_network"
  | "invoice_amount_required"
  | "invoice_amount_mismatch"
  | "payment_not_found"
  | "no_route"
  | "insufficient_capacity"
  | "payment_to_self"
  | "fee_too_high"
  | "event_gap"
  | "event_behind"
  | "event_no_session"
  | "event_too_many_subscriptions"
  | "auth_token_not_found"
  | "auth_token_ended"
  | "auth_scope_missing"
  | "auth_budget_exceeded"
  | "auth_name_taken"
  | "auth_too_many_tokens"
  | "storage_failed"
  | "disk_low";

/** What a call of any method may be refused for. */
export type CommonErrorKind = "invalid_parameter" | "internal" | "auth_token_ended" | "auth_scope_missing";

/** Every method, with the types of its parameters and of its result, and the kinds of its errors. */
export interface Methods {
  /** Gives the OpenRPC document of this interface. */
  "rpc.discover": {
    parameters: RpcDiscover;
    result: RpcDiscovered;
    errors: CommonErrorKind;
  };
  /** Tells a host all that it needs to drive this plugin. */
  "plugin.manifest": {
    parameters: PluginManifest;
    result: PluginManifestReport;
    errors: CommonErrorKind;
  };
  /** Begins to work with a host: tells it which of its options are in force, and subscribes this connection to events. Options are read at the start of the daemon, from flags and file, so one that differs from what is in force is refused and changes nothing. */
  "plugin.init": {
    parameters: PluginInit;
    result: PluginInitialised;
    errors: CommonErrorKind | "starting" | "stopping" | "event_gap" | "event_no_session" | "event_too_many_subscriptions" | "storage_failed";
  };
  /** Tells who this node is and how much it holds. */
  "node.info": {
    parameters: NodeInfo;
    result: NodeInfoReport;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Tells in which phase the daemon is. Answers from the first moment of the process on. */
  "node.status": {
    parameters: NodeStatus;
    result: NodeStatusReport;
    errors: CommonErrorKind;
  };
  /** Stops the daemon. It answers first, then ends its connections and closes its store. */
  "node.stop": {
    parameters: NodeStop;
    result: NodeStopping;
    errors: CommonErrorKind;
  };
  /** Tells every key of the configuration with the value that is in force, its default, and where the value comes from. */
  "node.config_get": {
    parameters: ConfigGet;
    result: ConfigReport;
    errors: CommonErrorKind | "starting";
  };
  /** Tells how much each part of the daemon logs, and changes it until the daemon ends. */
  "node.log_level": {
    parameters: LogLevels;
    result: LogLevelsReport;
    errors: CommonErrorKind | "starting";
  };
  /** Tells how far the node follows the chain. */
  "chain.status": {
    parameters: ChainStatus;
    result: ChainStatusReport;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Tells the feerates that the node goes by, each in satoshi per virtual byte, rounded up. */
  "chain.feerates": {
    parameters: ChainFeerates;
    result: ChainFeeratesReport;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Says that there may be a new block, as bitcoind's `blocknotify` does. The node finds blocks by itself; this makes it look at once where it is waiting to ask again. */
  "chain.notify_block": {
    parameters: ChainNotifyBlock;
    result: ChainNotified;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Tells what the on-chain wallet holds. Channels are not in it. */
  "wallet.balance": {
    parameters: WalletBalance;
    result: WalletBalanceReport;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Gives a new address of the wallet, never given before but to a call of the same key. */
  "wallet.new_address": {
    parameters: WalletNewAddress;
    result: WalletAddress;
    errors: CommonErrorKind | "starting" | "stopping" | "idempotency_conflict" | "chain_not_synced" | "wallet_failed" | "storage_failed";
  };
  /** Sends coins on chain. It answers once the signed transaction is stored, which which is then published until a block holds it; the events `wallet_sent` and `wallet_confirmed` tell of it, and `wallet.wait` waits for the block. What the node keeps to pay for closing its channels is left in the wallet. */
  "wallet.send": {
    parameters: WalletSend;
    result: WalletSent;
    errors: CommonErrorKind | "notification_refused" | "starting" | "stopping" | "restored" | "idempotency_conflict" | "chain_not_synced" | "bitcoind_unavailable" | "chain_blind" | "insufficient_funds" | "wallet_failed" | "feerate_out_of_range" | "storage_failed";
  };
  /** Waits until blocks hold a transaction of the wallet's, such as one of `wallet.send` or a funding transaction of `channel.open`, and answers with how far it is: the longest after `timeout_secs`, as it is then. The event `wallet_confirmed` tells of the first block. */
  "wallet.wait": {
    parameters: WalletWait;
    result: WalletTransaction;
    errors: CommonErrorKind | "starting" | "stopping" | "wallet_transaction_not_found";
  };
  /** Lists the unspent outputs of the wallet, by outpoint. */
  "wallet.utxos": {
    parameters: WalletUtxos;
    result: WalletUtxoPage;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Connects to a peer. Where it is connected already, says so at once: a repeat changes nothing, and takes no key. */
  "peer.connect": {
    parameters: PeerConnect;
    result: PeerConnected;
    errors: CommonErrorKind | "starting" | "stopping" | "chain_not_synced" | "bitcoind_unavailable" | "chain_blind" | "peer_unreachable" | "peer_handshake_failed" | "peer_incompatible" | "peer_is_self";
  };
  /** Ends the connection to a peer, which is not dialled again before `peer.connect` or a restart. The peer may come back by itself. It takes no key: a repeat ends a newer connection too. */
  "peer.disconnect": {
    parameters: PeerDisconnect;
    result: PeerDisconnected;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Lists the peers that are connected or have a channel with this node, in the order of their keys. */
  "peer.list": {
    parameters: PeerList;
    result: PeerPage;
    errors: CommonErrorKind | "starting" | "stopping" | "storage_failed";
  };
  /** Opens a channel with a connected peer. Answers as soon as the opening is stored, which is before the peer has agreed: `channel.open_wait` waits for its end, and an event tells of it. A repeat of the same call tells how far the opening is, at once too. */
  "channel.open": {
    parameters: ChannelOpen;
    result: ChannelOpened;
    errors: CommonErrorKind | "notification_refused" | "starting" | "stopping" | "restored" | "idempotency_conflict" | "chain_not_synced" | "bitcoind_unavailable" | "chain_blind" | "peer_not_connected" | "feerate_out_of_range" | "storage_failed" | "disk_low";
  };
  /** Waits until an opening is over, and tells what became of it: `pending` with the channel's name, once every required backup has the channel; or `failed`, once the coins that were meant for it are free again; or `unknown`. After `timeout_secs` it answers how far it is then. */
  "channel.open_wait": {
    parameters: ChannelOpenWait;
    result: ChannelOpened;
    errors: CommonErrorKind | "starting" | "stopping" | "operation_not_found" | "storage_failed";
  };
  /** Lists channels that are not forgotten, in the order of their names. It tells what the database has, as `channel.get`. */
  "channel.list": {
    parameters: ChannelList;
    result: ChannelPage;
    errors: CommonErrorKind | "starting" | "stopping" | "storage_failed";
  };
  /** Shows one channel. It tells what the database has: where backups are required, what every one of them has is told by events. */
  "channel.get": {
    parameters: ChannelGet;
    result: ChannelInfo;
    errors: CommonErrorKind | "starting" | "stopping" | "channel_not_found" | "storage_failed";
  };
  /** Waits until a channel is in a state, or in one from which it cannot come there any more, and shows it: after `timeout_secs` as it is then. What became of it stands in `state`. */
  "channel.wait": {
    parameters: ChannelWait;
    result: ChannelInfo;
    errors: CommonErrorKind | "starting" | "stopping" | "channel_not_found" | "storage_failed";
  };
  /** Closes a channel together with the peer. Answers at once; pending payments end first. A repeat tells how far it is, and takes no key; with a higher feerate it replaces the closing transaction, where the peer knows `option_simple_close`. */
  "channel.close": {
    parameters: ChannelClose;
    result: ChannelClosing;
    errors: CommonErrorKind | "notification_refused" | "starting" | "stopping" | "restored" | "chain_not_synced" | "wallet_failed" | "channel_not_found" | "channel_state_unfit" | "storage_failed";
  };
  /** Closes a channel without the peer: our newest commitment transaction, or, of a channel that a backup refused, the newest that every required backup has, goes on chain, and our balance comes to the wallet after the delay that the peer set, less fees. `channel.close` is cheaper where the peer answers. Refused for a channel of which the peer has proved a newer state. Where a required backup has not told since the start what it holds, nothing is published before it has: `reason` in `channel.get` says so. Answers at once; a repeat tells how far it is, and takes no key. */
  "channel.force_close": {
    parameters: ChannelForceClose;
    result: ChannelForceClosing;
    errors: CommonErrorKind | "notification_refused" | "starting" | "stopping" | "restored" | "channel_not_found" | "channel_state_unfit" | "storage_failed";
  };
  /** Changes what is asked for forwarding over one channel; what is not given stays. The peer is told, and for ten minutes payments that meet the terms before this change are forwarded too. Answers with all terms of the channel as they are then. It takes no key: a repeat sets the same again, over what another caller may have set meanwhile. */
  "channel.set_policy": {
    parameters: ChannelSetPolicy;
    result: ForwardingTerms;
    errors: CommonErrorKind | "starting" | "stopping" | "channel_not_found" | "channel_state_unfit" | "storage_failed";
  };
  /** Creates an invoice. It is stored before it is given out. */
  "invoice.create": {
    parameters: InvoiceCreate;
    result: InvoiceCreated;
    errors: CommonErrorKind | "starting" | "stopping" | "restored" | "idempotency_conflict" | "invoice_not_found" | "invoice_invalid" | "storage_failed" | "disk_low";
  };
  /** Shows one invoice of this node. It tells what the database has: where backups are required, what every one of them has is told by events. Rely on `invoice_paid` of `event.list` before goods are shipped. */
  "invoice.get": {
    parameters: InvoiceGet;
    result: InvoiceInfo;
    errors: CommonErrorKind | "starting" | "stopping" | "invoice_not_found" | "storage_failed";
  };
  /** Lists the invoices of this node, and what came to it without one, in the order of their payment hashes. */
  "invoice.list": {
    parameters: InvoiceList;
    result: InvoicePage;
    errors: CommonErrorKind | "starting" | "stopping" | "storage_failed";
  };
  /** Reads an invoice of anybody on this node's network, and pays nothing. */
  "invoice.decode": {
    parameters: InvoiceDecode;
    result: InvoiceDecoded;
    errors: CommonErrorKind | "starting" | "stopping" | "invoice_invalid" | "invoice_wrong_network";
  };
  /** Pays an invoice, or a node without one (keysend: `node_id`, `amount_msat` and `idempotency_key`). Answers as soon as the attempt is stored; `payment.wait` gives the outcome. The same invoice is never paid twice. What one channel cannot send goes in parts over several, where the receiver takes them; what fails on one way is tried over another. */
  "payment.send": {
    parameters: PaymentSend;
    result: PaymentSent;
    errors: CommonErrorKind | "notification_refused" | "starting" | "stopping" | "restored" | "idempotency_conflict" | "chain_not_synced" | "bitcoind_unavailable" | "chain_blind" | "peer_not_connected" | "channel_state_unfit" | "invoice_invalid" | "invoice_expired" | "invoice_wrong_network" | "invoice_amount_required" | "invoice_amount_mismatch" | "payment_not_found" | "no_route" | "insufficient_capacity" | "payment_to_self" | "fee_too_high" | "auth_budget_exceeded" | "storage_failed" | "disk_low";
  };
  /** Waits until a payment has succeeded or failed, or the time is over; then says how it stands. */
  "payment.wait": {
    parameters: PaymentWait;
    result: PaymentInfo;
    errors: CommonErrorKind | "starting" | "stopping" | "payment_not_found" | "storage_failed";
  };
  /** Shows one payment. */
  "payment.get": {
    parameters: PaymentGet;
    result: PaymentInfo;
    errors: CommonErrorKind | "starting" | "stopping" | "payment_not_found" | "storage_failed";
  };
  /** Lists the payments that this node sent, in the order of their names. */
  "payment.list": {
    parameters: PaymentList;
    result: PaymentPage;
    errors: CommonErrorKind | "starting" | "stopping" | "storage_failed";
  };
  /** Has no new attempt made for a payment. What is in flight is decided by the network: the payment stays `pending` until then, and may still succeed. Of a payment that has ended it only tells the end. A token abandons what was begun with it; with the scope `admin`, whatever was begun. A repeat changes nothing, and takes no key. */
  "payment.abandon": {
    parameters: PaymentAbandon;
    result: PaymentInfo;
    errors: CommonErrorKind | "starting" | "stopping" | "payment_not_found" | "storage_failed";
  };
  /** Lists HTLCs that were relayed and whose fee is earned, the newest million of them, oldest first. `after` the last page seen, it gives what came since. */
  "forward.list": {
    parameters: ForwardList;
    result: ForwardPage;
    errors: CommonErrorKind | "starting" | "stopping" | "storage_failed";
  };
  /** Sums over forwards by day and channel, and what is being forwarded now. */
  "forward.stats": {
    parameters: ForwardStats;
    result: ForwardReport;
    errors: CommonErrorKind | "starting" | "stopping" | "storage_failed";
  };
  /** Tells how every backup of the configuration stands, and how far it is behind. */
  "backup.status": {
    parameters: BackupStatus;
    result: BackupReport;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Lists events after a number, oldest first. Following `next_seq` misses nothing. */
  "event.list": {
    parameters: EventList;
    result: EventPage;
    errors: CommonErrorKind | "starting" | "stopping" | "event_gap" | "storage_failed";
  };
  /** Tells of events as they come, on the connection that asks: WebSocket, or the pipe of `outriggerd --stdio`. It replays those after `after_seq` first, and goes on with the next without gap or repetition. Each comes as a notification of JSON-RPC whose method is `event.subscribe`, with `subscription_id` and `event` in its params; the last has `error` in place of `event`, with `after_seq` in its data to go on from. A reader that falls behind loses its connection after that. `x-notifications` of the OpenRPC document has the schemas of both. */
  "event.subscribe": {
    parameters: EventSubscribe;
    result: EventSubscribed;
    errors: CommonErrorKind | "starting" | "stopping" | "event_gap" | "event_no_session" | "event_too_many_subscriptions" | "storage_failed";
  };
  /** Ends a subscription of the connection that asks. */
  "event.unsubscribe": {
    parameters: EventUnsubscribe;
    result: EventUnsubscribed;
    errors: CommonErrorKind | "event_no_session";
  };
  /** Makes a token, a secret that stands for some rights. It is shown in this answer and never again: only a salted hash of it is kept. Callers send it as `Authorization: Bearer TOKEN`. */
  "token.create": {
    parameters: TokenCreate;
    result: TokenCreated;
    errors: CommonErrorKind | "starting" | "stopping" | "auth_name_taken" | "auth_too_many_tokens";
  };
  /** Lists the tokens, by name. Their secrets are not kept. */
  "token.list": {
    parameters: TokenList;
    result: TokenPage;
    errors: CommonErrorKind | "starting" | "stopping";
  };
  /** Takes a token back at once, also from connections that are open. Payments that it has begun go on. A repeat finds no such token, and takes no key. */
  "token.revoke": {
    parameters: TokenRevoke;
    result: TokenRevoked;
    errors: CommonErrorKind | "starting" | "stopping" | "auth_token_not_found";
  };
}

/** What is told on a connection on which both sides speak, by the `method` of the notification: its `params`. */
export interface Notifications {
  "event.subscribe": EventTold | EventsEnded;
}

/** The methods that must be called with an id, as they move money. */
export const MOVES_MONEY = [
  "wallet.send",
  "channel.open",
  "channel.close",
  "channel.force_close",
  "payment.send",
] as const;
