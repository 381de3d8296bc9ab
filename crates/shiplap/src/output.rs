//! What the program prints. Standard output is data; the rest goes to standard error.

pub mod environments;
pub mod errors;
pub mod group;
pub mod history;
pub mod interrupted;
pub mod limited;
pub mod progress;
pub mod report;
pub mod status;
pub mod table;
pub mod time;
