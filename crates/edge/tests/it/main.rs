//! Behaviour of the edge, each test against a supervisor and a worker of its own.

mod holding;
mod leases;
mod protocol;
mod restarts;
mod retries;
mod support;
mod switching;
mod tables;
mod tcp;
