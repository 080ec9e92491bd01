//! Policy data of a document, or of a whole bundle, as one document of a chosen form.

mod write;

use std::sync::Arc;

use crate::bundle;
use crate::compile::policy_data;
use crate::data::PolicyData;
use crate::draft::{Draft, Drafts, ROOTS};
use crate::limits;
use crate::read::{Document, Section};
use crate::report::{Place, Problem, Problems, Report, listed};
use crate::source::{BundleSource, SourceFile};

/// A form of policy documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyForm {
    /// TOML, with `schema = 1`.
    Toml,
    /// A Rego data document of package `caracal.authz`.
    Rego,
}

/// The policy data of one document, in another form. Its name says which form it has: `.rego`, or TOML.
///
/// The data stays the same, and so does the digest of a zone whose document is replaced by it. Comments and the order
/// of keys are not kept.
///
/// # Errors
/// A [`Report`] when the document does not read, holds something that is no policy data, or none.
pub fn convert_document(file: &SourceFile, to: PolicyForm) -> Result<String, Report> {
    written(&document_data(file)?, &start(&file.path), to)
}

/// The policy data of one document.
fn document_data(file: &SourceFile) -> Result<PolicyData, Report> {
    let problems = Problems::default();
    let mut draft = Draft::default();
    let document = Document::new(file.path.as_str().into(), &file.text, &problems);
    let rego = bundle::is_rego(&file.path);
    if let Some(table) = if rego { document.parse_rego() } else { document.parse() } {
        let root = document.root(&table);
        if !rego {
            bundle::check_schema(&root);
            only_policy(&root);
        }
        draft.read_policy(&root);
    }
    merged(&Drafts(vec![Arc::new(draft)]), &start(&file.path), problems)
}

/// Reports what a TOML document may hold beside policy data.
fn only_policy(root: &Section<'_>) {
    let keys = root.entries().map(|(key, _)| key);
    let others: Vec<_> = keys.filter(|key| key.value != "schema" && !ROOTS.contains(&key.value)).collect();
    if let Some(first) = others.first() {
        root.report(
            Problem::new("convert_not_policy", &first.place, "the document holds more than policy data")
                .found(listed(others.iter().map(|key| key.value)))
                .expected(listed(ROOTS))
                .hint("name the zone to convert its policy data alone, or move these to a document of their own"),
        );
    }
}

/// The policy data of all documents of a bundle, as one document.
///
/// # Errors
/// A [`Report`] when the bundle does not read, or has no policy data.
pub fn convert_bundle(source: &BundleSource, zone_id: &str, to: PolicyForm) -> Result<String, Report> {
    let problems = Problems::default();
    let drafts = bundle::read(source, zone_id, &[], &problems).into_drafts();
    let start = start(&source.root);
    let data = merged(&drafts, &start, problems)?;
    written(&data, &start, to)
}

fn start(file: &str) -> Place {
    Place { file: file.into(), line: 1, column: 1 }
}

fn merged(drafts: &Drafts, start: &Place, problems: Problems) -> Result<PolicyData, Report> {
    let data = policy_data(drafts, &problems);
    if problems.count() == 0 && !drafts.have_policy() {
        problems.push(
            Problem::new("convert_nothing", start, "there is no policy data to convert")
                .found("none of the six roots")
                .expected(listed(ROOTS))
                .hint("name a document that defines one of them"),
        );
    }
    problems.into_report().map_or(Ok(data), Err)
}

fn written(data: &PolicyData, start: &Place, to: PolicyForm) -> Result<String, Report> {
    let (text, most) = match to {
        PolicyForm::Toml => (write::toml(data), limits::FILE_BYTES),
        PolicyForm::Rego => (write::rego(data), limits::REGO_BYTES),
    };
    if text.len() <= most {
        return Ok(text);
    }
    let problem = Problem::new("content_too_large", start, "the policy data is too large for one document")
        .found(format!("{} bytes", text.len()))
        .expected(format!("at most {most} bytes"))
        .hint("convert its documents one by one, or spread the grants over several");
    Err(Report { problems: vec![problem] })
}

/// What a decision consults, by way of a document of this form: written, and read again.
#[cfg(test)]
pub(crate) fn through(data: &PolicyData, form: PolicyForm) -> Result<PolicyData, Report> {
    let (path, text) = match form {
        PolicyForm::Toml => ("data.toml", write::toml(data)),
        PolicyForm::Rego => ("data.rego", write::rego(data)),
    };
    document_data(&SourceFile { path: path.into(), text })
}

/// The data as a Rego document.
#[cfg(test)]
pub(crate) fn as_rego(data: &PolicyData) -> String {
    write::rego(data)
}
