// A client of the official TypeScript SDK for MCP. Each line of standard input is a step, `{"do": ..., ...}`, answered
// by one line: what it gave, or `{"error": ...}`, what the SDK threw. Where standard input ends, so does this.

import { createInterface } from "node:readline";

import { discoverOAuthProtectedResourceMetadata, extractWWWAuthenticateParams } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

let client, transport, underWay, giveUp;

const text = (result) => result.content.map((part) => part.text).join("");
const thrown = ({ name, code, message, data }) => ({ error: { class: name, code, message, data } });

// Calls a tool and tells its progress; `began` is called with the first of it.
async function call({ name, with: given = {} }, began = () => {}, signal = undefined) {
  const told = [];
  const onprogress = ({ progress }) => {
    told.push(progress);
    began();
  };
  const result = await client.callTool({ name, arguments: given }, undefined, { onprogress, signal });
  return { text: text(result), progress: told };
}

const steps = {
  async connect({ url, mandate }) {
    const headers = { Authorization: `Bearer ${mandate}` };
    client = new Client({ name: "interop", version: "1" });
    transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
    client.onerror = (error) => console.error(error);
    await client.connect(transport);
    return { server: client.getServerVersion().name, session: transport.sessionId ?? null };
  },
  tools: async () => (await client.listTools()).tools.map((tool) => tool.name),
  resources: async () => (await client.listResources()).resources,
  prompts: async () => (await client.listPrompts()).prompts,
  call: (step) => call(step),
  // Answered when the tool has told of itself.
  async begin(step) {
    const controller = new AbortController();
    giveUp = () => controller.abort("no longer needed");
    await new Promise((began, failed) => {
      underWay = call(step, began, controller.signal).catch(thrown);
      underWay.then(failed);
    });
    return "began";
  },
  async abort() {
    giveUp();
    return underWay;
  },
  async terminate() {
    await transport.terminateSession();
    return { session: transport.sessionId ?? null };
  },
  // The SDK's own search for the authority stops at one without an authorization page, so the last step is a plain one.
  async discover({ url }) {
    const refused = await fetch(url, { method: "POST" });
    const { resourceMetadataUrl } = extractWWWAuthenticateParams(refused);
    const resource = await discoverOAuthProtectedResourceMetadata(url, { resourceMetadataUrl });
    const [issuer] = resource.authorization_servers;
    const authority = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json();
    return { at: resourceMetadataUrl, resource, authority };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  const answer = await steps[step.do](step).catch(thrown);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
