//! The decision contract as data, as a second model that is slow and plain, and as Rego that an engine evaluates.

mod cases;
mod forms;
mod model;
mod oracle;
