// The OpenRPC document before the meta-schema of OpenRPC.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";

import { Ajv } from "ajv";

// What these packages hold, and what their types say of it, differ.
const require = createRequire(import.meta.url);
const { openrpcDocument } = require("@open-rpc/meta-schema") as { openrpcDocument: object };
const { jsonSchema } = require("@json-schema-tools/meta-schema") as { jsonSchema: object };

/** The document, from build/test where this runs. */
const document = readFileSync(new URL("../../../../rpc-schema/openrpc.json", import.meta.url), "utf8");

function validator() {
  const ajv = new Ajv({ strict: false, validateFormats: false });
  // Both name as their dialect the second one, which is draft 7 under another name; ajv knows draft 7 only by its own.
  const { $schema: _, ...openrpc } = openrpcDocument as { $schema: string };
  const { $schema: __, ...schemas } = jsonSchema as { $schema: string };
  ajv.addSchema(schemas, "https://meta.json-schema.tools");
  return ajv.compile(openrpc);
}

test("rpc_11: the document is valid against the meta-schema of OpenRPC", () => {
  const validate = validator();
  assert.ok(validate(JSON.parse(document)), JSON.stringify(validate.errors));
});

test("the meta-schema finds what is wrong with a document", () => {
  const validate = validator();
  const faults: [string, (document: any) => void][] = [
    ["no version", (document) => delete document.info.version],
    ["a version of OpenRPC that there is not", (document) => (document.openrpc = "9.9.9")],
    ["parameters that are no list", (document) => (document.methods[0].params = {})],
    ["a field that OpenRPC does not know", (document) => (document.methods[0].verb = "node")],
    ["a result without a schema", (document) => delete document.methods[0].result.schema],
    ["a schema of a type that there is not", (document) => (document.methods[0].result.schema.type = "money")],
    ["errors that are no list", (document) => (document.methods[0].errors = {})],
    ["an error of a method that tells nothing", (document) => document.methods[0].errors.push({ kind: "internal" })],
    ["an error without a code", (document) => delete document.components.errors.internal.code],
    ["an example without parameters", (document) => delete document.methods[0].examples[0].params],
  ];
  for (const [words, spoil] of faults) {
    const spoilt = JSON.parse(document);
    spoil(spoilt);
    assert.ok(!validate(spoilt), words);
  }
});
