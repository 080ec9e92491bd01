// Two authorization servers that other people wrote, `oidc-provider` and `oauth2-mock-server`, on free ports.
//
// The first line of standard input configures them; each further line is a question, answered by one line. Where
// standard input ends, so does this.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";

import { createLocalJWKSet, jwtVerify } from "jose";
import { OAuth2Server } from "oauth2-mock-server";
import Provider, { errors } from "oidc-provider";

const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
// An issuer with a path, as those of tenants have.
const MOUNT = "/tenant";

// Standard output is for answers; the servers have notices of their own.
console.info = console.log = console.error;

const issued = [];
let made = 0;

function signingKey() {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  made += 1;
  return { ...privateKey.export({ format: "jwk" }), kid: `peer-${made}`, alg: "ES256", use: "sig" };
}

class OidcProvider {
  constructor(configuration) {
    this.configuration = configuration;
    this.keys = [signingKey()];
  }

  async listen() {
    const server = createServer((request, response) => {
      if (!request.url.startsWith(`${MOUNT}/`)) {
        response.writeHead(404).end();
        return;
      }
      request.originalUrl = request.url;
      request.url = request.url.slice(MOUNT.length);
      this.answer(request, response);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    this.issuer = `http://127.0.0.1:${server.address().port}${MOUNT}`;
    this.build();
  }

  // Again with every change of its keys; what it has issued outlives that.
  build() {
    const { clients, resources, scopes } = this.configuration;
    const provider = new Provider(this.issuer, {
      clients,
      scopes,
      jwks: { keys: this.keys },
      clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
      enabledJWA: { clientAuthSigningAlgValues: ["RS256", "ES256", "ES384", "ES512"] },
      clientDefaults: {
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
        id_token_signed_response_alg: "ES256",
      },
      ttl: { ClientCredentials: (_context, token) => token.resourceServer?.accessTokenTTL ?? 600 },
      features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: false },
        introspection: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => undefined,
          getResourceServerInfo(_context, identifier) {
            const known = resources[identifier];
            if (!known) throw new errors.InvalidTarget();
            return {
              scope: scopes.join(" "),
              audience: identifier,
              accessTokenTTL: known.ttl,
              accessTokenFormat: known.format,
              jwt: { sign: { alg: "ES256" } },
            };
          },
        },
      },
    });
    // It verifies assertions that prove a client itself, but has no grant for those that ask for a token (RFC 7523).
    const grant = async (context, next) => {
      const { client, params } = context.oidc;
      const expected = { issuer: client.clientId, audience: `${this.issuer}/token`, requiredClaims: ["sub", "exp"] };
      try {
        await jwtVerify(params.assertion, createLocalJWKSet(client.jwks), expected);
      } catch (error) {
        throw new errors.InvalidGrant(error.message);
      }
      const token = new provider.ClientCredentials({ client, scope: params.scope });
      const value = await token.save();
      context.body = { access_token: value, expires_in: token.expiration, token_type: token.tokenType };
      await next();
    };
    provider.registerGrantType(JWT_BEARER, grant, ["assertion", "scope"]);
    // Servers that take such assertions know the client by the assertion's issuer; this one wants its name.
    provider.use(async (context, next) => {
      if (context.path === "/token" && context.method === "POST") {
        const form = new URLSearchParams(await text(context.req));
        const [, claims] = (form.get("assertion") ?? "").split(".");
        if (claims && !form.has("client_id") && !context.get("authorization")) {
          form.set("client_id", JSON.parse(Buffer.from(claims, "base64url")).iss);
        }
        context.req.body = form.toString();
      }
      await next();
    });
    provider.on("grant.success", (context) => {
      const form = { ...context.oidc.params };
      issued.push({ server: this.issuer, client: context.oidc.client.clientId, form, answer: context.body });
    });
    provider.on("server_error", (_context, error) => console.error(error));
    this.answer = provider.callback();
  }
}

async function mockServer() {
  const server = new OAuth2Server();
  await server.issuer.keys.generate("RS256");
  await server.start(0, "127.0.0.1");
  server.issuer.url = `http://127.0.0.1:${server.address().port}`;
  // As the servers do that take `audience`: no two tokens are the same; and a life of its own for who asks.
  server.service.on("beforeTokenSigning", (token, request) => {
    Object.assign(token.payload, { aud: request.body.audience, jti: randomUUID() });
    if (request.body.life) token.payload.exp = token.payload.iat + Number(request.body.life);
  });
  server.service.on("beforeResponse", (answer, request) => {
    if (request.body.life) answer.body.expires_in = Number(request.body.life);
    const [, basic] = (request.headers.authorization ?? "").split(" ");
    const shown = basic && Buffer.from(basic, "base64").toString();
    const client = shown ?? request.body.client_id;
    issued.push({ server: server.issuer.url, client, form: { ...request.body }, answer: answer.body });
  });
  return server;
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const oidc = new OidcProvider(JSON.parse((await lines.next()).value));
await oidc.listen();
const mock = await mockServer();
say({ oidc: oidc.issuer, mock: mock.issuer.url });

const questions = {
  issued: () => issued,
  // New keys sign; what the old ones signed stays good.
  async rotate() {
    oidc.keys.unshift(signingKey());
    oidc.build();
    await mock.issuer.keys.generate("ES256");
    return oidc.keys.map((key) => key.kid);
  },
  // Only the newest key stays.
  withdraw() {
    oidc.keys = oidc.keys.slice(0, 1);
    oidc.build();
    return oidc.keys.map((key) => key.kid);
  },
};

for await (const line of lines) say(await questions[line]());
process.exit(0);
