// The node as this page knows it: the published interface and nothing else. Calls go by POST, events come over WebSocket.

/** Where the page was served, and so where the node is. */
const PLACE = new URL(".", location.href);

/** How long an answer is waited for, in milliseconds. */
const PATIENCE_MS = 20_000;

/** The longest pause before another try to connect, in seconds. */
const LONGEST_PAUSE_SECS = 15;

/** How long a connection may be silent before the node is asked whether it should be, in milliseconds. */
const QUIET_MS = 60_000;

/** The node refused a call, and says why and what to do. */
export class Refused extends Error {
  constructor(error) {
    super(String(error?.message ?? "the call was refused"));
    this.kind = error?.data?.kind;
    this.hint = error?.data?.hint;
    this.after_seq = error?.data?.after_seq;
    this.parameter = error?.data?.parameter;
  }
}

/** There is no answer that could be understood. */
export class NoAnswer extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
    this.hint = hint_for(status);
  }
}

function hint_for(status) {
  if (status === 401) return "Look at outrigger-cli token.list: it may be revoked or expired. Make another one.";
  if (status === 403) return "The node does not know itself by this name. Add it to rpc.hosts, or use 127.0.0.1 or localhost.";
  if (status === 503) return "It is opening its database.";
  return "See whether outriggerd runs.";
}

function words_for(status) {
  if (status === 401) return "The node does not know this token.";
  if (status === 403) return "The node does not let this page call it.";
  if (status === 503) return "The node is starting.";
  return `The node answered with HTTP status ${status}.`;
}

/** Reads JSON. A number that cannot be held exactly is an error: it would be another amount. */
function parse(text) {
  return JSON.parse(text, (key, value) => {
    if (typeof value === "number" && !Number.isSafeInteger(value)) {
      throw new RangeError(`${key} is a number that this page cannot hold exactly`);
    }
    return value;
  });
}

/** Calls methods, showing a token. */
export class Node {
  #token;
  #last_id = 0;

  constructor(token) {
    this.#token = token;
  }

  /** The result of a method. Throws `Refused` or `NoAnswer`. */
  async call(method, params = {}) {
    const id = ++this.#last_id;
    let response;
    let text;
    try {
      response = await fetch(PLACE, {
        method: "POST",
        // Without them the browser asks for a name and a password where the token is not known.
        credentials: "omit",
        cache: "no-store",
        redirect: "error",
        headers: { "content-type": "application/json", authorization: `Bearer ${this.#token}` },
        body: JSON.stringify({ jsonrpc: "2.0", id, method, params }),
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      text = await response.text();
    } catch {
      throw new NoAnswer("The node cannot be reached.");
    }
    if (!response.ok) throw new NoAnswer(words_for(response.status), response.status);
    let answer;
    try {
      answer = parse(text);
    } catch (error) {
      throw new NoAnswer(`The answer to ${method} cannot be read: ${error.message}.`, response.status);
    }
    if (answer?.error) throw new Refused(answer.error);
    if (answer?.id !== id || typeof answer.result !== "object") {
      throw new NoAnswer(`The answer to ${method} is to another call.`, response.status);
    }
    return answer.result;
  }

  /** All items of a list, page by page, and whether there are more than `most`. */
  async all(method, params, most) {
    const items = [];
    let after;
    do {
      const page = await this.call(method, { ...params, limit: 1000, ...(after === undefined ? {} : { after }) });
      items.push(...page.items);
      after = page.next;
    } while (after !== undefined && items.length < most);
    return { items, more: after !== undefined };
  }

  /** A connection on which events come. A browser can set no header there, so the token goes as a protocol. */
  socket() {
    const address = new URL(PLACE);
    address.protocol = PLACE.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    return new WebSocket(address, ["outrigger", this.#token]);
  }
}

/**
 * Follows the events over any number of connections, without gap or repetition: the number of the last event that was heard
 * is where the next connection goes on. `listener` has `heard(event)`, `missed(after, until)`, `began(after_seq)`, `live()`,
 * `lost(reason, secs)`, `refused(error)` where no other try can help.
 */
export class Stream {
  #node;
  #listener;
  #last;
  #socket;
  #wake = () => {};
  #heard_at = Date.now();
  #failures = 0;
  #stopped = false;

  constructor(node, listener) {
    this.#node = node;
    this.#listener = listener;
    this.#run();
  }

  /** Ends it for good. */
  stop() {
    this.#stopped = true;
    this.#socket?.close();
    this.#wake();
  }

  /** Tries at once where it waits. */
  try_now() {
    this.#wake();
  }

  /** Gives up a connection of which others know that it leads nowhere. */
  reset() {
    this.#socket?.close();
  }

  /** Gives up a connection that has long been silent where the node has something to tell: it leads nowhere, and nobody said so. */
  async check() {
    if (this.#last === undefined || Date.now() - this.#heard_at < QUIET_MS) return;
    this.#heard_at = Date.now();
    const last = this.#last;
    const { items } = await this.#node.call("event.list", { after_seq: last, limit: 1 }).catch(() => ({ items: [] }));
    if (items.length > 0 && this.#last === last) this.reset();
  }

  async #run() {
    while (!this.#stopped) {
      let why;
      try {
        // It also says why a connection would not be let in, which a WebSocket does not.
        await this.#node.call("node.status");
        why = await this.#connection();
      } catch (error) {
        why = error;
      }
      if (this.#stopped) return;
      const is_final = why.status === 401 || ["auth_token_ended", "auth_scope_missing"].includes(why.kind);
      if (is_final) return this.#listener.refused(why);
      await this.#pause(why);
    }
  }

  /** Waits before the next try, and tells every second how long. */
  async #pause(why) {
    const secs = Math.min(2 ** this.#failures, LONGEST_PAUSE_SECS);
    this.#failures += 1;
    let is_over = false;
    for (let left = secs; left > 0 && !is_over && !this.#stopped; left -= 1) {
      this.#listener.lost(why, left);
      is_over = await new Promise((resolve) => {
        const timer = setTimeout(() => resolve(false), 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve(true);
        };
      });
    }
    this.#wake = () => {};
    if (!this.#stopped) this.#listener.lost(why, 0);
  }

  /** One connection; resolves with why it ended. */
  #connection() {
    return new Promise((resolve) => {
      const socket = this.#node.socket();
      this.#socket = socket;
      let why = new NoAnswer("The node ended the connection.");
      const subscribe = () => {
        const params = this.#last === undefined ? {} : { after_seq: this.#last };
        socket.send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "event.subscribe", params }));
      };
      const refused = (error) => {
        why = new Refused(error);
        if (why.kind === "event_gap" && this.#last < why.after_seq) {
          this.#listener.missed(this.#last, why.after_seq);
          this.#last = why.after_seq;
          return subscribe();
        }
        if (why.parameter === "after_seq" && this.#last !== undefined) {
          // The node does not have what we heard last: its database is another one.
          this.#last = undefined;
          return subscribe();
        }
        socket.close();
      };
      socket.onopen = subscribe;
      socket.onclose = () => resolve(why);
      socket.onmessage = ({ data }) => {
        this.#heard_at = Date.now();
        const message = parse(data);
        if (message.error) return refused(message.error);
        if (message.params?.error) return refused(message.params.error);
        if (message.params?.event) return this.#hear(message.params.event);
        if (message.result) {
          this.#failures = 0;
          if (this.#last === undefined) {
            this.#last = message.result.after_seq;
            this.#listener.began(this.#last);
          }
          this.#listener.live();
        }
      };
    });
  }

  #hear(event) {
    if (event.seq <= this.#last) return;
    this.#last = event.seq;
    this.#listener.heard(event);
  }
}
