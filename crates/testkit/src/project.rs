//! Projects from YAML text.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use shiplap_compose::{Loaded, MemoryFiles, Request, load};
use shiplap_model::{Desired, Fields, ImageInfo, ImageOrigin, ImagePin, InjectedFile, ServiceSpec};

use crate::state::fake_facts;

/// Name of every project here.
pub const PROJECT: &str = "shop";
/// Name of every environment here.
pub const ENVIRONMENT: &str = "default";

/// A project as loaded, with variables of the process.
///
/// # Panics
/// If the text is not a Compose file.
#[must_use]
pub fn source(yaml: &str, variables: &[(&str, &str)]) -> Loaded {
    let files = MemoryFiles::from([("/srv/shop/compose.yaml", yaml)]);
    let request = Request {
        working_dir: "/srv/shop".into(),
        project_name: Some(PROJECT.to_owned()),
        environment: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Request::default()
    };
    load(&request, &files).unwrap_or_else(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", problems.join("\n"))
    })
}

/// The desired state that a Compose file describes, every image being on the engine.
///
/// `x-images` says more about images: `{db:v1: {volumes: [/data], healthcheck: true, pull: true}}`.
///
/// # Panics
/// If the text is not a Compose file.
#[must_use]
pub fn desired(yaml: &str) -> Desired {
    // Loading takes longer than most tests, and some ask for one file a thousand times.
    static KNOWN: Mutex<BTreeMap<String, Desired>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(desired) = known().get(yaml) {
        return desired.clone();
    }
    let desired = make(yaml);
    known().insert(yaml.to_owned(), desired.clone());
    desired
}

fn make(yaml: &str) -> Desired {
    let loaded = source(yaml, &[]);
    let project = loaded.project;
    let mut desired = Desired {
        project: project.name.clone(),
        environment: ENVIRONMENT.to_owned(),
        working_dir: "/srv/shop".to_owned(),
        config_files: vec!["/srv/shop/compose.yaml".to_owned()],
        compose: project.clone(),
        services: BTreeMap::new(),
        routes: serde_json::from_value(loaded.canonical["x-routes"].clone()).unwrap_or_default(),
    };
    for (name, service) in &project.services {
        let reference = service.image.clone().unwrap_or_else(|| format!("shop-{name}:latest"));
        let mut pin = pin(&reference);
        let more = &loaded.canonical["x-images"][&reference];
        if let Some(info) = &mut pin.info {
            info.has_healthcheck = more["healthcheck"] == true;
            let volumes = more["volumes"].as_array().into_iter().flatten();
            info.volumes = volumes.filter_map(|v| v.as_str().map(str::to_owned)).collect();
        }
        if more["pull"] == true {
            pin.origin = ImageOrigin::Pull;
            pin.digest = Some(format!("sha256:digest-of-{reference}"));
            (pin.id, pin.info) = (None, None);
        } else if service.build.is_some() {
            pin.origin = ImageOrigin::Build;
            (pin.id, pin.info) = (None, None);
        }
        let files: Vec<InjectedFile> = Vec::new();
        let mut spec = ServiceSpec {
            name: name.clone(),
            service: service.clone(),
            replicas: service.replicas(),
            routed: desired.routes.ports_of(name),
            image: pin,
            fields: shiplap_plan::fields_of(&project, service, &files, &[]),
            facts: Fields::new(),
            files,
        };
        spec.facts = fake_facts(&spec);
        desired.services.insert(name.clone(), spec);
    }
    desired
}

/// The id that an image of this name has here: readable in a plan.
#[must_use]
pub fn image_id(reference: &str) -> String {
    format!("sha256:{reference}")
}

/// An image of this name.
#[must_use]
pub fn image_info(reference: &str) -> ImageInfo {
    ImageInfo {
        id: image_id(reference),
        tags: vec![reference.to_owned()],
        size_bytes: 1,
        ..ImageInfo::default()
    }
}

/// An image of this name, pinned.
#[must_use]
pub fn pin(reference: &str) -> ImagePin {
    ImagePin {
        reference: reference.to_owned(),
        id: Some(image_id(reference)),
        digest: None,
        origin: ImageOrigin::Local,
        info: Some(image_info(reference)),
    }
}
