//! The adapter against a real engine, and against a real Docker Compose. Tests that find none
//! say so and pass.

mod compare;
mod containers;
mod endpoint;
mod images;
mod support;
