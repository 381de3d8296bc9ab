//! The files that belong to the sample's rows.

use super::{Event, Job, Problem, Stage};
use crate::postgres::Target;
use crate::vault::{self, FilesReport, Vault};

/// Copies the files that the new database names, before anybody uses it. Those of the old one stay
/// as long as it answers.
pub(super) async fn copy(
    job: &Job<'_>,
    new: &Target,
    vaults: &[Vault],
) -> Result<Vec<FilesReport>, Problem> {
    let mut reports = Vec::new();
    for (rule, vault) in job.config.sample.files.iter().zip(vaults) {
        if reports.is_empty() {
            job.tell(Event::Begins(Stage::Files));
        }
        let paths = new.paths(&rule.value.paths).await?;
        let own = vault.clone();
        let report = apart(move || own.copy(paths)).await?;
        for (count, what) in
            [(report.missing, "are missing in"), (report.refused, "are no paths of files in")]
        {
            if count > 0 {
                let from = vault.from.display();
                job.tell(Event::Note(format!("{count} files that rows name {what} {from}")));
            }
        }
        reports.push(report);
    }
    Ok(reports)
}

/// Removes files that only the old database named. The sample is taken, whatever comes of it.
pub(super) async fn prune(job: &Job<'_>, vaults: Vec<Vault>, reports: &mut [FilesReport]) {
    for (vault, report) in vaults.into_iter().zip(reports) {
        let mut own = std::mem::take(report);
        let pruned = apart(move || {
            let pruned = vault.prune(&mut own);
            Ok((own, pruned))
        });
        let (own, pruned) = pruned.await.expect("what went wrong is in the value");
        *report = own;
        if let Err(error) = pruned {
            job.tell(Event::Note(format!("{error}; the next run does it")));
        }
    }
}

/// Waits for disks on a thread where that holds nobody up.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, vault::Error> + Send + 'static,
) -> Result<T, vault::Error> {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}
