// The driver: requests from standard input, one JSON object to a line, and answers to standard output.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { answer, decode, encode, makeKey, request, verify } from "./tokens.mjs";

const tickets = new Map();

const VERBS = {
  async token_key({ type }) {
    return makeKey(type);
  },
  async token_request({ type, challenge }) {
    const { bytes, finish } = await request(type, challenge);
    const ticket = tickets.size + 1;
    tickets.set(ticket, finish);
    return { ticket, request: encode(bytes) };
  },
  async token_finish({ ticket, response }) {
    const finish = tickets.get(ticket);
    if (finish === undefined) {
      throw new Error(`no ticket ${ticket}`);
    }
    tickets.set(ticket, undefined);
    return { credentials: await finish(decode(response)) };
  },
  async token_answer({ type, request: asked, private: key }) {
    return { response: encode(await answer(type, decode(asked), key)) };
  },
  async token_verify({ type, credentials, private: secret, public: key }) {
    return { valid: await verify(type, credentials, { private: secret, public: key }) };
  },
  async close() {
    return {};
  },
};

async function obey(line) {
  const { id, verb, ...rest } = JSON.parse(line);
  try {
    const action = VERBS[verb];
    if (action === undefined) {
      throw new Error(`no verb ${verb}`);
    }
    say({ id, ok: await action(rest) });
  } catch (error) {
    say({ id, error: String(error?.message ?? error) });
  }
}

function say(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

function versionOf(name) {
  const file = new URL(`./node_modules/${name}/package.json`, import.meta.url);
  return `${name.split("/")[1]} ${JSON.parse(readFileSync(file, "utf8")).version}`;
}

const packages = ["@cloudflare/privacypass-ts", "@cloudflare/blindrsa-ts", "@cloudflare/voprf-ts"];
say({ peer: "privacypass-ts", version: packages.map(versionOf).join(", "), features: ["tokens"] });
for await (const line of createInterface({ input: process.stdin })) {
  void obey(line);
}
