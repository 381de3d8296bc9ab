//! Behaviour of the edge, each test against a supervisor and a worker of its own.

mod abuse;
mod balancing;
mod holding;
mod http2;
mod leases;
mod observing;
mod protocol;
mod restarts;
mod retries;
mod routes;
mod streams;
mod support;
mod switching;
mod tables;
mod tcp;
mod tls;
