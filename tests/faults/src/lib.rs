//! What the fault suite stands on: a journal that is read while it is written, a proxy that spoils
//! calls, an engine of one's own that may be broken, an inspection that finds what was left, and
//! a record of what was seen.

mod disk;
mod extent;
mod inspection;
mod journal;
mod observation;
mod private;
mod proxy;
mod requests;

pub use disk::SmallDisk;
pub use extent::{Extent, pick};
pub use inspection::{Expected, Inspection};
pub use journal::{Journal, Line};
pub use observation::{Observation, Recorder, read_all, table};
pub use private::{PrivateEngine, Settings};
pub use proxy::{Call, Proxy, Treatment};
pub use requests::Requests;
