//! The client against a registry in memory, and signatures with keys made for the test.

mod client;
mod server;
mod signatures;
mod signer;
