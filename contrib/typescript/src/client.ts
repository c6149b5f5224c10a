// A client of the interface over HTTP, for browsers and for Node. The types come from interface.ts, which is generated.

import type { ErrorData, ErrorKind, Event, EventKind, Methods, Notifications } from "./interface.js";

export * from "./interface.js";

export type MethodName = keyof Methods;
export type ParametersOf<M extends MethodName> = Methods[M]["parameters"];
export type ResultOf<M extends MethodName> = Methods[M]["result"];
/** The kinds that a call of the method may be `Refused` with, by a daemon of this version. */
export type ErrorKindOf<M extends MethodName> = Methods[M]["errors"];

/** Parameters may be left out where none is required. */
type Given<M extends MethodName> = {} extends ParametersOf<M> ? [parameters?: ParametersOf<M>] : [parameters: ParametersOf<M>];

/** What admits the caller: the whole text of the cookie file, `__cookie__:…`, or a token as `token.create` gave it. */
export type Credentials = { cookie: string; token?: never } | { token: string; cookie?: never };

export type Options = Credentials & {
  /** Where the daemon listens, such as `http://127.0.0.1:9737`. */
  url: string;
  /** How to fetch; the global `fetch` without it. */
  fetch?: typeof fetch;
  /** How to open a WebSocket, for `subscribe`: the global `WebSocket` without it, which Node has from 22 on and which can show a token
   * only. With the package `ws`: `(url, protocols) => new WebSocket(url, protocols)`. */
  socket?: (url: string, protocols: string[]) => Socket;
  /** How long an answer is waited for, in seconds; 630 without it, which is longer than the longest `*.wait`. */
  timeout_secs?: number;
};

/** What `subscribe` needs of a WebSocket. */
export interface Socket {
  onopen: any;
  onmessage: any;
  onerror: any;
  onclose: any;
  send(text: string): void;
  close(): void;
}

/** The header that shows them. */
export function authorization({ cookie, token }: Credentials): string {
  return token === undefined ? `Basic ${btoa(cookie.trim())}` : `Bearer ${token.trim()}`;
}

/** The daemon refused a call. `kind` is for programs, `hint` says what to do. */
export class Refused extends Error {
  override readonly name = "Refused";
  constructor(
    readonly method: string,
    /** JSON-RPC's own code, or one in the band of a group. */
    readonly code: number,
    message: string,
    /** Absent where the fault was found before the method. */
    readonly data?: ErrorData,
  ) {
    super(message);
  }
  /** What went wrong. A newer daemon may have kinds that this version does not know. */
  get kind(): ErrorKind | undefined {
    return this.data?.kind as ErrorKind | undefined;
  }
  get hint(): string | undefined {
    return this.data?.hint;
  }
  /** Whether the same call may succeed later without anybody changing anything. */
  get retryable(): boolean {
    return this.data?.retryable ?? false;
  }
}

/** There is no answer that could be understood. Whether the call was carried out is not known: repeat it, with the same
 * `idempotency_key` where it has one. */
export class NoAnswer extends Error {
  override readonly name = "NoAnswer";
  constructor(
    readonly method: string,
    message: string,
    /** The HTTP status, where there was one: 401 is a wrong cookie. */
    readonly status?: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Reads JSON. A number that JavaScript cannot hold exactly is an error: it would be another amount. */
export function parse(text: string): unknown {
  return JSON.parse(text, (key, value: unknown) => {
    if (typeof value === "number" && !Number.isSafeInteger(value)) {
      throw new RangeError(`${key} is a number that JavaScript cannot hold exactly`);
    }
    return value;
  });
}

export class Outrigger {
  readonly #options: Options;
  #last_id = 0;

  constructor(options: Options) {
    this.#options = options;
  }

  /** Calls a method. Throws `Refused` or `NoAnswer`. */
  async call<M extends MethodName>(method: M, ...[parameters]: Given<M>): Promise<ResultOf<M>> {
    const { url, timeout_secs = 630 } = this.#options;
    const id = ++this.#last_id;
    let status: number | undefined;
    let answer: unknown;
    try {
      const response = await (this.#options.fetch ?? fetch)(url, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: authorization(this.#options) },
        body: JSON.stringify({ jsonrpc: "2.0", id, method, params: parameters ?? {} }),
        signal: AbortSignal.timeout(timeout_secs * 1000),
      });
      status = response.status;
      answer = parse(await response.text());
    } catch (cause) {
      const words = status === undefined ? "the daemon cannot be reached" : `the answer cannot be understood (HTTP ${status})`;
      throw new NoAnswer(method, `${words}: ${String(cause)}`, status, { cause });
    }
    return outcome(method, id, answer, status);
  }

  /** Every event after a number, oldest first, and then those that come, asked for every `every_secs`. Give the last `seq` that you
   * have dealt with, and nothing is missed over restarts of either side. Ends when `signal` is aborted. */
  async *events(
    options: { after_seq?: number; kinds?: EventKind[]; every_secs?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<Event> {
    let { after_seq = 0 } = options;
    while (!options.signal?.aborted) {
      const kinds = options.kinds === undefined ? {} : { kinds: options.kinds };
      const page = await this.call("event.list", { after_seq, limit: 1000, ...kinds });
      yield* page.items;
      if (page.next_seq === after_seq) {
        await new Promise((resolve) => setTimeout(resolve, (options.every_secs ?? 1) * 1000));
      }
      after_seq = page.next_seq;
    }
  }

  /** Every event after a number, and then those that come, as they come, over a WebSocket; without a number, those that come from now
   * on. A connection that is cut is made again every `retry_secs`, and goes on where it was: nothing is missed and nothing comes twice.
   * Throws `NoAnswer` where the first connection cannot be made, and `Refused` where the daemon will not tell any more: a token that
   * has ended, events that are kept no longer. Ends when `signal` is aborted. A cookie is new at each start of the daemon: whoever is to
   * outlive that shows a token. */
  async *subscribe(
    options: { after_seq?: number; kinds?: EventKind[]; retry_secs?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<Event> {
    const method = "event.subscribe";
    const { kinds, retry_secs = 1, signal } = options;
    let { after_seq } = options;
    let has_begun = false;
    while (!signal?.aborted) {
      const params = { ...(kinds && { kinds }), ...(after_seq !== undefined && { after_seq }) };
      const id = ++this.#last_id;
      const messages = hear(this.#open(), JSON.stringify({ jsonrpc: "2.0", id, method, params }), signal);
      for (;;) {
        const { done, value } = await messages.next();
        if (done) {
          if (!has_begun && !signal?.aborted) {
            throw new NoAnswer(method, value ? "the connection ended before the answer" : "no WebSocket can be opened");
          }
          break;
        }
        const { params: notice } = value;
        const error = value.error ?? (notice !== undefined && "error" in notice ? notice.error : undefined);
        if (error !== undefined) {
          // Behind events of other kinds. Those behind a gap are gone: whoever asked is to know before it goes on.
          const told = error.data?.after_seq;
          if (told !== undefined && error.data?.kind !== "event_gap") {
            after_seq = Math.max(after_seq ?? 0, told);
          }
          const refused = new Refused(method, error.code ?? 0, error.message ?? "", error.data);
          await messages.return(true);
          if (!refused.retryable && refused.kind !== "stopping") {
            throw refused;
          }
          break;
        }
        if (value.id === id && value.result !== undefined) {
          has_begun = true;
          after_seq ??= value.result.after_seq;
        } else if (notice !== undefined && "event" in notice) {
          after_seq = notice.event.seq;
          let is_taken = false;
          try {
            yield notice.event;
            is_taken = true;
          } finally {
            // Whoever leaves the loop leaves the connection.
            if (!is_taken) await messages.return(true);
          }
        }
      }
      if (!signal?.aborted) {
        await new Promise((resolve) => setTimeout(resolve, retry_secs * 1000));
      }
    }
  }

  #open(): Socket {
    const { url, socket, token } = this.#options;
    const address = url.replace(/^http/, "ws");
    const protocols = token === undefined ? [] : ["outrigger", token.trim()];
    return socket === undefined ? new WebSocket(address, protocols) : socket(address, protocols);
  }
}

/** A message of a connection on which both sides speak. */
type Message = {
  id?: unknown;
  result?: ResultOf<"event.subscribe">;
  error?: Partial<Refused>;
  params?: Notifications["event.subscribe"];
};

/** Opens a WebSocket, says one thing, and gives what is heard until it is closed; then whether it was ever open. */
async function* hear(socket: Socket, said: string, signal: AbortSignal | undefined): AsyncGenerator<Message, boolean> {
  const heard: Message[] = [];
  let [is_open, is_over, failure] = [false, false, undefined as unknown];
  let wake = () => {};
  const end = () => {
    is_over = true;
    wake();
  };
  socket.onopen = () => {
    is_open = true;
    socket.send(said);
  };
  socket.onmessage = (message: { data: unknown }) => {
    try {
      heard.push(parse(String(message.data)) as Message);
    } catch (cause) {
      failure = cause;
    }
    wake();
  };
  // What is wrong is told by the close that follows; without a listener Node ends the process.
  socket.onerror = () => {};
  socket.onclose = end;
  signal?.addEventListener("abort", end);
  try {
    for (;;) {
      const message = heard.shift();
      if (message !== undefined) {
        yield message;
      } else if (failure !== undefined) {
        throw failure;
      } else if (is_over) {
        return is_open;
      } else {
        await new Promise<void>((resolve) => (wake = resolve));
      }
    }
  } finally {
    signal?.removeEventListener("abort", end);
    socket.close();
  }
}

/** What an answer says. */
function outcome<M extends MethodName>(method: M, id: number, answer: unknown, status: number): ResultOf<M> {
  const { id: answered, result, error } = Object(answer) as { id?: unknown; result?: unknown; error?: Partial<Refused> };
  if (error !== undefined && typeof error.code === "number") {
    throw new Refused(method, error.code, error.message ?? "", error.data);
  }
  if (answered !== id || typeof result !== "object" || result === null) {
    throw new NoAnswer(method, `the answer is not one to this call (HTTP ${status})`, status);
  }
  return result as ResultOf<M>;
}
