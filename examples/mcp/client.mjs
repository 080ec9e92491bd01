// What `client.py` does, with the official TypeScript SDK: MCP_URL and MCP_TOKEN say where and as whom.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const client = new Client({ name: "example", version: "1.0.0" });
const transport = new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), {
  requestInit: { headers: { Authorization: `Bearer ${process.env.MCP_TOKEN}` } },
});
await client.connect(transport);

const { tools } = await client.listTools();
console.log("tools:", tools.map((tool) => tool.name).join(", "));
const found = await client.callTool({ name: "search", arguments: { word: "edge" } });
console.log("search:", found.content[0].text);
try {
  await client.callTool({ name: "delete", arguments: { word: "edge" } });
} catch (refused) {
  // The SDK puts the answer of the edge, an error of JSON-RPC, behind words of its own.
  const { data } = JSON.parse(refused.message.slice(refused.message.indexOf("{"))).error;
  console.log("delete:", data.error, data.missing.scopes);
}
await transport.terminateSession();
await client.close();
