//! The executor and the use cases on fakes: no engine, no edge, no disk, no waiting.

mod app;
mod crashes;
mod failures;
mod gates;
mod holding;
mod leases;
mod requirements;
mod resuming;
mod shapes;
mod steady;
mod success;
mod support;
mod together;
mod walks;
