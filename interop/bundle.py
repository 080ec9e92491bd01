"""What the edge under test is told: a zone with a resource for each upstream, and an empty zone beside it."""

from __future__ import annotations

BUNDLE = """\
schema = 1

[zone]
id = "{zone}"
name = "Interop"

[[applications]]
id = "{application}"
name = "Agent"
secrets = ["sha256${hashed}"]

[[providers]]
identifier = "provider://echo-key"
kind = "api_key"
location = "header"
header_name = "X-Api-Key"
secret = "secret://echo/api_key"

[[providers]]
identifier = "provider://mandate"
kind = "caracal_mandate"

[[providers]]
identifier = "provider://openai"
kind = "bearer_token"
secret = "secret://apis/key"

[[providers]]
identifier = "provider://anthropic"
kind = "api_key"
location = "header"
header_name = "X-Api-Key"
secret = "secret://apis/key"

[[providers]]
identifier = "provider://azure"
kind = "api_key"
location = "header"
header_name = "Api-Key"
secret = "secret://apis/key"

[[providers]]
identifier = "provider://bearer"
kind = "bearer_token"
secret = "secret://apis/key"
# GitHub's clients can put a mandate into the password of Basic credentials.
key_slots = [{{ basic = "password" }}]

[[resources]]
identifier = "resource://echo"
upstream_url = "http://{echo}"
scopes = ["echo:read", "echo:write"]
credential_provider = "provider://echo-key"
operation_enforcement = "enforced"
operations = [
    {{ method = "GET", path = "/read/**", scope = "echo:read" }},
    {{ method = "POST", path = "/write/**", scope = "echo:write" }},
]
prefixes = ["/echo"]
plugins = [{{ name = "response_scrub" }}]

[[resources]]
identifier = "resource://app"
upstream_url = "http://{app}"
scopes = ["app:use"]
credential_provider = "provider://mandate"
operation_enforcement = "transport_uniform"

[[resources]]
identifier = "resource://vault"
upstream_url = "http://{app}"
scopes = ["vault:open"]
credential_provider = "provider://mandate"
operation_enforcement = "transport_uniform"

[[resources]]
identifier = "resource://files"
upstream_url = "http://{echo}"
scopes = ["files:use"]
credential_provider = "provider://echo-key"
operation_enforcement = "transport_uniform"

[[resources]]
identifier = "resource://openai"
upstream_url = "http://{apis}"
scopes = ["model:use"]
credential_provider = "provider://openai"
operation_enforcement = "enforced"
operations = [{{ method = "POST", path = "/v1/chat/completions", scope = "model:use" }}]
prefixes = ["/openai"]
plugins = [{{ name = "response_scrub" }}]

[[resources]]
identifier = "resource://anthropic"
upstream_url = "http://{apis}"
scopes = ["model:use"]
credential_provider = "provider://anthropic"
operation_enforcement = "enforced"
operations = [{{ method = "POST", path = "/v1/messages", scope = "model:use" }}]
prefixes = ["/anthropic"]
reusable_mandates = true

[[resources]]
identifier = "resource://sockets"
upstream_url = "http://{sockets}"
scopes = ["socket:use"]
credential_provider = "provider://echo-key"
operation_enforcement = "enforced"
operations = [
    {{ method = "GET", path = "/chat", scope = "socket:use" }},
    {{ method = "GET", path = "/flood", scope = "socket:use" }},
]
prefixes = ["/sockets"]

[[resources]]
identifier = "resource://azure"
upstream_url = "http://{apis}"
scopes = ["model:use"]
credential_provider = "provider://azure"
operation_enforcement = "enforced"
operations = [
    {{ method = "POST", path = "/openai/deployments/{{deployment}}/chat/completions", scope = "model:use" }},
]
prefixes = ["/azure"]

[[resources]]
identifier = "resource://stripe"
upstream_url = "http://{apis}"
scopes = ["stripe:use"]
credential_provider = "provider://bearer"
operation_enforcement = "enforced"
operations = [
    {{ method = "GET", path = "/v1/customers", scope = "stripe:use" }},
    {{ method = "POST", path = "/v1/customers", scope = "stripe:use" }},
    {{ method = "POST", path = "/v1/charges", scope = "stripe:use" }},
    {{ method = "GET", path = "/v1/quotes/{{quote}}/pdf", scope = "stripe:use" }},
]
prefixes = ["/stripe"]
reusable_mandates = true
error_format = "object"

[[resources]]
identifier = "resource://github"
upstream_url = "http://{apis}"
scopes = ["github:use"]
credential_provider = "provider://bearer"
operation_enforcement = "enforced"
operations = [
    {{ method = "GET", path = "/user", scope = "github:use" }},
    {{ method = "GET", path = "/repos/{{owner}}/{{repo}}", scope = "github:use" }},
    {{ method = "GET", path = "/repos/{{owner}}/{{repo}}/issues", scope = "github:use" }},
    {{ method = "GET", path = "/repositories/{{id}}/issues", scope = "github:use" }},
    {{ method = "POST", path = "/repos/{{owner}}/{{repo}}/issues", scope = "github:use" }},
]
prefixes = ["/github"]
reusable_mandates = true

[[resources]]
identifier = "resource://slack"
upstream_url = "http://{apis}"
scopes = ["slack:use"]
credential_provider = "provider://bearer"
operation_enforcement = "enforced"
operations = [
    {{ method = "POST", path = "/api/chat.postMessage", scope = "slack:use" }},
    {{ method = "POST", path = "/api/conversations.list", scope = "slack:use" }},
]
prefixes = ["/slack"]
reusable_mandates = true

[[resources]]
identifier = "resource://mcp"
upstream_url = "http://{mcp}"
scopes = ["mcp:use"]
credential_provider = "provider://bearer"
operation_enforcement = "enforced"
operations = [{{ method = "*", path = "/mcp", scope = "mcp:use" }}]
prefixes = ["/mcp"]
reusable_mandates = true

# The same server, tool by tool.
[[resources]]
identifier = "resource://tools"
upstream_url = "http://{mcp}"
scopes = ["tools:connect", "tools:add", "tools:count"]
credential_provider = "provider://bearer"
prefixes = ["/tools"]
reusable_mandates = true

[resources.mcp]
path = "/mcp"
scope = "tools:connect"
tools = [{{ name = "add", scope = "tools:add" }}, {{ name = "count", scope = "tools:count" }}]

[app_ids]
main = "{application}"

[grants."resource://echo"]
application = "main"
roles = {{ {application} = ["echo:read"] }}

[grants."resource://app"]
application = "main"
roles = {{ {application} = ["app:use"] }}

[grants."resource://files"]
application = "main"
roles = {{ {application} = ["files:use"] }}

[grants."resource://openai"]
application = "main"
roles = {{ {application} = ["model:use"] }}

[grants."resource://anthropic"]
application = "main"
roles = {{ {application} = ["model:use"] }}

[grants."resource://sockets"]
application = "main"
roles = {{ {application} = ["socket:use"] }}

[grants."resource://azure"]
application = "main"
roles = {{ {application} = ["model:use"] }}

[grants."resource://stripe"]
application = "main"
roles = {{ {application} = ["stripe:use"] }}

[grants."resource://github"]
application = "main"
roles = {{ {application} = ["github:use"] }}

[grants."resource://slack"]
application = "main"
roles = {{ {application} = ["slack:use"] }}

[grants."resource://tools"]
application = "main"
roles = {{ {application} = ["tools:connect", "tools:add", "tools:count"] }}

[grants."resource://mcp"]
application = "main"
roles = {{ {application} = ["mcp:use"] }}
"""

ELSEWHERE = """\
schema = 1

[zone]
id = "elsewhere"
name = "Another zone"
"""
