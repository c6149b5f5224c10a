// Looks at the operator's page as an operator does, in a headless Chromium before live daemons, and says what it saw, a line each.
// `integration/tests/page.rs` starts the daemons and this; lines that begin with @ ask it for something.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const env = (name) => process.env[name] ?? assert.fail(`${name} is not set`);
const LIMIT_MS = Number(process.env.OUTRIGGER_PAGE_LIMIT_MS ?? 60_000);
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// The daemons ------------------------------------------------------------------

/** Calls a method of the daemon whose network directory this is, as its owner. */
async function call(directory, method, params = {}) {
  const read = async (name) => (await readFile(join(directory, name), "utf8")).trim();
  const response = await fetch(`http://${await read("rpc_address")}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Basic ${btoa(await read(".cookie"))}` },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
  });
  const { result, error } = await response.json();
  assert.equal(error, undefined, `${method}: ${JSON.stringify(error)}`);
  return result;
}

const [SHOWN, PAYER, PAYEE] = ["OUTRIGGER_SHOWN", "OUTRIGGER_PAYER", "OUTRIGGER_PAYEE"].map(env);

/** The payer pays the node that is shown. */
async function pay(amount_msat, description) {
  const { invoice } = await call(SHOWN, "invoice.create", { amount_msat, description });
  const { payment_id } = await call(PAYER, "payment.send", { invoice });
  const { state } = await call(PAYER, "payment.wait", { payment_id });
  assert.equal(state, "succeeded");
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the test do something, and waits until it is done. */
async function ask(what) {
  console.log(`@${what}`);
  assert.equal((await answers.next()).value, "done");
}

/** A wire between browser and daemon that can be cut. It finds the daemon anew for each connection. */
class Wire {
  #sockets = new Set();
  #server;
  is_cut = false;

  constructor(port) {
    this.#server = net.createServer((near) => this.#carry(near));
    this.ready = new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
  }

  async #carry(near) {
    near.on("error", () => {});
    if (this.is_cut) return near.destroy();
    const address = await readFile(join(SHOWN, "rpc_address"), "utf8").catch(() => "127.0.0.1:1");
    const far = net.connect(Number(address.trim().split(":").at(-1)), "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      this.#sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  }

  cut() {
    this.is_cut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend() {
    this.is_cut = false;
  }

  close() {
    this.cut();
    this.#server.close();
  }
}

// The browser ------------------------------------------------------------------

const port = Number(env("OUTRIGGER_PAGE_PORT"));
const place = `http://127.0.0.1:${port}/`;
const wire = new Wire(port);
await wire.ready;
// Whoever works on the page need not build the daemon for each look: the files are taken from here, with the daemon's own headers.
const draft = process.env.OUTRIGGER_PAGE_FROM;
const profile = await mkdtemp(join(tmpdir(), "outrigger-page-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: env("CHROMIUM_EXE"),
  // What the browser was not sent by a local address may not call one.
  args: draft === undefined ? FLAGS : [...FLAGS, "--disable-features=LocalNetworkAccessChecks"],
  viewport: { width: 1440, height: 900 },
  colorScheme: "light",
  reducedMotion: "reduce",
});
browser.setDefaultTimeout(LIMIT_MS);

/** What a browser may say where the node does not answer, and not otherwise. */
const OF_THE_WIRE = /Failed to load resource: (net::ERR_|the server responded with a status of (401|503))|WebSocket connection to .* failed/;

const said = [];
let may_fail = false;

function watch(page) {
  const from_elsewhere = (address) => {
    const { host, protocol } = new URL(address);
    return !["http:", "ws:"].includes(protocol) || host !== `127.0.0.1:${port}`;
  };
  page.on("console", (message) => {
    const text = `${message.type()}: ${message.text()}`;
    if (["error", "warning"].includes(message.type()) && !(may_fail && OF_THE_WIRE.test(text))) said.push(text);
  });
  page.on("pageerror", (error) => said.push(`uncaught: ${error.stack}`));
  page.on("request", (request) => from_elsewhere(request.url()) && said.push(`a request to ${request.url()}`));
  page.on("websocket", (socket) => from_elsewhere(socket.url()) && said.push(`a WebSocket to ${socket.url()}`));
}

/** Waits until `condition` holds. */
async function until(what, condition) {
  const begun = Date.now();
  for (let last; ; ) {
    try {
      last = await condition();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() - begun > LIMIT_MS) assert.fail(`gave up waiting for ${what}: ${last}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const steps = [];

/** One thing that is looked at. Nothing may be said on the console but where the wire is cut. */
async function step(name, look) {
  await look();
  assert.deepEqual(said, [], name);
  steps.push(name);
  console.log(`seen: ${name}`);
}

if (draft !== undefined) {
  await browser.route(/\/(page\.css|\w+\.js|icon\.svg|)$/, async (route) => {
    if (route.request().method() !== "GET") return route.continue();
    const name = new URL(route.request().url()).pathname.slice(1) || "page.html";
    await route.fulfill({ response: await route.fetch(), body: await readFile(join(draft, name), "utf8") });
  });
}

const page = browser.pages()[0] ?? (await browser.newPage());
watch(page);

const text = (selector, of = page) => of.locator(selector).innerText();
const is_live = async () => (await text("#live")) === "live" && (await page.locator("#connection").isHidden());
const open_section = (name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
const seqs_shown = () =>
  page.locator("#events-list > [data-seq]").evaluateAll((rows) => rows.map((row) => Number(row.dataset.seq)));
const grouped = (msat) => `${new Intl.NumberFormat("en").format(Math.floor(msat / 1000))}${msat % 1000 ? `.${String(msat % 1000).padStart(3, "0")}` : ""} sat`;

/** The events that are shown are those that the node has: each once, none left out. */
async function events_are_whole() {
  const { items } = await call(SHOWN, "event.list", { limit: 1000 });
  const wanted = items.map((event) => event.seq).reverse();
  await until("the newest event to be shown", async () => (await seqs_shown())[0] === wanted[0]);
  assert.deepEqual(await seqs_shown(), wanted);
  return wanted.length;
}

/** No rule of WCAG 2.1 A and AA that a program can judge is broken, contrast included. */
async function is_accessible(where) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axe);
  const found = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
  );
  const words = found.violations.map((rule) => `${rule.id}: ${rule.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(words, [], where);
  assert.ok(found.passes.length > 10, `${where}: only ${found.passes.length} rules were judged`);
}

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = process.env.OUTRIGGER_PAGE_SHOTS;

/** What is kept of the look: some of each width, of light and dark. */
const KEPT = [
  "enter",
  "connection-lost",
  "wide-overview-light",
  "wide-channels-dark",
  "wide-payments-light",
  "narrow-overview-light",
  "narrow-channels-dark",
  "narrow-payments-light",
  "narrow-events-dark",
];

async function shot(name) {
  if (shots === undefined || !KEPT.includes(name)) return;
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.activeElement?.blur());
  const { width, height } = page.viewportSize();
  const clip = { x: 0, y: 0, width, height: width > 800 ? 720 : height };
  await page.screenshot({ path: join(shots, `${name}.png`), animations: "disabled", clip });
}

async function enter(token) {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Show the node" }).click();
}

try {
  await step("a wrong token is told as that", async () => {
    await page.goto(place);
    may_fail = true;
    for (const [token, words] of [
      ["hello", /This is no token\. A token begins with outr_/],
      ["__cookie__:00", /This is the cookie, which may do everything\. Make a token/],
      [`outr_${"0".repeat(80)}`, /The node does not know this token\. Look at outrigger-cli token\.list/],
      [env("OUTRIGGER_NARROW_TOKEN"), /read/],
    ]) {
      await enter(token);
      await until(`${words}`, async () => words.test(await text("#enter-problem")));
      assert.equal(await page.locator("#inside").isVisible(), false);
      assert.equal(await page.evaluate(() => sessionStorage.length + localStorage.length), 0);
    }
    may_fail = false;
    await is_accessible("the door");
    await shot("enter");
  });

  await step("the right token shows the node", async () => {
    await enter(env("OUTRIGGER_TOKEN"));
    await until("the alias", async () => (await text("#alias")) === "lagoon");
    await until("the stream", is_live);
    await until("the phase", async () => /ready/.test(await text("#state")));
    const { block_height } = await call(SHOWN, "node.info");
    assert.match(await text("#state"), new RegExp(`regtest\\s+block ${block_height}`));
    assert.deepEqual(await page.evaluate(() => [Object.keys(sessionStorage), localStorage.length, document.cookie]), [["outrigger-token"], 0, ""]);
    assert.match(await text("#overview-body"), /Nothing needs you/);
  });

  await step("every section shows what the node says", async () => {
    const { items: channels } = await call(SHOWN, "channel.list");
    await open_section("Channels");
    await until("the channels", async () => (await page.locator("[data-channel]").count()) === channels.length);
    for (const channel of channels) await shows(channel);
    await open_section("Peers");
    await until("the peers", async () => (await page.locator("#peers tbody tr").count()) === 2);
    for (const word of ["connected", "1"]) assert.match(await text("#peers tbody tr:first-child"), new RegExp(word));
    await open_section("Payments");
    await until("a payment", async () => /succeeded/.test(await text("#payments-body")));
    assert.match(await text("#payments-body"), /failed/);
    await open_section("Forwards");
    const { fees_msat, settled } = await call(SHOWN, "forward.stats");
    assert.ok(settled > 0 && fees_msat > 0);
    await until("the sums", async () => (await text("#forwards-body")).includes(grouped(fees_msat)));
    await until("the forwards", async () => (await page.locator("#forwards tbody tr").count()) === settled);
    await open_section("Backups");
    await until("a backup", async () => /second-disk/.test(await text("#backups-body")));
    assert.match(await text("#backups-body"), /complete[\s\S]*0 updates, 0 B, 0 s/);
    await open_section("Overview");
    await until("the sums", async () => (await text("#overview-body")).includes(grouped(channels.reduce((sum, channel) => sum + channel.local_msat, 0))));
    await events_are_whole();
  });

  /** A channel's card tells its amounts, and its bar is as wide. */
  async function shows(channel) {
    const card = page.locator(`[data-channel="${channel.channel_id}"]`);
    await until("its balance", async () => (await card.innerText()).includes(grouped(channel.local_msat)));
    const words = await card.innerText();
    for (const msat of [channel.remote_msat, channel.spendable_msat, channel.receivable_msat, channel.capacity_sat * 1000]) {
      assert.ok(words.includes(grouped(msat)), `${grouped(msat)} in ${words}`);
    }
    const [whole, ours] = await card.locator(".bar").evaluate((bar) => {
      const wide = (element) => element.getBoundingClientRect().width;
      return [wide(bar), [...bar.querySelectorAll(".ours")].reduce((sum, part) => sum + wide(part), 0)];
    });
    const share = channel.local_msat / (channel.capacity_sat * 1000);
    assert.ok(Math.abs(ours / whole - share) < 0.02, `${ours} of ${whole}, and ${share} is ours`);
  }

  await step("a payment appears by itself", async () => {
    await open_section("Channels");
    await page.evaluate(() => (globalThis.is_the_same_page = true));
    const before = (await seqs_shown())[0];
    await pay(12_345_678, "a boat");
    await until("the event", async () => (await seqs_shown())[0] > before);
    assert.match(await text("#events-list > li:first-child"), /invoice paid[\s\S]*12,345\.678 sat/i);
    for (const channel of (await call(SHOWN, "channel.list")).items) await shows(channel);
    assert.ok(await page.evaluate(() => globalThis.is_the_same_page));
    await events_are_whole();
  });

  await step("what others write is text, and no script of theirs runs", async () => {
    const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;';
    await call(SHOWN, "invoice.create", { description: evil });
    await open_section("Payments");
    await until("the text as it is", async () => (await text("#payments-body")).includes(evil));
    assert.equal(await page.locator("#payments img, #payments script").count(), 0);
    await call(SHOWN, "invoice.create", { description: "pay \u202ereverof\u2066 \u009b" });
    await until("letters that steer, to be seen", async () => (await text("#payments-body")).includes("pay \\u{202e}reverof\\u{2066} \\u{9b}"));
    assert.equal(await page.title(), "lagoon · Outrigger");
    const refused = await page.evaluate(() => {
      try {
        document.createElement("div").innerHTML = "<b>x</b>";
      } catch (error) {
        return error.name;
      }
    });
    assert.equal(refused, "TypeError");
    // The browser tells of what the policy refused; here it was asked for.
    assert.match(said.splice(0).join(), /^[^,]*TrustedHTML[^,]*$/);
  });

  await step("everything is reached by the keyboard", async () => {
    await open_section("Overview");
    await page.evaluate(() => {
      document.activeElement?.blur();
      getSelection()?.removeAllRanges();
    });
    await page.reload();
    await until("the stream", is_live);
    const reached = [];
    for (let at = 0; at < 12; at += 1) {
      await page.keyboard.press("Tab");
      reached.push(await page.evaluate(() => document.activeElement?.textContent));
    }
    assert.equal(reached[0], "To the content");
    for (const name of ["Forget the token", "Overview", "Channels", "Peers", "Payments", "Forwards", "Backups", "Events"]) {
      assert.ok(reached.includes(name), `${name} among ${reached.join(", ")}`);
    }
    await page.getByRole("link", { name: "Peers" }).focus();
    await page.keyboard.press("Enter");
    await until("the peers", () => page.locator("#peers table").isVisible());
    assert.equal(await page.getByRole("link", { name: "Peers" }).getAttribute("aria-current"), "page");
    await page.locator("#skip").focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
    assert.ok(await page.locator("#peers table").isVisible(), "the section stays");
  });

  /** Answers of these methods do not come while something is done. */
  const without = async (methods, done) => {
    may_fail = true;
    const refuse = (route) => {
      const method = route.request().postDataJSON()?.method;
      return methods.includes(method) ? route.fulfill({ status: 503 }) : route.fallback();
    };
    await page.route("**/*", refuse);
    await done();
    await page.unroute("**/*", refuse);
  };

  await step("what could not be asked is not told as nothing", async () => {
    await open_section("Payments");
    await without(["payment.list", "channel.list", "event.list"], async () => {
      await page.reload();
      await until("words", async () => /Sent\s+Not known yet/.test(await text("#payments-body")));
      assert.match(await text("#problem"), /The node is starting\./);
      assert.match(await text("#events-none"), /is being asked/);
      await open_section("Overview");
      await until("words", async () => /What needs you\s+Not known yet: channels\./.test(await text("#overview-body")));
      assert.doesNotMatch(await text("#overview-body"), /Nothing needs you|There is no channel/);
    });
    await until("what needs somebody", async () => /Nothing needs you/.test(await text("#overview-body")));
    await until("what happened before", async () => (await page.locator("#events-list > [data-seq]").count()) > 0);
    assert.ok(await page.locator("#problem").isHidden());
    may_fail = false;
  });

  await step("the door lets a kept token in by itself once the node answers", async () => {
    await without(["node.status"], async () => {
      await page.reload();
      await until("the door", async () => /is starting[\s\S]*This page tries again/.test(await text("#enter-problem")));
      assert.ok(await page.locator("#inside").isHidden());
    });
    await until("the stream", is_live);
    assert.ok(await page.locator("#enter").isHidden());
    may_fail = false;
  });

  await step("a cut wire is told, and what was missed comes by its numbers", async () => {
    may_fail = true;
    await events_are_whole();
    wire.cut();
    await until("the banner", () => page.locator("#connection").isVisible());
    await until("the countdown", async () => /Next try in \d+ s/.test(await text("#connection")));
    assert.match(await text("#connection"), /The connection is lost\./);
    assert.equal(await text("#live"), "not connected");
    await pay(1_000_000, "while nobody looked");
    await pay(2_000_000, "and again");
    await shot("connection-lost");
    wire.mend();
    await page.getByRole("button", { name: "Try now" }).click();
    await until("the stream", is_live);
    await events_are_whole();
    assert.ok(await page.evaluate(() => document.getElementById("connection").hidden));
  });

  await step("a node that was killed is found again by the page itself", async () => {
    const before = await events_are_whole();
    await ask("kill");
    await until("the banner", () => page.locator("#connection").isVisible());
    await ask("start");
    await until("the stream", is_live);
    await pay(3_000_000, "after the start");
    assert.ok((await events_are_whole()) > before);
    may_fail = false;
  });

  await step("events that are no longer kept are told as missed", async () => {
    const other = await browser.newPage();
    watch(other);
    const asked = [];
    await other.routeWebSocket(/.*/, (near) => {
      const far = near.connectToServer();
      near.onMessage((message) => {
        const { id, params } = JSON.parse(message);
        asked.push(params.after_seq);
        if (asked.length === 1) {
          far.send(message);
          // The node goes away once it has answered.
          far.onMessage((answer) => {
            near.send(answer);
            near.close();
          });
        } else if (asked.length === 2) {
          const data = { kind: "event_gap", retryable: false, hint: "go on from after_seq", after_seq: params.after_seq + 40 };
          near.send(JSON.stringify({ jsonrpc: "2.0", id, error: { code: 1701, message: "gone", data } }));
        } else {
          near.send(JSON.stringify({ jsonrpc: "2.0", id, result: { subscription_id: "1", after_seq: params.after_seq } }));
          const event = { seq: params.after_seq + 1, at: 1, kind: "channel_alarm", message: "<b>after the gap</b>" };
          for (let twice = 0; twice < 2; twice += 1) {
            near.send(JSON.stringify({ jsonrpc: "2.0", method: "event.subscribe", params: { subscription_id: "1", event } }));
          }
        }
      });
    });
    await other.goto(place);
    await other.getByLabel("Token").fill(env("OUTRIGGER_TOKEN"));
    await other.getByRole("button", { name: "Show the node" }).click();
    await until("the gap", async () => /are no longer kept/.test(await text("#events-list .gap", other)));
    await until("what comes after", async () => (await text("#events-list > li:first-child", other)).includes("<b>after the gap</b>"));
    const last = asked[1];
    assert.deepEqual(asked, [undefined, last, last + 40]);
    const number = (value) => new Intl.NumberFormat("en").format(value);
    assert.match(await text("#events-list .gap", other), new RegExp(`Events ${number(last + 1)} to ${number(last + 40)} `));
    assert.equal(await other.locator(`[data-seq="${last + 41}"]`).count(), 1, "said twice, shown once");
    await other.close();
  });

  for (const [width, height, name] of [
    [1440, 900, "wide"],
    [390, 844, "narrow"],
  ]) {
    for (const scheme of ["light", "dark"]) {
      await step(`it fits a ${name} screen and can be read, ${scheme}`, async () => {
        await page.setViewportSize({ width, height });
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
        for (const section of ["Overview", "Channels", "Peers", "Payments", "Forwards", "Backups", "Events"]) {
          await open_section(section);
          await until(section, () => page.evaluate((name) => {
            const body = document.getElementById(`${name}-body`) ?? document.getElementById("events-list");
            return body.childElementCount > 0;
          }, section.toLowerCase()));
          await page.evaluate(() => scrollTo(0, 0));
          const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
          assert.ok(content <= screen, `${section}: ${content} pixels on a screen of ${screen}`);
          await is_accessible(`${section}, ${name}, ${scheme}`);
          await shot(`${name}-${section.toLowerCase()}-${scheme}`);
        }
      });
    }
  }

  await step("a token that is revoked ends the look", async () => {
    may_fail = true;
    await call(SHOWN, "token.revoke", { name: "page" });
    await until("the door", () => page.locator("#enter").isVisible());
    assert.match(await text("#enter-problem"), /token/);
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    may_fail = false;
  });

  console.log(`all seen: ${steps.length}`);
} catch (error) {
  console.error(`behind "${steps.at(-1)}": ${error.stack}`);
  if (said.length > 0) console.error(`the browser said: ${said.join("\n")}`);
  console.error(`the page: ${await page.locator("body").innerText({ timeout: 1000 }).catch(String)}`);
  process.exitCode = 1;
} finally {
  await browser.close().catch(() => {});
  wire.close();
  await rm(profile, { recursive: true, force: true });
}
process.exit();
