//! Image registries: who may log in, what they hold, and by whom an image is signed.
//!
//! An engine pulls and pushes by itself. What it does not do is here: [`Keyring`] finds the login
//! for a registry, [`Client`] reads manifests and small blobs, and [`signature`] says whether an
//! image was signed with a key.

mod auth;
mod client;
mod error;
mod keyring;
pub mod retry;
pub mod signature;

pub use client::{Client, Descriptor, Manifest};
pub use error::{RegistryError, RegistryErrorKind};
pub use keyring::{Keyring, Login, config_dir};
