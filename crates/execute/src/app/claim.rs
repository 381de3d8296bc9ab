//! What a command makes of a deployment that did not end.

use shiplap_plan::Selection;

use super::deploy::{LOOK_BACK, project_of};
use super::desired::contents;
use super::interrupted::Unfinished;
use super::{App, AppError, Choice, Images, Intent, OnInterrupted, Request, Source, binding};

/// What becomes of a deployment that did not end when another is asked for.
pub(super) enum Claim {
    /// What is asked for is what it was to do, or the way out of it.
    IsTheSame(Choice),
    /// It has to be settled before.
    SettleFirst,
    /// What is asked for goes from what it left to a whole state of its own.
    TakesOver,
}

impl App {
    /// What an intent means for a deployment that did not end.
    pub(super) async fn claim(
        &self,
        intent: &Intent<'_>,
        request: &Request,
        unfinished: &Unfinished,
    ) -> Result<Claim, AppError> {
        let forward = Claim::IsTheSame(Choice::Settle(OnInterrupted::Forward));
        let back = Claim::IsTheSame(Choice::Settle(OnInterrupted::Back));
        Ok(match intent {
            _ if request.selection() != Selection::All => Claim::SettleFirst,
            // What must hold before is asked for again by a deployment of its own.
            Intent::Deploy(source)
                if unfinished.open_requirements().is_empty()
                    && self.is_same(source, request, unfinished).await? =>
            {
                forward
            }
            Intent::Deploy(_) | Intent::Promote(_) | Intent::Down { .. } => Claim::TakesOver,
            Intent::Rollback { to: None, .. } => back,
            Intent::Rollback { to: Some(_), .. } => Claim::TakesOver,
            Intent::Restart(_) | Intent::Scale { .. } => Claim::SettleFirst,
        })
    }

    /// Whether the files ask for exactly what a deployment was to bring about.
    async fn is_same(
        &self,
        source: &Source,
        request: &Request,
        unfinished: &Unfinished,
    ) -> Result<bool, AppError> {
        let deployment = &unfinished.deployment;
        let was_whole = deployment.request.as_ref().is_some_and(|was| {
            was.services.is_none()
                && was.force.is_empty()
                && was.remove_orphans == request.remove_orphans
        });
        let plainly = !request.force && request.images == Images::AsTheFileSays;
        if deployment.kind != "deploy" || !was_whole || !plainly {
            return Ok(false);
        }
        let history = self.ledger.deployments(&deployment.scope, LOOK_BACK).await?;
        let project = project_of(source, request);
        let pins = self.pins(&project, request).await?;
        let contents = contents(source).map_err(AppError::Refused)?;
        let assembled =
            self.assemble_files(source, &project, &pins, contents, request, &history).await?;
        let release = binding::release(&assembled.desired, &Default::default());
        if !binding::same_release(&release, &unfinished.release()) {
            return Ok(false);
        }
        let was = self.ledger.binding(&deployment.scope, deployment.number).await?;
        Ok(binding::same(&was, &binding::write(&assembled)))
    }
}
