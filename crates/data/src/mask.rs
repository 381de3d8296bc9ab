//! What becomes of personal data, in the stream, before a byte of it reaches the target.

mod cell;
mod class;
mod classify;
mod decide;
mod detect;
mod fake;
mod json;
mod names;
mod originals;
mod permute;
mod shape;
mod value;

pub use cell::{Cell, Derivation};
pub use class::Class;
pub use classify::{Content, Finding, by_name, has_content};
pub use decide::{Decisions, Unclassified, block, column_name, yaml_key};
pub use fake::{Faker, Widths};
pub use originals::Originals;
pub use value::{ColumnMask, Unmaskable};
