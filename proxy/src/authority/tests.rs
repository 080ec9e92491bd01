mod approvals;
mod clients;
mod documents;
mod exchange;
mod forms;
mod machine;
