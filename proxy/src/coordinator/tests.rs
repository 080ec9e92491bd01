mod callers;
mod delegations;
mod jobs;
mod sessions;
