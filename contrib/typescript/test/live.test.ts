// The client before two daemons with a channel between them; OUTRIGGER_PAYER and OUTRIGGER_PAYEE name their network directories.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Ajv } from "ajv";
import { WebSocket } from "ws";

import { NoAnswer, Outrigger, parse, Refused, type ErrorKindOf, type Event, type InvoiceCreated, type PaymentInfo, type Socket } from "../src/client.js";
import { connect } from "../src/node.js";

function directory(name: string): string {
  const directory = process.env[name];
  assert.ok(directory, `${name} is not set: integration/tests/typescript.rs starts the daemons and sets it`);
  return directory;
}

const payer = await connect(directory("OUTRIGGER_PAYER"));
const payee = await connect(directory("OUTRIGGER_PAYEE"));

test("a payment is made, waited for and told by an event", async () => {
  const invoice: InvoiceCreated = await payee.call("invoice.create", { amount_msat: 7_000_000, description: "from TypeScript" });
  const sent = await payer.call("payment.send", { invoice: invoice.invoice });
  const paid: PaymentInfo = await payer.call("payment.wait", { payment_id: sent.payment_id, timeout_secs: 30 });
  assert.equal(paid.state, "succeeded", JSON.stringify(paid));
  assert.equal(paid.amount_msat, 7_000_000);
  for await (const event of payee.events({ kinds: ["invoice_paid"], every_secs: 0.05 })) {
    if (event.payment_hash === invoice.payment_hash) {
      assert.equal(event.amount_msat, 7_000_000);
      break;
    }
  }
  const again = await payer.call("payment.send", { invoice: invoice.invoice });
  assert.equal(again.payment_id, sent.payment_id, "the same invoice is not paid twice");
});

test("parameters may be left out where none is required", async () => {
  const [payer_info, payee_info] = await Promise.all([payer.call("node.info"), payee.call("node.info")]);
  assert.notEqual(payer_info.node_id, payee_info.node_id);
  assert.equal((await payer.call("channel.list", {})).items[0]?.node_id, payee_info.node_id);
});

test("a refusal carries kind, hint and parameter", async () => {
  const refused = await payer.call("channel.get", { channel_id: "00".repeat(32) }).catch((error: unknown) => error);
  assert.ok(refused instanceof Refused, String(refused));
  assert.deepEqual([refused.code, refused.kind, refused.retryable], [1401, "channel_not_found", false]);
  assert.ok(refused.hint);
  const kinds: ErrorKindOf<"channel.get">[] = ["channel_not_found", "invalid_parameter", "starting"];
  assert.ok(kinds.some((kind) => kind === refused.kind));
  // @ts-expect-error That is no error of the method.
  kinds.push("no_route");
  // @ts-expect-error The types do not let such a call through.
  const unknown = await payer.call("channel.get", { chanel_id: "00" }).catch((error: unknown) => error);
  assert.ok(unknown instanceof Refused, String(unknown));
  assert.deepEqual([unknown.kind, unknown.data?.parameter], ["invalid_parameter", "chanel_id"]);
});

const url = `http://${readFileSync(`${directory("OUTRIGGER_PAYER")}/rpc_address`, "utf8").trim()}`;

test("a token admits to what its scopes allow, until it is revoked", async () => {
  const { token } = await payer.call("token.create", { name: "a screen", scopes: ["read"] });
  const screen = new Outrigger({ url, token });
  assert.equal((await screen.call("node.info")).node_id, (await payer.call("node.info")).node_id);
  const refused = await screen.call("invoice.create", { description: "not mine" }).catch((error: unknown) => error);
  assert.ok(refused instanceof Refused, String(refused));
  assert.equal(refused.kind, "auth_scope_missing");
  await payer.call("token.revoke", { name: "a screen" });
  const revoked = await screen.call("node.info").catch((error: unknown) => error);
  assert.ok(revoked instanceof NoAnswer && revoked.status === 401, String(revoked));
});

/** The OpenRPC document, from build/test where this runs. */
const document = JSON.parse(readFileSync(new URL("../../../../rpc-schema/openrpc.json", import.meta.url), "utf8"));
const subscribe = document.methods.find((method: { name: string }) => method.name === "event.subscribe");
const fits = subscribe["x-notifications"].map(({ name, params }: { name: string; params: { $ref: string } }) => {
  const schema = document.components.schemas[params.$ref.replace("#/components/schemas/", "")];
  const validate = new Ajv({ strict: false, validateFormats: false }).compile({ ...schema, additionalProperties: false });
  return ({ method, params }: { method?: unknown; params?: unknown }) => method === name && validate(params);
});

/** Notices that the document does not describe, by the words of the daemon, and how many it describes. */
const notices = { odd: [] as string[], right: 0 };

function judge(text: string): void {
  const message = JSON.parse(text);
  if (message.method === undefined) return;
  if (fits.filter((fit: (message: object) => boolean) => fit(message)).length === 1) notices.right += 1;
  else notices.odd.push(text);
}

/** A client that shows a token over the WebSockets of `ws`, and those that it has opened. What comes is held against the document. */
async function follower(name: string): Promise<{ client: Outrigger; sockets: WebSocket[] }> {
  const { token } = await payer.call("token.create", { name, scopes: ["read"] });
  const sockets: WebSocket[] = [];
  const socket = (url: string, protocols: string[]) => {
    const opened = new WebSocket(url, protocols);
    opened.on("message", (data) => judge(String(data)));
    sockets.push(opened);
    return opened;
  };
  return { client: new Outrigger({ url, token, socket }), sockets };
}

test("events come over a WebSocket, and go on where they were when it is cut", async () => {
  const { client, sockets } = await follower("a follower");
  const before = (await client.call("event.list", { after_seq: 0 })).next_seq;
  const names = ["made while it was cut", "made while it was open"];
  const make = (name: string | undefined) => payer.call("token.create", { name: name!, scopes: ["read"] });
  const seqs: number[] = [];
  const told: (string | undefined)[] = [];
  for await (const event of client.subscribe({ after_seq: 0, retry_secs: 0.05 })) {
    seqs.push(event.seq);
    if (event.seq === before) {
      sockets[0]!.terminate();
      await make(names[0]);
    } else if (event.seq > before) {
      told.push(event.message);
      if (told.length === 1) await make(names[1]);
      if (told.length === 2) break;
    }
  }
  assert.deepEqual(told, names);
  assert.deepEqual(seqs, Array.from({ length: before + 2 }, (_, index) => index + 1), "no gap and no repetition");
  assert.equal(sockets.length, 2);
  for (const socket of sockets) assert.ok(socket.readyState >= WebSocket.CLOSING, "whoever leaves closes");
});

test("a subscription without a number begins with what comes next, and of those kinds alone", async () => {
  const { client, sockets } = await follower("a listener");
  const events = client.subscribe({ kinds: ["token_revoked"], retry_secs: 0.05 });
  const first = events.next();
  while ((sockets[0]?.readyState ?? 0) === WebSocket.CONNECTING) await new Promise((resolve) => setTimeout(resolve, 5));
  // Whether the subscription has begun is not seen from outside: this goes on until it has.
  let heard: IteratorResult<Event> | undefined;
  void first.then((event) => (heard = event));
  for (let round = 0; heard === undefined; round++) {
    await payer.call("token.create", { name: `brief ${round}`, scopes: ["read"] });
    await payer.call("token.revoke", { name: `brief ${round}` });
  }
  assert.equal(heard.value?.kind, "token_revoked");
  await payer.call("token.revoke", { name: "a listener" });
  const refused = await (async () => { for await (const _ of events); })().catch((error: unknown) => error);
  assert.ok(refused instanceof Refused && refused.kind === "auth_token_ended", String(refused));
});

test("every notice was as the document describes it, the last one of a token that ended too", () => {
  assert.deepEqual(notices.odd, []);
  assert.ok(notices.right > 5, `${notices.right} notices`);
  const last = { jsonrpc: "2.0", method: "event.subscribe", params: { subscription_id: "1", error: { code: 1802, message: "over" } } };
  judge(JSON.stringify(last));
  assert.equal(notices.odd.length, 1, "an error without data is found out");
});

test("a subscription that cannot begin says why", async () => {
  const { client } = await follower("a stranger");
  const beyond = await client.subscribe({ after_seq: 1e9 }).next().catch((error: unknown) => error);
  assert.ok(beyond instanceof Refused && beyond.data?.parameter === "after_seq", String(beyond));
  const socket = (url: string, protocols: string[]) => new WebSocket(url, protocols);
  const wrong = await new Outrigger({ url, token: "outr_00", socket }).subscribe().next().catch((error: unknown) => error);
  assert.ok(wrong instanceof NoAnswer, String(wrong));
  const aborted = new Outrigger({ url, token: "outr_00", socket }).subscribe({ signal: AbortSignal.abort() });
  assert.equal((await aborted.next()).done, true);
});

test("a wrong cookie, and nobody at the address, are told apart", async () => {
  const wrong = await new Outrigger({ url, cookie: "__cookie__:00" }).call("node.info").catch((error: unknown) => error);
  assert.ok(wrong instanceof NoAnswer, String(wrong));
  assert.equal(wrong.status, 401);
  const nobody = await new Outrigger({ url: "http://127.0.0.1:1", cookie: "" }).call("node.info").catch((error: unknown) => error);
  assert.ok(nobody instanceof NoAnswer, String(nobody));
  assert.equal(nobody.status, undefined);
});

test("a number that would be rounded is an error", () => {
  assert.deepEqual(parse('{ "amount_msat": 9007199254740991 }'), { amount_msat: 9007199254740991 });
  assert.throws(() => parse('{ "amount_msat": 9007199254740993 }'), /amount_msat/);
});

// What the types refuse: tsc fails where one of these lines is no error.
export function refused_by_the_types(): void {
  // @ts-expect-error A required parameter is missing.
  void payer.call("invoice.create", {});
  // @ts-expect-error There is no such method.
  void payer.call("invoice.make", { description: "" });
  // @ts-expect-error An amount is a number.
  void payer.call("invoice.create", { description: "", amount_msat: "1" });
  // @ts-expect-error Parameters that are required cannot be left out.
  void payer.call("channel.get");
  // @ts-expect-error There is no state of this name.
  void payer.call("channel.list", { state: "open" });
}

test("where the last word of a subscription goes beyond the last event, the next begins there", async () => {
  const asked: unknown[] = [];
  const words = [
    { code: 1, message: "", data: { kind: "event_behind", retryable: true, hint: "", after_seq: 9 } },
    { code: 1, message: "", data: { kind: "event_behind", retryable: true, hint: "", after_seq: 5 } },
    { code: 1, message: "", data: { kind: "event_gap", retryable: false, hint: "", after_seq: 20 } },
  ];
  const socket = (): Socket => {
    const opened: Socket = {
      onopen: undefined,
      onmessage: undefined,
      onerror: undefined,
      onclose: undefined,
      send(text) {
        const { id, params } = JSON.parse(text);
        asked.push(params.after_seq);
        const error = words.shift();
        opened.onmessage({ data: JSON.stringify({ id, result: { subscription_id: "1", after_seq: params.after_seq } }) });
        opened.onmessage({ data: JSON.stringify({ params: { subscription_id: "1", error } }) });
      },
      close() {},
    };
    setTimeout(() => opened.onopen(), 0);
    return opened;
  };
  const followed = new Outrigger({ url, token: "outr_00", socket }).subscribe({ after_seq: 6, retry_secs: 0 });
  const refused = await followed.next().catch((error: unknown) => error);
  assert.ok(refused instanceof Refused && refused.kind === "event_gap", String(refused));
  assert.deepEqual(asked, [6, 9, 9]);
});
