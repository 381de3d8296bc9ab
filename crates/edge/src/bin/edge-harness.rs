//! Runs an edge for the tests.
fn main() {}
