// A server with the tools, resources and prompts that the MCP conformance suite asks for, of the official TypeScript
// SDK. Asked on standard input, it says its `address` and its `tools`; where that ends, so does it.

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import * as types from "@modelcontextprotocol/sdk/types.js";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==";
const WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==";

const text = (told) => ({ type: "text", text: told });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const resource = (uri, told, mimeType = "text/plain") => ({ type: "resource", resource: { uri, mimeType, text: told } });
const choices = (...names) => names.map((name) => ({ const: name, title: `The ${name}` }));

// What each tool does; `more` is what the SDK gives a handler beside the request.
const TOOLS = {
  test_simple_text: () => [text("simple")],
  test_image_content: () => [image],
  test_audio_content: () => [{ type: "audio", data: WAV, mimeType: "audio/wav" }],
  test_embedded_resource: () => [resource("test://embedded-resource", "embedded")],
  test_multiple_content_types: () => [text("mixed"), image, resource("test://mixed-content-resource", "{}", "application/json")],
  async test_tool_with_logging(_given, more) {
    for (const data of ["begins", "goes on", "ends"]) {
      await more.sendNotification({ method: "notifications/message", params: { level: "info", data } });
    }
    return [text("logged")];
  },
  async test_tool_with_progress(_given, more) {
    const { progressToken } = more._meta ?? {};
    for (const progress of progressToken === undefined ? [] : [0, 50, 100]) {
      await more.sendNotification({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
    }
    return [text("done")];
  },
  test_error_handling() {
    throw new Error("it always fails");
  },
  // Its answer is for whoever comes back for it.
  async test_reconnection(_given, more) {
    more.closeSSEStream?.();
    await sleep(50);
    return [text("resumed")];
  },
  async test_sampling({ prompt }, more) {
    const params = { messages: [{ role: "user", content: text(prompt) }], maxTokens: 100 };
    const told = await more.sendRequest({ method: "sampling/createMessage", params }, types.CreateMessageResultSchema);
    return [text(JSON.stringify(told.content))];
  },
  test_elicitation: ({ message }, more) =>
    elicit(more, message, { username: { type: "string" }, email: { type: "string" } }),
  test_elicitation_sep1034_defaults: (_given, more) =>
    elicit(more, "defaults", {
      name: { type: "string", default: "John Doe" },
      age: { type: "integer", default: 30 },
      score: { type: "number", default: 95.5 },
      status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
      verified: { type: "boolean", default: true },
    }),
  test_elicitation_sep1330_enums: (_given, more) =>
    elicit(more, "enums", {
      untitledSingle: { type: "string", enum: ["option1", "option2", "option3"] },
      titledSingle: { type: "string", oneOf: choices("value1", "value2", "value3") },
      legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["One", "Two", "Three"] },
      untitledMulti: { type: "array", items: { type: "string", enum: ["option1", "option2", "option3"] } },
      titledMulti: { type: "array", items: { anyOf: choices("value1", "value2", "value3") } },
    }),
  json_schema_2020_12_tool: () => [text("unused")],
};

async function elicit(more, message, properties) {
  const params = { message, requestedSchema: { type: "object", properties } };
  const told = await more.sendRequest({ method: "elicitation/create", params }, types.ElicitResultSchema);
  return [text(JSON.stringify(told))];
}

const SCHEMAS = {
  json_schema_2020_12_tool: {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    $defs: { address: { type: "object", properties: { street: { type: "string" }, city: { type: "string" } } } },
    properties: { name: { type: "string" }, address: { $ref: "#/$defs/address" } },
    additionalProperties: false,
  },
};

const RESOURCES = {
  "test://static-text": { mimeType: "text/plain", text: "text" },
  "test://static-binary": { mimeType: "image/png", blob: PNG },
  "test://watched-resource": { mimeType: "text/plain", text: "watched" },
};

const PROMPTS = {
  test_simple_prompt: { says: () => [text("simple")] },
  test_prompt_with_arguments: { takes: ["arg1", "arg2"], says: ({ arg1, arg2 }) => [text(`${arg1}, ${arg2}`)] },
  test_prompt_with_embedded_resource: { takes: ["resourceUri"], says: ({ resourceUri }) => [resource(resourceUri, "embedded")] },
  test_prompt_with_image: { says: () => [image, text("look")] },
};

function server() {
  const capabilities = { tools: {}, resources: { subscribe: true }, prompts: {}, logging: {}, completions: {} };
  const made = new Server({ name: "conformance", version: "1" }, { capabilities });
  const answers = [
    [types.ListToolsRequestSchema, () => ({
      tools: Object.keys(TOOLS).map((name) => ({ name, description: name, inputSchema: SCHEMAS[name] ?? { type: "object" } })),
    })],
    [types.CallToolRequestSchema, async ({ params }, more) => {
      try {
        return { content: await TOOLS[params.name](params.arguments ?? {}, more) };
      } catch (error) {
        return { isError: true, content: [text(error.message)] };
      }
    }],
    [types.ListResourcesRequestSchema, () => ({ resources: Object.keys(RESOURCES).map((uri) => ({ uri, name: uri })) })],
    [types.ListResourceTemplatesRequestSchema, () => ({
      resourceTemplates: [{ uriTemplate: "test://template/{id}/data", name: "template" }],
    })],
    [types.ReadResourceRequestSchema, ({ params: { uri } }) => ({
      contents: [{ uri, ...(RESOURCES[uri] ?? { mimeType: "text/plain", text: `from ${uri}` }) }],
    })],
    [types.SubscribeRequestSchema, () => ({})],
    [types.UnsubscribeRequestSchema, () => ({})],
    [types.ListPromptsRequestSchema, () => ({
      prompts: Object.entries(PROMPTS).map(([name, { takes = [] }]) => ({
        name,
        description: name,
        arguments: takes.map((argument) => ({ name: argument, description: argument, required: true })),
      })),
    })],
    [types.GetPromptRequestSchema, ({ params }) => ({
      messages: PROMPTS[params.name].says(params.arguments ?? {}).map((content) => ({ role: "user", content })),
    })],
    [types.CompleteRequestSchema, () => ({ completion: { values: ["test"] } })],
  ];
  for (const [schema, answer] of answers) made.setRequestHandler(schema, answer);
  return made;
}

// Numbers events, so that a stream which broke off can be taken up again.
class Events {
  events = [];

  async storeEvent(stream, message) {
    this.events.push({ stream, message });
    return String(this.events.length - 1);
  }

  async getStreamIdForEventId(id) {
    return this.events[Number(id)]?.stream;
  }

  async replayEventsAfter(id, { send }) {
    const { stream } = this.events[Number(id)];
    for (const [at, event] of this.events.entries()) {
      // The first of a stream is empty: it only gives a place to come back to.
      if (at > Number(id) && event.stream === stream && event.message.jsonrpc) await send(String(at), event.message);
    }
    return stream;
  }
}

const sessions = new Map();

async function session(request) {
  const known = sessions.get(request.headers["mcp-session-id"]);
  if (known) return known;
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new Events(),
    retryInterval: 100,
    onsessioninitialized: (id) => sessions.set(id, transport),
  });
  await server().connect(transport);
  return transport;
}

const local = (url) => ["127.0.0.1", "localhost"].includes(new URL(url).hostname);

const listener = createServer(async (request, response) => {
  const { host, origin } = request.headers;
  // Whoever was led here by another name is a browser that was deceived.
  if (!local(`http://${host}`) || (origin && !local(origin))) {
    response.writeHead(403).end();
    return;
  }
  await (await session(request)).handleRequest(request, response);
});
listener.listen(0, "127.0.0.1");
await once(listener, "listening");
for await (const question of createInterface({ input: process.stdin })) {
  const answers = { address: `127.0.0.1:${listener.address().port}`, tools: Object.keys(TOOLS) };
  console.log(JSON.stringify(answers[question]));
}
process.exit(0);
