//! `caracal schema`: JSON Schemas of every file the edge reads.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Exit;
use super::exit::Failed;
use super::out::Out;
use crate::config;

/// `caracal schema ...`
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Which file; all three in one document when left out
    file: Option<File>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum File {
    /// caracal.toml, the process
    Caracal,
    /// A zone's bundle, in its single-file form; each document of a folder is a part of it
    Bundle,
    /// The secrets file
    Secrets,
}

pub(super) const HELP: &str = "\
Editors with a TOML language server check and complete the files with these:

  caracal schema bundle > bundle.schema.json
  caracal schema caracal > caracal.schema.json

Exit codes: 0 done.";

pub(super) fn run(args: &SchemaArgs, out: &mut Out) -> Result<Exit, Failed> {
    let schema = match args.file {
        Some(file) => schema(file),
        None => File::value_variants()
            .iter()
            .filter_map(|file| Some((file.to_possible_value()?.get_name().to_owned(), schema(*file))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    };
    out.value(&schema, true)?;
    Ok(Exit::Done)
}

fn schema(file: File) -> Value {
    match file {
        File::Caracal => config::json_schema(),
        File::Bundle => caracal_policies::bundle_schema(),
        File::Secrets => secrets(),
    }
}

/// The secrets file is read by hand, so that no parser's error can ever quote a value; so is its schema.
fn secrets() -> Value {
    let names = |description: &str, example: &str| {
        json!({
            "description": description,
            "type": "array",
            "items": { "type": "string", "minLength": 1 },
            "minItems": 1,
            "examples": [[example]],
        })
    };
    let in_file = json!({
        "description": "A file with the value, in `[secrets] files_dir` of caracal.toml.",
        "type": "object",
        "properties": { "file": { "type": "string", "minLength": 1 } },
        "required": ["file"],
        "additionalProperties": false,
    });
    let entry = json!({
        "description": "One secret: where it may go, and its keys. Every other member is a key with its value.",
        "type": "object",
        "properties": {
            "zones": names("Zones whose bundles may name it.", "quickstart"),
            "hosts": names("Upstreams it may be sent to: host or host:port. Off loopback only over https.", "api.example.com"),
            "demo": { "description": "A throw-away value that may be shown.", "type": "boolean" },
        },
        "required": ["zones", "hosts"],
        "additionalProperties": { "oneOf": [{ "type": "string", "minLength": 1 }, in_file] },
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Secrets",
        "description": "Upstream secrets; the file is mode 0600.",
        "type": "object",
        "properties": {
            "schema": { "description": "Version of this format: 1.", "const": 1 },
            "secrets": { "type": "object", "additionalProperties": entry },
        },
        "required": ["schema"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_demands_the_version_and_refuses_unknown_keys() {
        for file in File::value_variants() {
            let schema = schema(*file);
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            assert!(required.contains(&json!("schema")), "{file:?}");
            assert_eq!(schema["additionalProperties"], false, "{file:?}");
        }
    }
}
