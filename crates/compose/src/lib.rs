//! Loads Docker Compose projects: text in, a typed and normalised [`Project`] out, every value
//! knowing its file and line.
//!
//! [`load`] does what `docker compose config` does: it finds the files, reads `.env`, replaces
//! variables, resolves `extends` and `include`, merges, checks against the specification,
//! normalises and leaves the services of the active profiles. All problems are reported at once,
//! as [`Diagnostic`]s that show the line they are about. [`render_config`] prints the result.
//!
//! The only way to the outside is the trait [`FileSource`]. Files may be hostile: what is read,
//! nested, repeated or expanded is bounded, and with [`Trust::Untrusted`] they cannot name files
//! outside of the project.

#![forbid(unsafe_code)]

mod advice;
mod canonical;
mod check;
mod context;
mod diagnostic;
mod discover;
pub mod document;
mod dotenv;
mod finish;
mod interpolate;
mod layers;
mod load;
mod merge;
pub mod model;
mod mounts;
mod node;
mod normalise;
mod paths;
mod ports;
mod raw;
mod reference;
mod render;
mod request;
pub mod separate;
mod sha256;
mod shape;
mod source;
mod spans;
mod survey;
mod unique;
mod units;
mod validate;
mod words;
mod yaml;
mod yaml_out;

pub use advice::advise;
pub use diagnostic::{Diagnostic, Location, Related, Severity};
pub use discover::{default_file, normal_name};
pub use dotenv::DotenvError;
pub use load::load;
pub use model::Project;
pub use render::{ConfigOptions, Format, Rendered, View, render_config, render_project};
pub use request::{Loaded, Request, Tolerance, Trust};
pub use source::{FileSource, MemoryFiles, OsFiles};
pub use survey::{Survey, SurveyedService, read_dotenv, survey};
