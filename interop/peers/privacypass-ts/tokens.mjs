// Privacy Pass by the package: issuer, client and origin, of both token types (RFC 9577, RFC 9578).
//
// Keys are base64. Public keys are encoded as challenges carry them. A private key of type 2 is PKCS #8; one of type 1
// is the seed that it is derived from, since that is what both sides can read (RFC 9578 §5.5).

import {
  AuthorizationHeader,
  TOKEN_TYPES,
  WWWAuthenticateHeader,
  privateVerif,
  publicVerif,
} from "@cloudflare/privacypass-ts";
import { Oprf, derivePrivateKey, generatePublicKey } from "@cloudflare/voprf-ts";

const MODE = publicVerif.BlindRSAMode.PSS;
const RSA = { name: "RSA-PSS", hash: "SHA-384" };
const SUITE = Oprf.Suite.P384_SHA384;
const KEY_INFO = new TextEncoder().encode("PrivacyPass");
const NAME = "issuer";

export const encode = (bytes) => Buffer.from(bytes).toString("base64");
export const decode = (text) => new Uint8Array(Buffer.from(text, "base64"));

/** What differs between the types. */
const KINDS = {
  1: {
    entry: TOKEN_TYPES.VOPRF,
    client: () => new privateVerif.Client(),
    readRequest: (bytes) => privateVerif.TokenRequest.deserialize(bytes),
    async makeKey() {
      const seed = crypto.getRandomValues(new Uint8Array(48));
      return { private: encode(seed), public: encode((await deriveKeys(seed)).public) };
    },
    async issuer(key) {
      const keys = await deriveKeys(decode(key));
      return new privateVerif.Issuer(NAME, keys.private, keys.public);
    },
    async verify(token, keys) {
      return new privateVerif.Origin().verify(token, (await deriveKeys(decode(keys.private))).private);
    },
  },
  2: {
    entry: TOKEN_TYPES.BLIND_RSA,
    client: () => new publicVerif.Client(MODE),
    readRequest: (bytes) => publicVerif.TokenRequest.deserialize(TOKEN_TYPES.BLIND_RSA, bytes),
    async makeKey() {
      const size = { modulusLength: 2048, publicExponent: Uint8Array.from([1, 0, 1]) };
      const pair = await publicVerif.Issuer.generateKey(MODE, size);
      const secret = new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey));
      return { private: encode(secret), public: encode(await publicVerif.getPublicKeyBytes(pair.publicKey)) };
    },
    async issuer(key) {
      const secret = await crypto.subtle.importKey("pkcs8", decode(key), RSA, true, ["sign"]);
      return new publicVerif.Issuer(MODE, NAME, secret, await publicHalf(secret));
    },
    async verify(token, keys) {
      const spki = publicVerif.convertRSASSAPSSToEnc(decode(keys.public));
      const key = await crypto.subtle.importKey("spki", spki, RSA, true, ["verify"]);
      return new publicVerif.Origin(MODE).verify(token, key);
    },
  },
};

function kindOf(type) {
  const kind = KINDS[type];
  if (kind === undefined) {
    throw new Error(`no token type ${type}`);
  }
  return kind;
}

async function deriveKeys(seed) {
  const secret = await derivePrivateKey(Oprf.Mode.VOPRF, SUITE, seed, KEY_INFO);
  return { private: secret, public: generatePublicKey(SUITE, secret) };
}

async function publicHalf(secret) {
  const { n, e } = await crypto.subtle.exportKey("jwk", secret);
  return crypto.subtle.importKey("jwk", { kty: "RSA", alg: "PS384", n, e }, RSA, true, ["verify"]);
}

/** Make an issuer's key. */
export function makeKey(type) {
  return kindOf(type).makeKey();
}

/** What a client makes of a challenge: a request for the issuer, and what finishes its answer. */
export async function request(type, field) {
  const kind = kindOf(type);
  const offer = WWWAuthenticateHeader.parse(field).find((found) => found.challenge.tokenType === type);
  if (offer === undefined) {
    throw new Error(`no challenge of type ${type} in the field`);
  }
  const client = kind.client();
  const asked = await client.createTokenRequest(offer.challenge, offer.tokenKey);
  const finish = async (bytes) => {
    const token = await client.finalize(client.deserializeTokenResponse(bytes));
    return new AuthorizationHeader(token).toString(true);
  };
  return { bytes: asked.serialize(), finish };
}

/** What an issuer answers. */
export async function answer(type, bytes, key) {
  const kind = kindOf(type);
  const issuer = await kind.issuer(key);
  return (await issuer.issue(kind.readRequest(bytes))).serialize();
}

/** What an origin says of credentials. */
export async function verify(type, credentials, keys) {
  const kind = kindOf(type);
  const [found] = AuthorizationHeader.parse(kind.entry, credentials);
  if (found === undefined) {
    throw new Error("no token in the credentials");
  }
  return kind.verify(found.token, keys);
}
