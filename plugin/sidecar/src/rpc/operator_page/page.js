// The operator's page: who looks is let in, what the node says is kept as it was told last, and sections are drawn from that.

import { Node, NoAnswer, Stream } from "./node.js";
import { bar, bytes, el, facts, fill, id, moment, number, pill, problem, prose, refill, sat, sat_text, span, table, whole_sat, words } from "./show.js";

/** Where the token is kept: in this tab, until it is closed. */
const TOKEN = "outrigger-token";

/** How often the node is asked, in milliseconds, beside what events make this page ask. */
const LOOK_EVERY_MS = 5_000;

/** The shortest time between two looks, in milliseconds, however many events come. */
const LOOK_APART_MS = 700;

/** Events that are shown. */
const EVENTS_SHOWN = 200;

/** Items of a list that has no order by time that are all read. Of longer ones events tell the newest. */
const READ_WHOLE = 1000;

/** Rows of a table that are shown. */
const ROWS_SHOWN = 100;

/** Channels that are shown; sums are of all. */
const CHANNELS_SHOWN = 300;

/** How long a backup may be behind before an operator hears of it, in seconds. */
const LATE_SECS = 20;

/** How long the door waits before it tries a kept token again, in milliseconds. */
const DOOR_AGAIN_MS = 5_000;

const SECTIONS = [
  ["overview", "Overview"],
  ["channels", "Channels"],
  ["peers", "Peers"],
  ["payments", "Payments"],
  ["forwards", "Forwards"],
  ["backups", "Backups"],
  ["events", "Events"],
];

const $ = (name) => document.getElementById(name);

/** The session: none while nobody is let in. */
let session;

/** When a kept token is tried again. */
let door_timer;

// Who looks ------------------------------------------------------------------

$("enter-form").addEventListener("submit", (event) => {
  event.preventDefault();
  enter($("token").value.trim());
});

$("skip").addEventListener("click", (event) => {
  // The name of a place would be taken for the name of a section.
  event.preventDefault();
  $("main").focus();
});

$("leave").addEventListener("click", () => leave());
$("try-now").addEventListener("click", () => session?.stream.try_now());
addEventListener("online", () => session?.stream.try_now());
document.addEventListener("visibilitychange", () => document.hidden || session?.look());
addEventListener("hashchange", () => {
  // What was selected in a section that is not shown any more would hold that up when it is.
  getSelection().removeAllRanges();
  show_section();
});

/** Lets a token in. One that was let in before is tried again while the node cannot be asked. */
async function enter(token, was_in = false) {
  clearTimeout(door_timer);
  say_at_the_door();
  if (token.startsWith("__cookie__:")) {
    return say_at_the_door({
      message: "This is the cookie, which may do everything.",
      hint: "Make a token that may only read, as told below.",
    });
  }
  if (!/^outr_[0-9a-f_]+$/.test(token)) {
    return say_at_the_door({ message: "This is no token.", hint: "A token begins with outr_." });
  }
  const button = $("enter-form").querySelector("button");
  button.disabled = true;
  try {
    const node = new Node(token);
    await node.call("node.status");
    // What may not read would show nothing but refusals; but a node that is starting knows no more than its status.
    await node.call("chain.status").catch((error) => {
      if (error.kind === "auth_scope_missing") throw error;
    });
    sessionStorage.setItem(TOKEN, token);
    $("token").value = "";
    session = new Session(node);
  } catch (error) {
    const is_told = !(error instanceof NoAnswer) || [401, 403].includes(error.status);
    if (is_told || !was_in) return say_at_the_door(error);
    say_at_the_door({ message: error.message, hint: `${error.hint} This page tries again.` });
    door_timer = setTimeout(() => enter(token, true), DOOR_AGAIN_MS);
  } finally {
    button.disabled = false;
  }
}

function leave(error) {
  session?.end();
  session = undefined;
  sessionStorage.removeItem(TOKEN);
  clear();
  document.body.dataset.state = "out";
  document.title = "Outrigger";
  $("inside").hidden = true;
  $("enter").hidden = false;
  say_at_the_door(error);
  $("token").focus();
}

/** Takes away all that a session has shown. */
function clear() {
  for (const [name] of SECTIONS) fill($(name === "events" ? "events-list" : `${name}-body`));
  for (const name of ["state", "problem", "footer"]) fill($(name));
  $("problem").hidden = $("connection").hidden = true;
  $("events-none").hidden = false;
  $("events-none").textContent = "What has happened is being asked.";
  $("alias").textContent = "Outrigger";
  $("live").textContent = "connecting";
  $("live").className = "live";
}

function say_at_the_door(error) {
  $("enter-problem").hidden = error === undefined;
  fill($("enter-problem"), error === undefined ? [] : problem(error));
}

// What the node says ---------------------------------------------------------

class Session {
  /** What was told last, by what it is about. */
  told = {};
  /** What is wrong with what could not be told. */
  faults = {};
  events = [];
  /** The number up to which what happened before has yet to be told; none once it was. */
  #recalled;
  #timer;
  #looked_at = 0;
  #is_looking = false;
  #again = false;
  #ended = false;

  constructor(node) {
    this.node = node;
    document.body.dataset.state = "in";
    $("enter").hidden = true;
    $("inside").hidden = false;
    clear();
    this.stream = new Stream(node, this);
    show_section();
    this.look();
  }

  end() {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.stream.stop();
  }

  // The stream's listener

  began(after_seq) {
    this.events = [];
    this.#recalled = after_seq;
    this.recall();
  }

  /** What happened before this page was opened, as much as is shown. */
  async recall() {
    const until = this.#recalled;
    let after_seq = Math.max(0, until - EVENTS_SHOWN);
    for (let tries = 0; tries < 3 && after_seq < until; tries += 1) {
      try {
        const { items } = await this.node.call("event.list", { after_seq, limit: EVENTS_SHOWN });
        if (this.#ended || this.#recalled !== until) return;
        this.add(items.filter((event) => event.seq <= until));
        break;
      } catch (error) {
        // The next look asks again.
        if (this.#ended || error.kind !== "event_gap") return;
        after_seq = error.after_seq;
      }
    }
    this.#recalled = undefined;
    $("events-none").textContent = "Nothing yet. What happens from now on appears here by itself.";
  }

  heard(event) {
    this.add([event], true);
    this.look();
  }

  missed(after, until) {
    this.add([{ seq: until, gap: [after + 1, until] }]);
    this.look();
  }

  /** Takes events in, each once, in their order. */
  add(events, is_new = false) {
    const known = new Set(this.events.map((event) => event.seq));
    const fresh = events.filter((event) => !known.has(event.seq));
    this.events = [...this.events, ...fresh].sort((a, b) => b.seq - a.seq).slice(0, EVENTS_SHOWN);
    draw_events(this.events, is_new ? new Set(fresh.map((event) => event.seq)) : new Set());
  }

  live() {
    $("live").textContent = "live";
    $("live").className = "live on";
    $("connection").hidden = true;
    this.look();
  }

  lost(why, secs) {
    $("live").textContent = "not connected";
    $("live").className = "live off";
    const next = secs === 0 ? "Trying …" : `Next try in ${secs} s.`;
    $("connection").hidden = false;
    if ($("connection-why").textContent !== why.message) $("connection-why").textContent = why.message;
    $("connection-next").textContent = next;
  }

  refused(error) {
    leave(error);
  }

  // Calls

  /** Asks soon, and not more often than is good for the node. */
  look() {
    if (this.#ended) return;
    if (this.#is_looking) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    const wait = Math.max(0, this.#looked_at + LOOK_APART_MS - Date.now());
    this.#timer = setTimeout(() => this.#look(), wait);
  }

  async #look() {
    if (document.hidden) return;
    this.#is_looking = true;
    this.#again = false;
    this.#looked_at = Date.now();
    const section = section_shown();
    await this.#ask("status", () => this.node.call("node.status"));
    if (!(this.faults.status instanceof NoAnswer)) {
      await Promise.all(
        Object.entries(QUESTIONS)
          .filter(([what]) => is_asked(what, section))
          .map(([what, { ask }]) => this.#ask(what, () => ask(this.node, this))),
      );
    }
    this.#is_looking = false;
    if (this.#ended) return;
    if (this.faults.status?.status === 401) return leave(this.faults.status);
    // A connection that lost its way says nothing by itself.
    if (this.faults.status instanceof NoAnswer) this.stream.reset();
    else {
      if (this.#recalled !== undefined) this.recall();
      this.stream.check();
    }
    this.draw();
    if (this.#again) this.look();
    else this.#timer = setTimeout(() => this.#look(), LOOK_EVERY_MS);
  }

  async #ask(what, ask) {
    try {
      this.told[what] = await ask();
      delete this.faults[what];
    } catch (error) {
      this.faults[what] = error;
    }
  }

  /** Draws what has changed. */
  draw() {
    const section = section_shown();
    draw_top(this.told);
    // A connection that is lost has its own words.
    const is_lost = this.faults.status instanceof NoAnswer;
    const concerned = is_lost ? [] : ["status", ...Object.keys(QUESTIONS).filter((what) => is_asked(what, section))];
    const fault = concerned.map((what) => this.faults[what]).find((error) => error !== undefined);
    $("problem").hidden = fault === undefined;
    if (fault === undefined) fill($("problem"));
    else refill($("problem"), problem(fault));
    const body = $(`${section}-body`);
    if (body !== null) refill(body, ...DRAWN[section](this.told));
  }
}

/** What the node is asked, and for which sections; for all where none is named. */
const QUESTIONS = {
  info: { ask: (node) => node.call("node.info") },
  chain: { ask: (node) => node.call("chain.status") },
  channels: { ask: (node) => node.all("channel.list", {}, 10_000) },
  backups: { ask: (node) => node.call("backup.status") },
  peers: { ask: (node) => node.all("peer.list", {}, 1000), sections: ["peers"] },
  wallet: { ask: (node) => node.call("wallet.balance"), sections: ["overview"] },
  feerates: { ask: (node) => node.call("chain.feerates"), sections: ["overview"] },
  stats: { ask: (node) => node.call("forward.stats", { limit: 1 }), sections: ["overview", "forwards"] },
  forwards: { ask: (node) => node.call("forward.list", { newest_first: true, limit: ROWS_SHOWN }), sections: ["forwards"] },
  payments: {
    ask: (node, session) =>
      newest(node, "payment", session, (event) => event.payment_id && { payment_id: event.payment_id }),
    sections: ["payments"],
  },
  invoices: {
    ask: (node, session) => {
      const is_received = (event) => ["invoice_paid", "keysend_received"].includes(event.kind);
      return newest(node, "invoice", session, (event) => is_received(event) && { payment_hash: event.payment_hash });
    },
    sections: ["payments"],
  },
};

/** Whether this is asked where that section is shown. */
function is_asked(what, section) {
  const { sections } = QUESTIONS[what];
  return sections === undefined || sections.includes(section);
}

/** The newest of a list that is kept in the order of names: all of it where it is short, else those that events name. */
async function newest(node, group, session, name) {
  const { items, more } = await node.all(`${group}.list`, {}, READ_WHOLE);
  if (!more) return { items: items.sort((a, b) => b.created_at - a.created_at).slice(0, ROWS_SHOWN), of: items.length };
  const named = new Map(session.events.filter(name).map((event) => [JSON.stringify(name(event)), name(event)]));
  const asked = [...named.values()].slice(0, 30).map((params) => node.call(`${group}.get`, params));
  const known = (await Promise.allSettled(asked)).filter((one) => one.status === "fulfilled").map((one) => one.value);
  return { items: known.sort((a, b) => b.created_at - a.created_at) };
}

// Sections -------------------------------------------------------------------

function section_shown() {
  const named = location.hash.slice(1);
  return SECTIONS.some(([name]) => name === named) ? named : "overview";
}

function show_section() {
  const shown = section_shown();
  document.body.dataset.section = shown;
  for (const [name] of SECTIONS) if (name !== "events") $(name).hidden = name !== shown;
  for (const link of $("sections").querySelectorAll("a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  session?.draw();
  session?.look();
}

const PHASES = {
  starting: ["starting", "wait"],
  waiting_for_bitcoind: ["waiting for bitcoind", "bad"],
  syncing: ["syncing", "wait"],
  ready: ["ready", "good"],
  restored: ["restored mode", "bad"],
  stopping: ["stopping", "wait"],
};

function draw_top({ status, info }) {
  const alias = info?.alias ?? "Outrigger";
  $("alias").textContent = alias;
  document.title = `${alias} · Outrigger`;
  if (status === undefined) return;
  const height = info?.block_height ?? status.block_height;
  fill(
    $("state"),
    pill(...(PHASES[status.phase] ?? [words(status.phase), "wait"])),
    el("span", { class: "network" }, status.network),
    height === undefined ? [] : el("span", { class: "height" }, `block ${number(height)}`),
  );
  $("footer").textContent = `outriggerd ${status.version} on ${status.network}`;
}

const STATES = {
  funding: "wait",
  normal: "good",
  shutting_down: "wait",
  closing: "wait",
  closed: "idle",
  failed: "bad",
  frozen: "bad",
};

function is_alive(channel) {
  return channel.state !== "closed";
}

/** Whether the channel's balance counts: that of one that failed comes to the wallet, and one that is frozen cannot be read. */
function counts(channel) {
  return is_alive(channel) && !["failed", "frozen"].includes(channel.state);
}

/** What stands in the place of what was not told. */
function not_known() {
  return el("p", { class: "dim" }, "Not known yet.");
}

/** What stands in the place of a list in which nothing is. */
function none(...words) {
  return el("p", { class: "dim" }, ...words);
}

/** Sums over channels that carry or will carry payments. */
function sums(channels) {
  const sum = (name) => channels.reduce((sum, channel) => sum + channel[name], 0);
  return {
    capacity_msat: sum("capacity_sat") * 1000,
    local_msat: sum("local_msat"),
    remote_msat: sum("remote_msat"),
    spendable_msat: sum("spendable_msat"),
    receivable_msat: sum("receivable_msat"),
  };
}

/** What an operator should look at, of what is known, the worst first. */
function concerns({ status, chain, channels, backups }) {
  const found = [];
  if (status?.reason) found.push([words(status.phase), status.reason]);
  else if (chain?.reason) found.push(["chain", chain.reason]);
  if (status?.disk) found.push(["disk", status.disk]);
  if (status?.clock) found.push(["clock", status.clock]);
  if (status?.wallet) found.push(["wallet", status.wallet]);
  for (const channel of channels?.items ?? []) {
    const reason = channel.frozen_reason ?? channel.reason;
    if (channel.state === "closed" || (reason === undefined && !channel.stalled)) continue;
    const what = channel.stalled ? "a required backup is late with it, so it takes no new HTLCs" : reason;
    found.push([`channel ${channel.short_channel_id ?? channel.channel_id.slice(0, 8)}`, what]);
  }
  const before = found.length;
  for (const backup of backups?.items ?? []) {
    const told = [backup.reason, backup.hint].filter(Boolean).join(". ");
    if (told) found.push([`backup ${backup.name}`, told]);
    if (backup.verify_failure) found.push([`backup ${backup.name}`, backup.verify_failure]);
    const is_late = backup.state === "behind" && backup.lag_secs >= LATE_SECS;
    if (is_late) found.push([`backup ${backup.name}`, `it is behind by ${span(backup.lag_secs)}`]);
    if (backup.state === "starting") found.push([`backup ${backup.name}`, "it has not told yet what it holds"]);
  }
  if (backups?.held_events > 0) found.push(["events", held(backups)]);
  // What the node says of them, and none of those did.
  if (status?.backups && found.length === before) found.push(["backups", status.backups]);
  const away = (channels?.items ?? []).filter((channel) => channel.state === "normal" && !channel.connected).length;
  if (away > 0) found.push(["peers", `${away === 1 ? "a channel carries" : `${number(away)} channels carry`} nothing: the peer is away`]);
  return found;
}

function held(backups) {
  const many = backups.held_events === 1 ? "an event is" : `${number(backups.held_events)} events are`;
  return `${many} not told yet because a required backup lacks what they tell of; the oldest has waited ${span(backups.held_events_secs)}`;
}

function tile(title, ...content) {
  return el("section", { class: "card" }, el("h3", {}, title), ...content);
}

function legend() {
  return el(
    "p",
    { class: "legend dim" },
    el("span", { class: "key ours" }),
    "ours ",
    el("span", { class: "key theirs" }),
    "the peer’s ",
    el("span", { class: "key kept" }),
    "pale: not to be moved now",
  );
}

function balance(of) {
  const side = (name, title, held, moves, can) =>
    el(
      "div",
      { class: name },
      el("span", { class: "whose" }, title),
      el("strong", {}, sat(held)),
      el("span", { class: "dim" }, can, " ", sat(moves)),
    );
  return [
    bar(of),
    el(
      "div",
      { class: "sides" },
      side("ours", "ours", of.local_msat, of.spendable_msat, "can send"),
      side("theirs", "the peer’s", of.remote_msat, of.receivable_msat, "can receive"),
    ),
  ];
}

const CHAIN_STATES = {
  waiting_for_bitcoind: ["does not answer", "bad"],
  syncing: ["syncing", "wait"],
  synced: ["in step", "good"],
  blind: ["cannot be used", "bad"],
};

const DRAWN = {
  overview(told) {
    const { status, info, chain, wallet, feerates, stats, backups } = told;
    const channels = (told.channels?.items ?? []).filter(is_alive);
    const usable = channels.filter((channel) => channel.state === "normal");
    return [
      concerns_card(concerns(told), NEEDED.filter((what) => told[what] === undefined)),
      el("section", { class: "card wide" }, el("h3", {}, "In channels"), in_channels(told.channels)),
      el(
        "div",
        { class: "tiles" },
        tile(
          "Node",
          facts(
            ["Phase", pill(...(PHASES[status?.phase] ?? ["unknown", "wait"]))],
            info && ["Key", id(info.node_id, "node")],
            info && ["Listens at", info.addresses.join(", ")],
            info && ["Peers", `${number(info.peers)} connected`],
            told.channels && ["Channels", `${number(usable.length)} carry payments, of ${number(channels.length)}`],
          ),
        ),
        tile(
          "Chain",
          facts(
            chain && ["bitcoind", pill(...(CHAIN_STATES[chain.state] ?? [words(chain.state), "wait"]))],
            chain?.block_height !== undefined && [
              "Block",
              number(chain.block_height),
              chain.target_height === undefined ? "" : ` of ${number(chain.target_height)}`,
            ],
            chain?.block_hash && ["Hash", id(chain.block_hash, "block")],
            chain?.budget && [
              "Calls at once",
              `${number(chain.budget.calls_peak)} at the most, of ${number(chain.budget.calls_at_once)} allowed`,
            ],
            chain?.calls && ["Calls", number(chain.calls.reduce((sum, call) => sum + call.calls, 0))],
            feerates && ["Feerate", `${number(feerates.normal_sat_per_vb)} sat/vB`],
            feerates && ["Commitments", `${number(feerates.commitment_sat_per_vb)} sat/vB`],
          ),
        ),
        tile(
          "Wallet",
          facts(
            wallet && ["Confirmed", whole_sat(wallet.confirmed_sat)],
            wallet && ["On its way", whole_sat(wallet.unconfirmed_sat)],
            wallet && ["Set aside", whole_sat(wallet.locked_sat)],
          ),
        ),
        tile(
          "Forwards, 30 days",
          facts(
            stats && ["Earned", sat(stats.fees_msat)],
            stats && ["Went through", `${number(stats.settled)}, `, sat(stats.outgoing_msat)],
            stats && ["Failed", number(stats.failed)],
            stats && ["Under way", `${number(stats.pending)}, `, sat(stats.pending_msat)],
          ),
        ),
        tile(
          "Backups",
          backups && backups.items.length === 0
            ? none("None is configured: a disk that dies takes the channels with it.")
            : facts(...(backups?.items ?? []).map((backup) => [backup.name, backup_pill(backup)])),
        ),
      ),
    ];
  },

  channels({ channels }) {
    if (channels === undefined) return [not_known()];
    const order = ["frozen", "failed", "funding", "shutting_down", "closing", "normal", "closed"];
    const sorted = [...channels.items].sort(
      (a, b) => order.indexOf(a.state) - order.indexOf(b.state) || b.capacity_sat - a.capacity_sat,
    );
    if (sorted.length === 0) return [none("There is no channel yet. ", el("code", {}, "outrigger-cli channel.open"), " opens one.")];
    const shown = sorted.slice(0, CHANNELS_SHOWN);
    return [
      legend(),
      el("ul", { class: "channels" }, shown.map(channel_card)),
      shown.length < sorted.length || channels.more
        ? el("p", { class: "dim" }, `${number(shown.length)} of ${number(sorted.length)}${channels.more ? " and more" : ""} are shown.`)
        : [],
    ].flat();
  },

  peers({ peers, channels }) {
    if (peers === undefined) return [not_known()];
    if (peers.items.length === 0) return [none("There is no peer yet. ", el("code", {}, "outrigger-cli peer.connect"), " connects to one.")];
    const ours = new Map();
    for (const channel of (channels?.items ?? []).filter(counts)) {
      const sum = ours.get(channel.node_id) ?? { local_msat: 0, remote_msat: 0 };
      ours.set(channel.node_id, {
        local_msat: sum.local_msat + channel.local_msat,
        remote_msat: sum.remote_msat + channel.remote_msat,
      });
    }
    const rows = peers.items.map((peer) => {
      const sum = ours.get(peer.node_id);
      return [
        id(peer.node_id, "peer"),
        pill(...(peer.connected ? ["connected", "good"] : ["away", "wait"])),
        peer.address ?? el("span", { class: "dim" }, "it came to us"),
        number(peer.channels),
        sum ? sat(sum.local_msat) : "",
        sum ? sat(sum.remote_msat) : "",
      ];
    });
    const columns = [["Peer"], ["State"], ["Address", "long"], ["Channels", "number"], ["Ours", "number"], ["The peer’s", "number"]];
    return [
      table(`${number(rows.length)} peers${peers.more ? " and more" : ""}, by their keys`, columns, rows),
    ];
  },

  payments({ payments, invoices }) {
    const sent = payments?.items.map((payment) => [
      moment(payment.created_at),
      pill(payment.state, { succeeded: "good", failed: "bad" }[payment.state] ?? "wait"),
      sat(payment.amount_msat),
      payment.fee_msat === undefined ? "" : sat(payment.fee_msat),
      id(payment.node_id, "payee"),
      id(payment.payment_id, "payment"),
      payment.failure ? prose(payment.failure.message) : "",
    ]);
    const received = invoices?.items.map((invoice) => [
      moment(invoice.paid_at ?? invoice.created_at),
      pill(invoice.state, { paid: "good", expired: "idle" }[invoice.state] ?? "wait"),
      invoice.amount_msat === undefined ? el("span", { class: "dim" }, "any") : sat(invoice.amount_msat),
      invoice.received_msat === undefined ? "" : sat(invoice.received_msat),
      invoice.invoice === undefined ? el("span", { class: "dim" }, "keysend") : invoice.description,
      id(invoice.payment_hash, "payment hash"),
    ]);
    return [
      el("h3", {}, "Sent"),
      rows_of(
        payments,
        "Nothing was paid yet.",
        "payments",
        [["When"], ["State"], ["Amount", "number"], ["Fee", "number"], ["To"], ["Payment"], ["Why", "long"]],
        sent,
      ),
      el("h3", {}, "Invoices"),
      rows_of(
        invoices,
        "There is no invoice yet.",
        "invoices",
        [["When"], ["State"], ["Asked", "number"], ["Received", "number"], ["For", "long"], ["Payment hash"]],
        received,
      ),
    ];
  },

  forwards({ stats, forwards, channels }) {
    const by_id = new Map((channels?.items ?? []).map((channel) => [channel.channel_id, channel]));
    const name = (channel_id) => id(by_id.get(channel_id)?.short_channel_id ?? channel_id, "channel");
    const rows = forwards?.items.map((forward) => [
      moment(forward.settled_at),
      sat(forward.incoming_msat),
      sat(forward.outgoing_msat),
      sat(forward.fee_msat),
      name(forward.incoming_channel_id),
      name(forward.outgoing_channel_id),
    ]);
    const columns = [["When"], ["Came", "number"], ["Went on", "number"], ["Earned", "number"], ["From channel"], ["To channel"]];
    return [
      stats &&
        el(
          "section",
          { class: "card" },
          el("h3", {}, "The last 30 days"),
          facts(
            ["Earned", sat(stats.fees_msat)],
            ["Went through", number(stats.settled)],
            ["Brought", sat(stats.incoming_msat)],
            ["Went on", sat(stats.outgoing_msat)],
            ["Failed", number(stats.failed)],
            ["Not handed on", number(stats.refused)],
            ["Under way", `${number(stats.pending)}, `, sat(stats.pending_msat)],
          ),
        ),
      rows === undefined
        ? not_known()
        : rows.length === 0
          ? none("Nothing was forwarded yet.")
          : table(`The newest ${number(rows.length)} that were earned`, columns, rows),
    ];
  },

  backups({ backups }) {
    if (backups === undefined) return [not_known()];
    if (backups.items.length === 0) {
      return [
        none(
          "No backup is configured: a disk that dies takes the channels with it. ",
          el("code", {}, "[[backup]]"),
          " in ",
          el("code", {}, "outrigger.toml"),
          " names places that have each state before anybody relies on it.",
        ),
      ];
    }
    return [
      backups.held_events > 0 && el("p", { class: "notice bad" }, "Of the events ", held(backups), "."),
      backups.stalled_channels > 0 &&
        el("p", { class: "notice bad" }, `${number(backups.stalled_channels)} channels take no new HTLCs because a required backup is late with them.`),
      el("div", { class: "tiles" }, backups.items.map(backup_card)),
    ];
  },
};

/** What has to be known before it can be said that nothing needs anybody. */
const NEEDED = ["status", "chain", "channels", "backups"];

function concerns_card(found, missing) {
  const unknown = missing.length > 0 && none(`Not known yet: ${missing.join(", ")}.`);
  if (found.length === 0 && unknown) return el("section", { class: "card concerns" }, el("h3", {}, "What needs you"), unknown);
  if (found.length === 0) {
    return el("section", { class: "card concerns none" }, el("h3", {}, "Nothing needs you"), none("No channel and no backup is in trouble."));
  }
  return el(
    "section",
    { class: "card concerns some" },
    el("h3", {}, found.length === 1 ? "One thing needs you" : `${found.length} things need you`),
    el("ul", {}, found.map(([what, why]) => el("li", {}, el("strong", {}, what), ": ", prose(why)))),
    unknown,
  );
}

/** The balance over all channels that count, and how many do not. */
function in_channels(channels) {
  if (channels === undefined) return not_known();
  const counted = channels.items.filter(counts);
  const left_out = channels.items.filter((channel) => is_alive(channel) && !counts(channel)).length;
  return [
    counted.length > 0 ? [balance(sums(counted)), legend()] : left_out === 0 && none("There is no channel yet."),
    left_out > 0 && none(`${left_out === 1 ? "One that failed or cannot be read is" : `${number(left_out)} that failed or cannot be read are`} not counted.`),
    channels.more && none("There are more channels than are read here; the sums are of those that were."),
  ];
}

/** A list in the order of time, or why it has no rows. */
function rows_of(list, nothing, what, columns, rows) {
  if (list === undefined) return not_known();
  if (list.of === 0) return none(nothing);
  const caption =
    list.of === undefined
      ? `More than ${number(READ_WHOLE)} ${what}; those that the newest events name`
      : list.of > list.items.length
        ? `The newest ${number(list.items.length)} of ${number(list.of)} ${what}`
        : `${number(list.of)} ${what}, newest first`;
  return rows.length === 0 ? none(`${caption}: none.`) : table(caption, columns, rows);
}

function channel_card(channel) {
  const notes = [
    channel.needed_blocks !== undefined && `needs ${number(channel.needed_blocks)} more blocks`,
    channel.htlcs > 0 && `${number(channel.htlcs)} HTLCs pending`,
    channel.stalled && "a required backup is late with it",
  ].filter(Boolean);
  const reason = channel.frozen_reason ?? channel.reason;
  return el(
    "li",
    { class: "card channel", "data-channel": channel.channel_id },
    el(
      "div",
      { class: "head" },
      el("h3", {}, channel.short_channel_id ?? `${channel.channel_id.slice(0, 12)}…`),
      pill(words(channel.state), STATES[channel.state] ?? "wait"),
      channel.state === "normal" && !channel.connected && pill("peer away", "wait"),
      el("span", { class: "capacity" }, whole_sat(channel.capacity_sat)),
    ),
    // What a frozen one holds cannot be read.
    channel.state !== "frozen" && balance({ ...channel, capacity_msat: channel.capacity_sat * 1000 }),
    notes.length > 0 && el("p", { class: "dim" }, notes.join(" · ")),
    reason && el("p", { class: "notice bad" }, prose(reason)),
    facts(
      channel.node_id !== "" && ["Peer", id(channel.node_id, "peer")],
      ["Channel", id(channel.channel_id, "channel")],
      channel.forwarding && [
        "Asks",
        `${sat_text(channel.forwarding.fee_base_msat)} and ${number(channel.forwarding.fee_proportional_millionths)} of a million`,
      ],
      channel.closing_txid && ["Closed by", id(channel.closing_txid, "transaction")],
    ),
  );
}

function backup_pill(backup) {
  const tones = { complete: "good", starting: "wait", behind: "wait", troubled: "bad", failed: "bad", ahead: "bad", off: "idle" };
  return pill(words(backup.state), tones[backup.state] ?? "wait");
}

function backup_card(backup) {
  return el(
    "section",
    { class: "card" },
    el("div", { class: "head" }, el("h3", {}, backup.name), backup_pill(backup), el("span", { class: "capacity" }, backup.kind)),
    (backup.reason || backup.hint) && el("p", { class: "notice bad" }, [backup.reason, backup.hint].filter(Boolean).join(". ")),
    backup.verify_failure && el("p", { class: "notice bad" }, backup.verify_failure),
    facts(
      ["Promises wait for it", backup.required ? "yes, it is required" : "no, it follows"],
      ["Behind by", `${number(backup.lag_updates)} updates, ${bytes(backup.lag_bytes)}, ${span(backup.lag_secs)}`],
      ["Last write", backup.completed_at === undefined ? "none since the start" : moment(backup.completed_at)],
      ["Restore tried", backup.verified_at === undefined ? "not yet" : ["right at ", moment(backup.verified_at)]].flat(),
      backup.unverified && ["Not tried now", backup.unverified],
    ),
  );
}

const EVENT_TONES = { failed: "bad", alarm: "bad", frozen: "bad", stuck: "bad", underpaid: "bad", low: "bad", verified: "bad", restored: "bad", ready: "good", succeeded: "good", paid: "good", received: "good", swept: "good", blind: "bad", behind: "bad", disconnected: "bad", synced: "good", complete: "good", connected: "good" };

function draw_events(events, fresh) {
  $("events-none").hidden = events.length > 0;
  fill(
    $("events-list"),
    events.map((event) => {
      if (event.gap) {
        const [from, until] = event.gap;
        return el("li", { class: "gap" }, `Events ${number(from)} to ${number(until)} are no longer kept, and were not shown.`);
      }
      const tone = EVENT_TONES[event.kind.split("_").at(-1)] ?? "plain";
      return el(
        "li",
        { class: `event ${tone}${fresh.has(event.seq) ? " new" : ""}`, "data-seq": event.seq },
        el("div", { class: "what" }, el("strong", {}, words(event.kind)), el("span", { class: "dim" }, moment(event.at))),
        event.amount_msat !== undefined && el("span", {}, sat(event.amount_msat)),
        event.amount_sat !== undefined && el("span", {}, whole_sat(event.amount_sat)),
        event.fee_sat !== undefined && el("span", { class: "dim" }, "fee ", whole_sat(event.fee_sat)),
        event.message && el("p", {}, prose(event.message)),
        el(
          "div",
          { class: "names" },
          event.channel_id && ["channel ", id(event.channel_id, "channel")],
          event.payment_id && ["payment ", id(event.payment_id, "payment")],
          !event.payment_id && event.payment_hash && ["hash ", id(event.payment_hash, "payment hash")],
          !event.channel_id && event.node_id && ["peer ", id(event.node_id, "peer")],
          event.backup && `backup ${event.backup}`,
          event.txid && ["transaction ", id(event.txid, "transaction")],
          el("span", { class: "seq dim" }, `#${event.seq}`),
        ),
      );
    }),
  );
}

fill(
  $("sections"),
  SECTIONS.map(([name, title]) => el("li", { class: `to-${name}` }, el("a", { href: `#${name}` }, title))),
);
show_section();
const kept = sessionStorage.getItem(TOKEN);
if (kept !== null) enter(kept, true);
