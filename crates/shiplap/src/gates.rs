//! What `shiplap.yaml` asks for before a deployment changes anything.

mod report;
mod scan;
mod signature;

use std::sync::Arc;

use shiplap_compose::Diagnostic;
use shiplap_config::{HookSettings, ScanSettings, Settings, SignatureSettings, SignedBy};
use shiplap_model::{Requirement, RequirementKind, RequirementRun};

use scan::Scanner;
use signature::KeyCheck;

/// What must hold before a deployment of an environment changes anything, in the order in which it
/// is asked.
///
/// # Errors
/// When a key cannot be used: a gate that cannot be asked is one that says no.
pub fn requirements(settings: &Settings) -> Result<Vec<Requirement>, Vec<Diagnostic>> {
    let gates = &settings.gates;
    let mut all = Vec::new();
    let mut problems = Vec::new();
    for (number, rule) in gates.signature.iter().enumerate() {
        match signature(settings, number, rule) {
            Ok(requirement) => all.push(requirement),
            Err(bad) => problems.extend(bad),
        }
    }
    all.extend(gates.scan.as_ref().map(scan));
    all.extend(gates.backup.as_ref().map(|hook| command(RequirementKind::Backup, hook, &[])));
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

fn signature(
    settings: &Settings,
    number: usize,
    rule: &SignatureSettings,
) -> Result<Requirement, Vec<Diagnostic>> {
    let (files, timeout) = match &rule.by {
        SignedBy::Command(hook) => {
            return Ok(command(RequirementKind::Signature, hook, &rule.repositories));
        }
        SignedBy::Keys { files, timeout } => (files, *timeout),
    };
    let check = KeyCheck::read(files, crate::registries::client(settings)).map_err(|bad| {
        let bad = bad.into_iter();
        bad.map(|(key, why)| settings.bad_key(number, key, &why)).collect::<Vec<_>>()
    })?;
    Ok(Requirement {
        kind: RequirementKind::Signature,
        repositories: rule.repositories.clone(),
        image: None,
        run: RequirementRun::Check(Arc::new(check)),
        limit: timeout,
    })
}

fn scan(given: &ScanSettings) -> Requirement {
    let Some(rules) = &given.report else {
        return command(RequirementKind::Scan, &given.hook, &given.repositories);
    };
    let folder = crate::world::state_dir().join("scans");
    let scanner = Scanner::new(given.hook.clone(), rules.clone(), folder);
    Requirement {
        kind: RequirementKind::Scan,
        repositories: given.repositories.clone(),
        image: None,
        run: RequirementRun::Check(Arc::new(scanner)),
        limit: given.hook.timeout,
    }
}

fn command(kind: RequirementKind, hook: &HookSettings, repositories: &[String]) -> Requirement {
    Requirement {
        kind,
        repositories: repositories.to_vec(),
        image: None,
        run: RequirementRun::Command { words: hook.command.clone(), folder: hook.folder.clone() },
        limit: hook.timeout,
    }
}
