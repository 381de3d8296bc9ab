//! The adapter against a real engine, and against a real Docker Compose. Tests that find none
//! say so and pass.

mod cases;
mod compare;
mod containers;
mod contract;
mod endpoint;
mod images;
mod send;
mod support;
