//! The executor and the use cases on fakes: no engine, no edge, no disk, no waiting.

mod crashes;
mod failures;
mod shapes;
mod success;
mod support;
