//! shiplap
fn main() {}
