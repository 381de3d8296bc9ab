//! The control server's side of this program: what its projects are, and how orders are carried out.

mod access;
mod catalog;
mod command;
mod notify;
mod observe;
mod process;
mod run;
mod works;

pub use catalog::Projects;
pub use command::Shell;
pub use notify::notifier;
pub use works::Local;

/// Names the order of a control server that a deployment carries out.
pub const ORDER_VARIABLE: &str = "SHIPLAP_ORDER";
/// Names the commit that a deployment comes from.
pub const REVISION_VARIABLE: &str = "SHIPLAP_REVISION";
/// Says who acts, instead of the user of this process.
pub const WHO_VARIABLE: &str = "SHIPLAP_WHO";
/// Names the `shiplap.yaml` that a command is about, where the command line names none.
pub const OWN_FILE_VARIABLE: &str = "SHIPLAP_CONFIG_FILE";
