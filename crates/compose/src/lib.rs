//! Loads Docker Compose projects: text in, a typed and normalised [`Project`] out, every value
//! knowing its file and line.

#![forbid(unsafe_code)]

mod diagnostic;
pub mod model;
mod request;
mod source;
mod units;

pub use diagnostic::{Diagnostic, Location, Related, Severity};
pub use model::Project;
pub use request::{Loaded, Request, Tolerance, Trust, load};
pub use source::{FileSource, MemoryFiles, OsFiles};
