//! What a project's files mention, before anybody has to give it values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::dotenv::{self, DotenvError};
use crate::load::{Merged, Steps, merge_files};
use crate::node::{Node, Value};
use crate::request::Request;
use crate::source::FileSource;

/// What a project's files mention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The project's name.
    pub project: String,
    /// Variables whose values are looked up: in texts of the files, of `.env` and of `env_file`,
    /// and those that a service names without a value.
    pub variables: BTreeSet<String>,
    /// Variables that have a value: the process's, then those of `.env`.
    pub environment: BTreeMap<String, String>,
    /// All services, those of inactive profiles too.
    pub services: BTreeMap<String, SurveyedService>,
}

/// What the files mention of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurveyedService {
    /// Its image, as far as variables have values.
    pub image: Option<String>,
    /// Its variables with what the file gives them. Nothing where it only names them, and where a
    /// value is made of other variables it is left out altogether.
    pub environment: BTreeMap<String, Option<String>>,
    /// The container's ports of `ports` and `expose`; ranges are left out.
    pub ports: BTreeSet<u16>,
}

/// Reads a project's files for what they mention. Values that are missing are no error here, nor is
/// anything that [`crate::load`] tells better.
///
/// ```
/// use shiplap_compose::{MemoryFiles, Request, survey};
///
/// let files = MemoryFiles::from([(
///     "/shop/compose.yaml",
///     "services: {db: {image: postgres, environment: ['PASSWORD=${SECRET:?}', 'TOKEN']}}",
/// )]);
/// let request = Request { working_dir: "/shop".into(), ..Request::default() };
/// let survey = survey(&request, &files).unwrap();
///
/// assert!(survey.variables.iter().eq(["SECRET", "TOKEN"]));
/// ```
///
/// # Errors
/// When there are no files, or the project's name is none.
pub fn survey(request: &Request, files: &dyn FileSource) -> Result<Survey, Vec<Diagnostic>> {
    let Merged { tree, name, found, mut ctx } =
        merge_files(request, files, Steps { survey: true, ..Steps::default() })?;
    if ctx.diagnostics.iter().any(|diagnostic| diagnostic.code == "compose/project-name") {
        return Err(ctx.diagnostics);
    }
    let mut survey = Survey { project: name, environment: found.environment, ..Survey::default() };
    let services = tree.get("services").and_then(Node::as_map);
    for (name, node) in services.into_iter().flatten() {
        let service = service(node);
        let entries = service.environment.iter();
        let named = entries.filter(|(_, value)| value.is_none()).map(|(name, _)| name.clone());
        survey.variables.extend(named);
        survey.services.insert(name.clone(), service);
        mention_env_files(node, &mut ctx);
    }
    survey.variables.extend(ctx.mentioned.unwrap_or_default());
    Ok(survey)
}

/// The variables of a text in the form of a `.env` file, in its order. Values may use earlier ones,
/// and those of `environment` before them.
///
/// # Errors
/// The first line that is not of the form; never with a value.
pub fn read_dotenv(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, DotenvError> {
    let mut variables = dotenv::Variables::new();
    dotenv::parse(text, &mut variables, &|name| environment.get(name).cloned())?;
    Ok(variables.into_iter().collect())
}

fn service(node: &Node) -> SurveyedService {
    let mut service =
        SurveyedService { image: node.text_at("image").map(str::to_owned), ..Default::default() };
    match node.get("environment").map(|environment| &environment.value) {
        Some(Value::Map(map)) => {
            for (name, value) in map {
                if !value.interpolated {
                    service.environment.insert(name.clone(), value.scalar_text());
                }
            }
        }
        Some(Value::List(items)) => {
            for item in items.iter().filter(|item| !item.interpolated) {
                let Some(text) = item.as_text() else { continue };
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (text, None),
                };
                service.environment.insert(name.to_owned(), value);
            }
        }
        _ => {}
    }
    let items = |key: &str| node.get(key).and_then(Node::as_list).unwrap_or_default();
    let exposed = items("expose").iter().filter_map(Node::scalar_text);
    let published = items("ports").iter().filter_map(|port| port.get("target")?.scalar_text());
    let number = |port: String| port.split('/').next()?.parse().ok();
    service.ports = exposed.chain(published).filter_map(number).collect();
    service
}

/// Notes the variables that a service's `env_file`s look up.
fn mention_env_files(service: &Node, ctx: &mut Context<'_>) {
    let files = service.get("env_file").and_then(Node::as_list).unwrap_or_default();
    for path in files.iter().filter_map(|file| file.text_at("path").or(file.as_text())) {
        if let Ok(text) = ctx.read(Path::new(path)) {
            dotenv::mention(&text, &mut |name| ctx.mention(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFiles;

    fn check(files: &[(&str, &str)]) -> Survey {
        let files: MemoryFiles = files.iter().copied().collect();
        let request = Request {
            working_dir: "/shop".into(),
            environment: BTreeMap::from([("SET".into(), "value".into())]),
            ..Request::default()
        };
        survey(&request, &files).unwrap()
    }

    #[test]
    fn every_place_that_looks_up_a_variable_is_seen() {
        let survey = check(&[
            (
                "/shop/compose.yaml",
                "name: shop\ninclude: [more.yaml]\nservices:\n  web:\n    image: a:${TAG:?}\n    \
                 env_file: [web.env]\n    environment:\n      SET:\n      MAP: ${IN_MAP-${IN_DEFAULT}}\n  \
                 idle: {image: b, profiles: [x], environment: [NAMED, 'LIST=$IN_LIST']}\n",
            ),
            ("/shop/more.yaml", "services: {db: {image: '$IN_INCLUDE', command: 'a $$no'}}"),
            ("/shop/.env", "URL=x$IN_DOTENV\nBARE\n"),
            ("/shop/web.env", "W=${IN_ENV_FILE:?}\n"),
        ]);
        let variables: Vec<&str> = survey.variables.iter().map(String::as_str).collect();
        assert_eq!(
            variables,
            [
                "BARE",
                "IN_DEFAULT",
                "IN_DOTENV",
                "IN_ENV_FILE",
                "IN_INCLUDE",
                "IN_LIST",
                "IN_MAP",
                "NAMED",
                "SET",
                "TAG"
            ]
        );
        assert_eq!(survey.project, "shop");
    }

    #[test]
    fn what_services_give_their_variables_and_which_ports_they_have() {
        let survey = check(&[(
            "/shop/compose.yaml",
            "services:\n  map:\n    image: a\n    environment: {N: , T: /path, V: '$SET', I: 3}\n    \
             expose: ['3000', '4000/tcp']\n  list:\n    image: a\n    environment: [N, T=/path, 'V=$SET']\n    \
             ports: ['8080:80', '9000-9001:90-91']\n",
        )]);
        let map = &survey.services["map"];
        let text = |text: &str| Some(text.to_string());
        let entries: Vec<(&str, Option<String>)> =
            map.environment.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(entries, [("I", text("3")), ("N", None), ("T", text("/path"))]);
        assert!(map.ports.iter().eq(&[3000, 4000]));
        let list = &survey.services["list"];
        assert_eq!(list.environment.get("N"), Some(&None));
        assert_eq!(list.environment.get("T"), Some(&text("/path")));
        assert!(!list.environment.contains_key("V"));
        assert!(list.ports.contains(&80));
    }

    #[test]
    fn what_is_wrong_with_the_files_is_left_to_loading() {
        let survey =
            check(&[("/shop/compose.yaml", "services: {web: {imago: '${A!}', ports: [x]}}")]);
        assert_eq!(survey.services.len(), 1);
    }

    #[test]
    fn dotenv_is_read_as_compose_reads_it() {
        let outside = BTreeMap::from([("OUT".to_string(), "o".to_string())]);
        let read = read_dotenv("A='1 # 2'\nB=$OUT-$A\n", &outside).unwrap();
        assert_eq!(read, [("A".into(), "1 # 2".into()), ("B".into(), "o-1 # 2".into())]);
        let error = read_dotenv("A=1\nB='hush\n", &outside).unwrap_err().to_string();
        assert_eq!(error, "line 2: the quote of `B` is not closed");
    }
}
