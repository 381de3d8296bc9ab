//! Whether environments on the engine are separate: looks, tries, and says what came of it.

mod gather;
mod probes;

use shiplap_execute::app::AppError;
use shiplap_isolation::{Finding, Instance, Report, Severity, Tried, Untested, check, reach};
use shiplap_model::EngineError;

use crate::world::World;

/// Why nothing can be said.
pub enum VerifyError {
    /// The engine could not be asked.
    World(AppError),
    /// An environment has no containers.
    Nothing(Instance),
    /// Told to stop; what was made for trying has been removed.
    Stopped,
}

impl From<EngineError> for VerifyError {
    fn from(error: EngineError) -> Self {
        Self::World(error.into())
    }
}

/// What a verification came to.
pub struct Verified {
    /// The environments, with the number of containers of each.
    pub instances: Vec<(Instance, usize)>,
    /// What was looked at and tried.
    pub tried: Vec<Tried>,
    /// What was found, leaks first.
    pub findings: Vec<Finding>,
    /// What could not be tried.
    pub untested: Vec<Untested>,
}

impl Verified {
    /// How many findings mean that the environments are not separate.
    pub fn leaks(&self) -> usize {
        self.findings.iter().filter(|found| found.code.severity() == Severity::Leak).count()
    }
}

/// Verifies that environments on one engine are separate.
///
/// # Errors
/// When the engine cannot be asked, when one of them has no containers (nothing can be said of it
/// then), or on Ctrl-C.
pub async fn verify(world: &World, instances: &[Instance]) -> Result<Verified, VerifyError> {
    let seen = gather::gather(world, instances).await?;
    if let Some(empty) = seen.snapshots.iter().find(|snapshot| !reach::has_containers(snapshot)) {
        return Err(VerifyError::Nothing(empty.instance.clone()));
    }
    let mut report: Report = check(&seen.snapshots, &seen.strangers);
    let mut untested = seen.untested;
    untested.extend(reach::untested(&seen.snapshots));
    let asked = probes::ask(&world.docker, reach::questions(&seen.snapshots)).await?;
    untested.extend(reach::judge(&seen.snapshots, &asked, &mut report));
    untested.sort();
    untested.dedup();
    let count = |snapshot: &shiplap_isolation::Snapshot| snapshot.containers.len();
    Ok(Verified {
        instances: seen.snapshots.iter().map(|s| (s.instance.clone(), count(s))).collect(),
        tried: report.tried,
        findings: report.findings,
        untested,
    })
}
