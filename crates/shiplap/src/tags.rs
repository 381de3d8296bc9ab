//! Which variable of the files decides a service's tag, as in `image: shop/api:${API_TAG:-latest}`.
//!
//! It is found by trying: a variable is given a value that nothing else has, and the files are read
//! with it. So every way to write it counts, and none has to be parsed twice.

use std::collections::{BTreeMap, BTreeSet};

use shiplap_compose::{OsFiles, Request, survey};

/// A value that no tag has by chance, and that every tag may have.
const PROBE: &str = "0.shiplap.probe.0";

/// The variables that decide tags.
#[derive(Debug, Clone, Default)]
pub struct Tags {
    /// By service.
    of: BTreeMap<String, Variable>,
}

/// A variable that decides what a service's image is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    name: String,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// It is the tag of this repository.
    Tag { repository: String },
    /// It is the whole reference.
    Reference,
}

impl Tags {
    /// Reads the files as the loader is asked to, once per variable that they mention. Files that
    /// cannot be read have none.
    pub fn find(request: &Request) -> Self {
        let Ok(plain) = survey(request, &OsFiles) else { return Self::default() };
        let mut of = BTreeMap::new();
        // A service whose image several variables make has none that decides it.
        let mut unclear = BTreeSet::new();
        for name in &plain.variables {
            let mut probing = request.clone();
            probing.environment.insert(name.clone(), PROBE.to_owned());
            let Ok(probed) = survey(&probing, &OsFiles) else { continue };
            for (service, seen) in probed.services {
                let Some(image) = seen.image.filter(|image| image.contains(PROBE)) else {
                    continue;
                };
                // Where the registry is a variable too, that one is no tag and does no harm.
                let Some(form) = form(&image) else { continue };
                if of.insert(service.clone(), Variable { name: name.clone(), form }).is_some() {
                    unclear.insert(service);
                }
            }
        }
        of.retain(|service, _| !unclear.contains(service));
        Self { of }
    }

    /// The variable of a service, and the value with which its image is the one that is wanted: a
    /// tag or a whole reference. Nothing where the files leave no such choice.
    pub fn value(&self, service: &str, wanted: &str) -> Option<(String, String)> {
        let Variable { name, form } = self.of.get(service)?;
        let value = match form {
            Form::Reference if wanted.contains(['/', ':', '@']) => wanted,
            Form::Reference => return None,
            Form::Tag { repository } => match wanted.strip_prefix(repository.as_str()) {
                Some(rest) if rest.starts_with(':') => &rest[1..],
                _ => wanted,
            },
        };
        let fits = matches!(form, Form::Reference) || !value.contains(['/', ':', '@']);
        fits.then(|| (name.clone(), value.to_owned()))
    }

    /// All services whose image a variable decides.
    pub fn services_of(&self, variable: &str) -> impl Iterator<Item = &str> {
        let of = self.of.iter().filter(move |(_, known)| known.name == variable);
        of.map(|(service, _)| service.as_str())
    }
}

fn form(image: &str) -> Option<Form> {
    if image == PROBE {
        return Some(Form::Reference);
    }
    let repository = image.strip_suffix(PROBE)?.strip_suffix(':')?;
    (!repository.contains(PROBE)).then(|| Form::Tag { repository: repository.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Tags {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("compose.yaml"), text).expect("written");
        std::fs::write(folder.path().join(".env"), "API_TAG=v1\n").expect("written");
        Tags::find(&Request { working_dir: folder.path().into(), ..Request::default() })
    }

    #[test]
    fn every_way_to_write_a_tag_is_found() {
        let tags = tags(
            "services:\n  api: {image: '${REGISTRY:-127.0.0.1:5000}/shop/api:${API_TAG:-latest}'}\n  \
             job: {image: 'shop/api:$API_TAG'}\n  whole: {image: '${WHOLE:?}'}\n  \
             mixed: {image: 'shop/api:${API_TAG}-${ARCH}'}\n  fixed: {image: 'postgres:15'}\n",
        );
        let value = |service: &str, wanted: &str| tags.value(service, wanted);
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(value("api", "v2"), pair("API_TAG", "v2"));
        assert_eq!(value("api", "127.0.0.1:5000/shop/api:v2"), pair("API_TAG", "v2"));
        assert_eq!(value("api", "other/api:v2"), None);
        assert_eq!(value("whole", "shop/api:v2"), pair("WHOLE", "shop/api:v2"));
        assert_eq!(value("whole", "v2"), None);
        assert_eq!(value("mixed", "v2"), None);
        assert_eq!(value("fixed", "v2"), None);
        assert!(tags.services_of("API_TAG").eq(["api", "job"]));
    }

    #[test]
    fn files_that_cannot_be_read_have_none() {
        assert!(tags("services: [").of.is_empty());
    }
}
