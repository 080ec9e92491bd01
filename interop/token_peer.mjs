// oidc-provider, a certified authorization server, on a free loopback port. Prints its issuer once it listens.
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const input = JSON.parse(process.argv[2]);
const server = createServer((request, response) => handler(request, response));
let handler;
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const client = (id, more) => ({
    client_id: id,
    grant_types: ["client_credentials"],
    response_types: [],
    redirect_uris: [],
    scope: "crm.read",
    ...more,
  });
  const provider = new Provider(issuer, {
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
    scopes: ["crm.read"],
    clients: [
      client("edge basic", { client_secret: input.secret, token_endpoint_auth_method: "client_secret_basic" }),
      client("edge-post", { client_secret: input.secret, token_endpoint_auth_method: "client_secret_post" }),
      ...["RS256", "ES256"].map((alg) =>
        client(`edge-${alg}`, {
          token_endpoint_auth_method: "private_key_jwt",
          token_endpoint_auth_signing_alg: alg,
          jwks: { keys: [input.keys[alg]] },
        }),
      ),
    ],
  });
  handler = provider.callback();
  console.log(issuer);
});
