//! The decision contract as data, and as a second model that is slow and plain.

mod cases;
mod model;
