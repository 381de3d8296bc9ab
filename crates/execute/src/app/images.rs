//! Pinning: from tags to the exact images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use shiplap_compose::model::{Project, Service};
use shiplap_model::{
    Engine, EngineError, ImageInfo, ImageOrigin, ImagePin, Refusal, RegistryAnswer,
};
use shiplap_plan::Selection;
use tokio::sync::OnceCell;

use super::{AppError, Images};

/// Pins the image of every service. Those that are not selected are pinned to what is here, and
/// nothing is refused for their sake.
pub(super) async fn pin_all(
    engine: &dyn Engine,
    project: &Project,
    selection: &Selection,
    images: Images,
) -> Result<BTreeMap<String, ImagePin>, AppError> {
    let sources = Sources { engine, seen: Mutex::default() };
    let pins = project.services.iter().map(|(name, service)| {
        let sources = &sources;
        async move {
            let reference = reference(project, name, service);
            let pinned = if selection.contains(name) {
                pin(sources, name, service, &reference, images).await
            } else {
                let found = sources.here(&reference).await;
                found.map(|found| Ok(found.unwrap_or_else(|| unknown(&reference))))
            };
            (name.clone(), pinned)
        }
    });
    let mut found = BTreeMap::new();
    let mut refusals = Vec::new();
    for (name, pinned) in join_all(pins).await {
        match pinned? {
            Ok(pin) => {
                found.insert(name, pin);
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() { Ok(found) } else { Err(AppError::Refused(refusals)) }
}

/// What the service's image is called: as the file says, with `latest` where it says no tag, or
/// as Compose names what it builds.
pub(super) fn reference(project: &Project, name: &str, service: &Service) -> String {
    let reference = service.image.clone().unwrap_or_else(|| format!("{}-{name}", project.name));
    let last = reference.rsplit('/').next().unwrap_or(&reference);
    if last.contains([':', '@']) { reference } else { format!("{reference}:latest") }
}

fn unknown(reference: &str) -> ImagePin {
    ImagePin {
        reference: reference.to_owned(),
        id: None,
        digest: None,
        origin: ImageOrigin::Local,
        info: None,
    }
}

/// Where images are, each asked once for a reference: services that name the same image get the
/// same one, also while somebody pushes to its tag.
struct Sources<'a> {
    engine: &'a dyn Engine,
    seen: Mutex<BTreeMap<String, Arc<Seen>>>,
}

/// What is known of one reference.
#[derive(Default)]
struct Seen {
    here: OnceCell<Option<ImagePin>>,
    registry: OnceCell<RegistryAnswer>,
}

impl Sources<'_> {
    fn seen(&self, reference: &str) -> Arc<Seen> {
        let mut seen = self.seen.lock().expect("no look panics");
        Arc::clone(seen.entry(reference.to_owned()).or_default())
    }

    /// What the engine holds.
    async fn here(&self, reference: &str) -> Result<Option<ImagePin>, EngineError> {
        let look =
            || async { Ok(self.engine.image(reference).await?.map(|info| here(reference, info))) };
        self.seen(reference).here.get_or_try_init(look).await.cloned()
    }

    /// What its registry says.
    async fn registry(&self, reference: &str) -> Result<RegistryAnswer, EngineError> {
        let ask = || self.engine.registry_digest(reference);
        self.seen(reference).registry.get_or_try_init(ask).await.cloned()
    }
}

/// A pin for an image that the engine holds.
pub(super) fn here(reference: &str, info: ImageInfo) -> ImagePin {
    let repository = without_tag(reference);
    let digest = info.repo_digests.iter().find_map(|known| {
        let (name, digest) = known.split_once('@')?;
        same_repository(name, repository).then(|| digest.to_owned())
    });
    ImagePin {
        reference: reference.to_owned(),
        id: Some(info.id.clone()),
        digest,
        origin: ImageOrigin::Local,
        info: Some(info),
    }
}

fn without_tag(reference: &str) -> &str {
    let named = reference.split('@').next().unwrap_or(reference);
    match named.rfind(':') {
        Some(colon) if !named[colon..].contains('/') => &named[..colon],
        _ => named,
    }
}

/// Engines shorten `docker.io/library/nginx` to `nginx`.
fn same_repository(a: &str, b: &str) -> bool {
    fn short(name: &str) -> &str {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name)
    }
    short(a) == short(b)
}

/// What the file wants done about an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// What is here will do.
    Missing,
    /// The registry decides.
    Always,
    /// It must be here.
    Never,
    /// It is built again.
    Build,
}

fn wish(service: &Service, images: Images) -> Wish {
    match images {
        Images::Build if service.build.is_some() => return Wish::Build,
        Images::Pull if service.build.is_none() => return Wish::Always,
        Images::Build | Images::Pull | Images::AsTheFileSays => {}
    }
    match service.pull_policy.as_deref() {
        Some("always" | "refresh") => Wish::Always,
        Some("never") => Wish::Never,
        Some("build") => Wish::Build,
        // `daily` and the like ask how old an image is; what is here counts as young enough, and
        // `deploy --pull` asks the registry.
        _ => Wish::Missing,
    }
}

async fn pin(
    sources: &Sources<'_>,
    name: &str,
    service: &Service,
    reference: &str,
    images: Images,
) -> Result<Result<ImagePin, Refusal>, EngineError> {
    let wish = wish(service, images);
    let local = sources.here(reference).await?;
    let builds = service.build.is_some();
    match (wish, local) {
        (Wish::Build, _) if builds => Ok(Ok(build(reference))),
        (Wish::Missing | Wish::Never | Wish::Build, Some(pin)) => Ok(Ok(pin)),
        (Wish::Never, None) => Ok(Err(absent(name, reference))),
        // Without a name of its own an image can only be built.
        (Wish::Missing, None) if builds && service.image.is_none() => Ok(Ok(build(reference))),
        (Wish::Always, Some(pin)) if builds && service.image.is_none() => Ok(Ok(pin)),
        (Wish::Always | Wish::Missing | Wish::Build, local) => {
            let answer = sources.registry(reference).await?;
            Ok(match (answer, local) {
                (RegistryAnswer::Digest(digest), Some(pin)) if knows(&pin, &digest) => {
                    Ok(ImagePin { digest: Some(digest), ..pin })
                }
                (RegistryAnswer::Digest(digest), _) => Ok(ImagePin {
                    reference: reference.to_owned(),
                    id: None,
                    digest: Some(digest),
                    origin: ImageOrigin::Pull,
                    info: None,
                }),
                (_, Some(pin)) if builds => Ok(pin),
                (_, None) if builds => Ok(build(reference)),
                (RegistryAnswer::Missing(said), _) => Err(missing(name, reference, &said)),
                (RegistryAnswer::NoRepository(said), _) => {
                    Err(no_repository(name, reference, &said))
                }
                (RegistryAnswer::Denied(said), _) => Err(denied(name, reference, &said)),
                (RegistryAnswer::RateLimited(said), local) => {
                    Err(rate_limited(name, reference, &said, local.is_some()))
                }
                (RegistryAnswer::Unreachable(said), local) => {
                    Err(unreachable(name, reference, &said, local.is_some()))
                }
            })
        }
    }
}

fn knows(pin: &ImagePin, digest: &str) -> bool {
    pin.info.iter().flat_map(|info| &info.repo_digests).any(|known| known.ends_with(digest))
}

fn build(reference: &str) -> ImagePin {
    ImagePin { origin: ImageOrigin::Build, ..unknown(reference) }
}

fn refusal(code: &'static str, name: &str, message: String, help: String) -> Refusal {
    Refusal {
        code,
        service: Some(name.to_owned()),
        path: ["services", name, "image"].map(str::to_owned).into(),
        message,
        help: Some(help),
    }
}

fn absent(name: &str, reference: &str) -> Refusal {
    refusal(
        "image-absent",
        name,
        format!("`{name}` runs {reference}, which is not on this engine and may not be pulled"),
        format!("`docker load` it, or remove `pull_policy: never` from `{name}`"),
    )
}

fn missing(name: &str, reference: &str, said: &str) -> Refusal {
    refusal(
        "image-missing",
        name,
        format!("`{name}` runs {reference}, which its registry does not have: {said}"),
        "check the name and the tag; a private repository needs `docker login`".to_owned(),
    )
}

fn no_repository(name: &str, reference: &str, said: &str) -> Refusal {
    refusal(
        "repository-missing",
        name,
        format!("`{name}` runs {reference}, and its registry has no such repository: {said}"),
        "check the name; a private repository needs `docker login`".to_owned(),
    )
}

fn denied(name: &str, reference: &str, said: &str) -> Refusal {
    refusal(
        "registry-denied",
        name,
        format!("`{name}` runs {reference}, which its registry does not let us have: {said}"),
        "`docker login`, or `registries:` in shiplap.yaml with a secret of the store; registries \
         say so too where there is no such repository"
            .to_owned(),
    )
}

fn rate_limited(name: &str, reference: &str, said: &str, here: bool) -> Refusal {
    let help = match here {
        true => format!("the {reference} on this engine is used with `pull_policy: missing`"),
        false => "try again later; whoever is logged in has a higher limit".to_owned(),
    };
    let message =
        format!("`{name}` runs {reference}, and its registry was asked too often: {said}");
    refusal("registry-rate-limit", name, message, help)
}

fn unreachable(name: &str, reference: &str, said: &str, here: bool) -> Refusal {
    let (missing, help) = if here {
        let help = format!("the {reference} on this engine is used with `pull_policy: missing`");
        ("", help)
    } else {
        let help = "check the tag, which is not here either, and the registry's name; `docker \
                    load` brings an image without a registry";
        (", which is not on this engine", help.to_owned())
    };
    refusal(
        "registry-unreachable",
        name,
        format!("`{name}` runs {reference}{missing}, and its registry does not answer: {said}"),
        help,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_without_a_tag_means_latest() {
        let project = Project { name: "shop".to_owned(), ..Project::default() };
        let image =
            |image: Option<&str>| Service { image: image.map(str::to_owned), ..Service::default() };
        assert_eq!(reference(&project, "api", &image(None)), "shop-api:latest");
        assert_eq!(reference(&project, "api", &image(Some("r:5000/api"))), "r:5000/api:latest");
        assert_eq!(reference(&project, "api", &image(Some("api:v1"))), "api:v1");
        assert_eq!(reference(&project, "api", &image(Some("api@sha256:1"))), "api@sha256:1");
    }

    #[test]
    fn shortened_names_are_the_same_repository() {
        assert!(same_repository("nginx", "docker.io/library/nginx"));
        assert!(!same_repository("a/nginx", "nginx"));
    }
}
