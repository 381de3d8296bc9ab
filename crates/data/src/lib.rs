//! A small, whole and anonymised copy of a database.

pub mod app;
pub mod chance;
pub mod closure;
pub mod config;
pub mod diagnostic;
pub mod key;
pub mod mask;
pub mod postgres;
pub mod rules;
pub mod schema;
pub mod vault;
