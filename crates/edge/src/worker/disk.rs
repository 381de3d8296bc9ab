//! The table on disk, which the supervisor keeps for us.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use super::Core;
use super::link::{Link, refusal};
use crate::channel::{Ask, Reply};
use crate::table::Table;

/// Puts a table on disk. The one it replaces becomes the previous one if it is good.
pub(super) async fn store(link: &Link, table: &Table, replaces_good: bool) -> Result<(), String> {
    let (reply, mut fds) = link.ask(Ask::NewTable).await.map_err(|error| error.to_string())?;
    let (Reply::Done, Some(file)) = (&reply, fds.pop()) else {
        return Err(refusal("opening a file for the table", reply));
    };
    let mut text = serde_json::to_vec_pretty(table).map_err(|error| error.to_string())?;
    text.push(b'\n');
    File::from(file).write_all(&text).map_err(|error| format!("writing the table: {error}"))?;
    match link.ask(Ask::CommitTable { replaces_good }).await {
        Ok((Reply::Done, _)) => Ok(()),
        Ok((reply, _)) => Err(refusal("storing the table", reply)),
        Err(error) => Err(format!("storing the table: {error}")),
    }
}

/// The table on disk at this moment, if it is a good one.
pub(super) async fn current(link: &Link) -> Option<Table> {
    let (_, mut fds) = link.ask(Ask::Table).await.ok()?;
    let mut text = Vec::new();
    File::from(fds.pop()?).read_to_end(&mut text).ok()?;
    Table::from_json(&text).ok()
}

/// The table on disk, or the one before it, or an empty one; and whether it is the one on disk.
pub(super) fn load(
    core: &Core,
    table: Option<OwnedFd>,
    previous: Option<OwnedFd>,
) -> (Table, bool) {
    let mut refused = false;
    for (name, file) in [("table", table), ("previous table", previous)] {
        let Some(file) = file else { continue };
        let mut text = Vec::new();
        let read = File::from(file).read_to_end(&mut text).map_err(|error| error.to_string());
        match read.and_then(|_| Table::from_json(&text).map_err(|error| error.to_string())) {
            Ok(table) => {
                if name != "table" {
                    core.problem(format!(
                        "the previous table is used, generation {}",
                        table.generation
                    ));
                }
                return (table, !refused);
            }
            Err(error) => {
                refused = true;
                core.problem(format!("the {name} on disk is refused: {error}"));
            }
        }
    }
    (Table::default(), !refused)
}
