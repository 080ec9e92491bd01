// `oidc-provider` as a server that a person agrees at, and `oauth2-mock-server`, on free ports.
//
// Whoever comes with a browser is Ada, who agrees to everything. Each line of standard input is a question, answered
// by one line: `{"do": ..., "value": ...}`. Where standard input ends, so does this.

import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

import { OAuth2Server } from "oauth2-mock-server";
import Provider from "oidc-provider";

console.info = console.log = console.error;

const SCOPE = "orders:read orders:write";
// What goes wrong at the token endpoint, once, and whether the server has done its work by then.
let fault = null;
const HANGS_MS = 20_000;
// Longer than a hiccup, shorter than the edge waits.
const SLOW_MS = 2_000;
// Every token, code and form that must not be found anywhere else.
const issued = [];
const asked = [];
let provider;

const server = createServer((request, response) => {
  if (request.url.startsWith("/interaction/")) return agree(request, response);
  return provider.callback()(request, response);
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;

async function agree(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === "login") {
    const told = { login: { accountId: "ada" } };
    return provider.interactionFinished(request, response, told, { mergeWithLastSubmission: false });
  }
  if (params.ui_locales === "no") {
    const told = { error: "access_denied", error_description: "canary-description" };
    return provider.interactionFinished(request, response, told, { mergeWithLastSubmission: false });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const told = { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, told, { mergeWithLastSubmission: true });
}

function build({ clients, redirect, life }) {
  provider = new Provider(issuer, {
    clients: clients.map((client) => ({ ...client, redirect_uris: [redirect] })),
    scopes: SCOPE.split(" "),
    cookies: { keys: ["k"] },
    ttl: { AccessToken: life, RefreshToken: 3600, AuthorizationCode: 60, Grant: 3600, Session: 3600, Interaction: 600 },
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: (_context, client) => client.grantTypeAllowed("refresh_token"),
    rotateRefreshToken: true,
    pkce: { methods: ["S256"], required: () => true },
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
  });
  provider.use(async (context, next) => {
    const token = context.path === "/token" && context.method === "POST";
    const now = token ? fault : null;
    if (now) fault = null;
    if (now === "refused") return Object.assign(context, { status: 400, body: { error: "invalid_grant" } });
    if (now === "down") return Object.assign(context, { status: 503, body: "canary-down" });
    await next();
    if (now === "slow" || now === "hangs") {
      await new Promise((wake) => setTimeout(wake, now === "slow" ? SLOW_MS : HANGS_MS).unref());
    }
    if (context.path.startsWith("/token") && context.oidc?.params) {
      asked.push({ path: context.path, form: { ...context.oidc.params }, status: context.status });
      if (context.body?.access_token) issued.push({ ...context.body });
    }
    if (now === "html") context.body = "<html>";
    if (now === "mac") context.body = { ...context.body, token_type: "mac" };
  });
  provider.on("server_error", (_context, error) => console.error(error));
}

const mock = new OAuth2Server();
await mock.issuer.keys.generate("RS256");
await mock.start(0, "127.0.0.1");
mock.issuer.url = `http://127.0.0.1:${mock.address().port}`;
mock.service.on("beforeResponse", (answer) => issued.push({ ...answer.body }));

const questions = {
  configure(value) {
    build(value);
    return { oidc: issuer, mock: mock.issuer.url };
  },
  fault(value) {
    fault = value;
    return value;
  },
  issued: () => issued,
  asked: () => asked,
};
for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, value } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await questions[name](value))}\n`);
}
process.exit(0);
