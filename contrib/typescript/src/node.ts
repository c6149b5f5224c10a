// Finding a daemon from Node: by the files that it leaves in the directory of its network.

import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";

import { Outrigger } from "./client.js";

/**
 * A client of the daemon whose network directory this is; `~/.outrigger/signet` without one. Where the port speaks TLS, start Node with
 * `NODE_EXTRA_CA_CERTS` naming the authority that signed the daemon's certificate.
 */
export async function connect(directory = join(homedir(), ".outrigger", "signet")): Promise<Outrigger> {
  const [address, cookie] = await Promise.all([
    readFile(join(directory, "rpc_address"), "utf8"),
    readFile(join(directory, ".cookie"), "utf8"),
  ]);
  const found = address.trim();
  return new Outrigger({ url: found.startsWith("https://") ? found : `http://${found}`, cookie });
}
