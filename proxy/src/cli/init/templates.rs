//! What `caracal init` writes. The texts lie in `templates/`, as they will be read.

use std::path::Path;

use super::Case;

/// What a case is made of.
pub(super) struct Template {
    zones_table: &'static str,
    pub(super) secrets: &'static str,
    pub(super) zones: &'static [ZoneTemplate],
    resource: &'static str,
    scope: &'static str,
    request: [&'static str; 2],
}

/// One zone's bundle: a folder, or one file where there is only a head.
pub(super) struct ZoneTemplate {
    id: &'static str,
    pub(super) application: &'static str,
    head: &'static str,
    documents: &'static [(&'static str, &'static str)],
}

impl Template {
    /// The text of `caracal.toml`.
    pub(super) fn config(&self) -> String {
        format!("{}{}", include_str!("templates/caracal.toml"), self.zones_table)
    }

    /// The arguments of a first governed call.
    pub(super) fn call(&self, folder: &Path) -> Vec<String> {
        let Some(zone) = self.zones.first() else { return Vec::new() };
        let config = folder.join("caracal.toml").display().to_string();
        let secret = folder.join(format!("{}.secret", zone.application)).display().to_string();
        let [method, path] = self.request;
        let line = ["call", "--config", &config, "--app", zone.application, "--secret-file", &secret];
        let what = ["--resource", self.resource, "--scope", self.scope, method, path];
        line.into_iter().chain(what).map(str::to_owned).collect()
    }
}

impl ZoneTemplate {
    /// The files of the bundle with their places below the folder of `caracal.toml`.
    pub(super) fn files(&self, hash: &str) -> Vec<(String, String)> {
        let filled = |text: &str| text.replace("@HASH@", hash).replace("@ZONE@", self.id);
        if self.documents.is_empty() {
            return vec![(format!("bundles/{}.toml", self.id), filled(self.head))];
        }
        let documents = self.documents.iter().copied();
        std::iter::once(("zone.toml", self.head))
            .chain(documents)
            .map(|(name, text)| (format!("bundles/{}/{name}", self.id), filled(text)))
            .collect()
    }
}

/// The documents of a bundle that is a folder, from the folder of its template.
macro_rules! documents {
    ($folder:literal) => {
        &[
            ("applications.toml", include_str!(concat!("templates/", $folder, "/applications.toml"))),
            ("providers.toml", include_str!(concat!("templates/", $folder, "/providers.toml"))),
            ("resources.toml", include_str!(concat!("templates/", $folder, "/resources.toml"))),
            ("policies/grants.toml", include_str!(concat!("templates/", $folder, "/policies/grants.toml"))),
            ("tests/grants.toml", include_str!(concat!("templates/", $folder, "/tests/grants.toml"))),
        ]
    };
}

const API: ZoneTemplate = ZoneTemplate {
    id: "team",
    application: "my-agent",
    head: include_str!("templates/api/zone.toml"),
    documents: documents!("api"),
};

const MCP: ZoneTemplate = ZoneTemplate {
    id: "team",
    application: "my-agent",
    head: include_str!("templates/mcp/zone.toml"),
    documents: documents!("mcp"),
};

const DELEGATION: ZoneTemplate = ZoneTemplate {
    id: "team",
    application: "crew",
    head: include_str!("templates/delegation/zone.toml"),
    documents: documents!("delegation"),
};

const CUSTOMER: &str = include_str!("templates/customers/zone.toml");

const CUSTOMERS: [ZoneTemplate; 2] = [
    ZoneTemplate { id: "acme", application: "agent-acme", head: CUSTOMER, documents: &[] },
    ZoneTemplate { id: "globex", application: "agent-globex", head: CUSTOMER, documents: &[] },
];

/// The template of a case.
pub(super) const fn of(case: Case) -> Template {
    match case {
        Case::Api => Template {
            zones_table: include_str!("templates/api/zones.toml"),
            secrets: include_str!("templates/api/secrets.toml"),
            zones: &[API],
            resource: "resource://items",
            scope: "items:read",
            request: ["GET", "/items/1"],
        },
        Case::Mcp => Template {
            zones_table: include_str!("templates/mcp/zones.toml"),
            secrets: include_str!("templates/mcp/secrets.toml"),
            zones: &[MCP],
            resource: "resource://tools",
            scope: "tools:use",
            request: ["POST", "/mcp"],
        },
        Case::Customers => Template {
            zones_table: include_str!("templates/customers/zones.toml"),
            secrets: include_str!("templates/customers/secrets.toml"),
            zones: &CUSTOMERS,
            resource: "resource://crm",
            scope: "crm:read",
            request: ["GET", "/contacts/1"],
        },
        Case::Delegation => Template {
            zones_table: include_str!("templates/delegation/zones.toml"),
            secrets: include_str!("templates/delegation/secrets.toml"),
            zones: &[DELEGATION],
            resource: "resource://docs",
            scope: "docs:read",
            request: ["GET", "/docs/1"],
        },
    }
}
