//! Workflows that build a service's image and have it deployed, as git hosts run them.

mod found;
mod templates;

use std::fmt;

use shiplap_model::Reference;

pub use found::Found;

/// A host of git repositories that runs workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Host {
    /// Forgejo, and Gitea
    Forgejo,
    /// GitHub
    Github,
    /// GitLab
    Gitlab,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forgejo => "Forgejo",
            Self::Github => "GitHub",
            Self::Gitlab => "GitLab",
        })
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Trigger {
    pub service: Option<String>,
    pub input: Option<String>,
    pub image: Option<String>,
    pub branch: Option<String>,
}

/// A workflow that is to be written. All that goes into it was checked: nothing of it means anything
/// to YAML or to a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    host: Host,
    /// `owner/name`
    repository: String,
    service: String,
    input: String,
    image: String,
    branch: String,
    /// From the repository's root.
    dockerfile: String,
    /// Whether the image is scanned.
    pub scan: bool,
    /// Whether it is signed.
    pub sign: bool,
}

impl Workflow {
    /// Puts together what was found and what was said.
    ///
    /// # Errors
    /// What is missing, or cannot be used.
    pub fn new(
        host: Host,
        found: &Found,
        dockerfile: String,
        given: Trigger,
    ) -> Result<Self, String> {
        let repository =
            found.repository.clone().filter(|name| is_path(name)).ok_or(
                "the repository's name is not known: `git remote get-url origin` names none",
            )?;
        let name = repository.rsplit('/').next().unwrap_or(&repository).to_ascii_lowercase();
        let service = given.service.unwrap_or(name);
        if !shiplap_config::is_name(&service) {
            return Err(format!("a service cannot be called `{service}`: --service NAME"));
        }
        let input =
            given.input.unwrap_or_else(|| format!("{}_image_tag", service.replace('-', "_")));
        if !is_word(&input) {
            return Err(format!("an input cannot be called `{input}`"));
        }
        let usual = || Some(usual_image(host, found.host.as_deref()?, &repository));
        let image = given.image.or_else(usual).ok_or("the registry is not known: --image IMAGE")?;
        let parsed = Reference::parse(&image).map_err(|error| error.to_string())?;
        let last = image.rsplit('/').next().unwrap_or(&image);
        if parsed.digest.is_some() || last.contains(':') {
            return Err(format!("`{image}` has a tag: every commit gets one of its own"));
        }
        let branch = given.branch.or_else(|| found.branch.clone());
        let branch = branch.unwrap_or_else(|| "main".to_owned());
        if !is_path(&branch) {
            return Err(format!("a branch cannot be called `{branch}` here: --branch NAME"));
        }
        if !is_path(&dockerfile) {
            return Err(format!("the path `{dockerfile}` has letters that shells know"));
        }
        let (scan, sign) = (false, false);
        Ok(Self { host, repository, service, input, image, branch, dockerfile, scan, sign })
    }

    /// Where it is, from the repository's root.
    pub fn path(&self) -> &'static str {
        match self.host {
            Host::Forgejo => ".forgejo/workflows/deploy.yml",
            Host::Github => ".github/workflows/deploy.yml",
            Host::Gitlab => ".gitlab-ci.yml",
        }
    }

    /// What it needs of the git host's secrets, and for what.
    pub fn needs(&self) -> Vec<(&'static str, String)> {
        let mut needs = vec![
            ("SHIPLAP_URL", "where `shiplap serve` answers, such as https://deploy.example".into()),
            (
                "SHIPLAP_TOKEN",
                format!("one of `shiplap token`, for deploying {} alone", self.service),
            ),
        ];
        if self.host == Host::Forgejo {
            let host = self.image.split('/').next().unwrap_or_default();
            needs.push(("REGISTRY_USER", format!("who may push to {host}")));
            needs.push(("REGISTRY_TOKEN", "an access token of that user, for packages".into()));
        }
        if self.sign {
            needs.push(("COSIGN_PRIVATE_KEY", "`cosign generate-key-pair`: cosign.key".into()));
            needs.push(("COSIGN_PASSWORD", "its password".into()));
        }
        needs
    }

    /// The part of shiplap.yaml that understands it.
    pub fn trigger(&self) -> String {
        format!(
            "triggers:\n  dispatch:\n    - repository: {}\n      workflow: deploy.yml\n      \
             inputs: {{ {}: prod/{} }}",
            self.repository, self.input, self.service
        )
    }

    /// The file.
    pub fn text(&self) -> String {
        templates::text(self)
    }
}

/// As a git host's own registry names the image of a repository.
fn usual_image(host: Host, server: &str, repository: &str) -> String {
    let repository = repository.to_ascii_lowercase();
    match host {
        Host::Forgejo => format!("{server}/{repository}"),
        Host::Github => format!("ghcr.io/{repository}"),
        Host::Gitlab if server == "gitlab.com" => format!("registry.gitlab.com/{repository}"),
        Host::Gitlab => format!("registry.{server}/{repository}"),
    }
}

/// Whether a text is a path of words that neither YAML nor a shell reads anything into.
fn is_path(text: &str) -> bool {
    !text.is_empty() && text.split('/').all(|part| is_word(part) && part != "." && part != "..")
}

fn is_word(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found(remote: &str) -> Found {
        Found { branch: Some("main".to_owned()), ..Found::default() }.with_remote(remote)
    }

    fn workflow(host: Host, remote: &str) -> Workflow {
        let dockerfile = "Dockerfile".to_owned();
        Workflow::new(host, &found(remote), dockerfile, Trigger::default()).unwrap()
    }

    const HOSTS: [(Host, &str, &str); 3] = [
        (Host::Forgejo, "git@git.example:Team/api.git", "git.example/team/api"),
        (Host::Github, "https://github.com/Team/api", "ghcr.io/team/api"),
        (Host::Gitlab, "https://gitlab.com/team/api.git", "registry.gitlab.com/team/api"),
    ];

    #[test]
    fn what_is_written_is_yaml_and_says_where_the_image_goes() {
        for (host, remote, image) in HOSTS {
            for (scan, sign) in [(false, false), (true, true)] {
                let workflow = Workflow { scan, sign, ..workflow(host, remote) };
                let text = workflow.text();
                let path = Path::new(workflow.path());
                let document = shiplap_compose::document::Document::parse(path, &text);
                let json = document.unwrap_or_else(|bad| panic!("{bad}\n{text}")).root().to_json();
                assert!(json.as_object().is_some_and(|map| map.len() >= 3), "{text}");
                assert!(text.contains(image), "{text}");
                assert!(text.contains("api_image_tag"), "{text}");
                assert_eq!(text.contains("trivy"), scan, "{text}");
                assert_eq!(text.contains("cosign"), sign, "{text}");
                // What stands for something else must have been filled in.
                assert!(!text.contains("@@"), "{text}");
            }
        }
    }

    #[test]
    fn the_address_is_the_one_that_the_git_hosts_have() {
        for (host, remote, _) in HOSTS {
            let workflow = workflow(host, remote);
            let path = format!(
                "/api/v1/repos/{}/actions/workflows/deploy.yml/dispatches",
                workflow.repository
            );
            assert!(workflow.text().contains(&path));
        }
    }

    #[test]
    fn a_secret_is_named_and_never_an_argument() {
        for (host, remote, _) in HOSTS {
            let text = Workflow { scan: true, sign: true, ..workflow(host, remote) }.text();
            // What the shell itself prints is nobody's argument.
            for program in ["docker login", "cosign login", "curl", "trivy"] {
                for (_, arguments) in text.lines().filter_map(|line| line.split_once(program)) {
                    let shown = arguments.contains("_TOKEN") || arguments.contains("_PASSWORD");
                    assert!(!shown, "{program}{arguments}");
                }
            }
        }
    }

    #[test]
    fn the_trigger_fits_shiplap_yaml() {
        let text = format!(
            "environments: {{ prod: {{}} }}\n{}\n",
            workflow(Host::Github, "https://github.com/team/api").trigger()
        );
        let config = shiplap_config::Config::parse(Path::new("/shop/shiplap.yaml"), &text).unwrap();
        let triggers = config.triggers();
        assert_eq!(triggers.dispatch[0].repository.as_deref(), Some("team/api"));
        assert_eq!(triggers.dispatch[0].inputs["api_image_tag"][0].service, "api");
    }

    #[test]
    fn what_means_something_to_a_shell_is_refused() {
        let new = |trigger: Trigger| {
            let found = found("https://github.com/team/api");
            Workflow::new(Host::Github, &found, "Dockerfile".to_owned(), trigger).is_err()
        };
        let text = |text: &str| Some(text.to_owned());
        assert!(!new(Trigger::default()));
        assert!(new(Trigger { service: text("a b"), ..Trigger::default() }));
        assert!(new(Trigger { input: text("a: b"), ..Trigger::default() }));
        assert!(new(Trigger { image: text("ghcr.io/a/b:v1"), ..Trigger::default() }));
        assert!(new(Trigger { image: text("$(id)"), ..Trigger::default() }));
        assert!(new(Trigger { branch: text("main'"), ..Trigger::default() }));
        assert!(new(Trigger { branch: text("../x"), ..Trigger::default() }));
    }
}
