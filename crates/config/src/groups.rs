//! Environments that are deployed together.

use shiplap_compose::Diagnostic;
use shiplap_compose::document::nearest_word;

use crate::Config;

impl Config {
    /// The groups' names, in the order of the file.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.file.groups.keys().map(String::as_str)
    }

    /// The environments of a group, in the order of the file; nothing where there is no such group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&[String]> {
        self.file.groups.get(name).map(Vec::as_slice)
    }

    /// That a group was named where only one environment can be meant.
    pub(crate) fn is_group(&self, name: &str, members: &[String]) -> Diagnostic {
        let message = format!("`{name}` is a group of environments; this is for one of them");
        let at = self.at(&["groups", name]);
        let one = members.first().map_or("ENVIRONMENT", String::as_str);
        Diagnostic::error("config/is-group", message)
            .at(at.key_location(), "a group")
            .help(format!("it has {}: `-e {one}`, for one", members.join(", ")))
    }
}

/// That groups have names of their own, and members that there are.
pub(crate) fn check(config: &Config, problems: &mut Vec<Diagnostic>) {
    let known: Vec<&str> = config.environments().collect();
    for (name, members) in &config.file.groups {
        let here = config.at(&["groups", name]);
        let wrong = |message: String, label: &str| {
            Diagnostic::error("config/wrong-value", message).at(here.key_location(), label)
        };
        if !crate::is_name(name) {
            problems
                .push(wrong(format!("a group cannot be called `{name}`"), "not a name").help(
                    "lower-case letters, digits, `-` and `_`, the first a letter or a digit",
                ));
        }
        if known.contains(&name.as_str()) {
            let message = format!("`{name}` is both a group and an environment");
            problems.push(
                wrong(message, "an environment has this name")
                    .help("`-e` takes either: give one of them another name"),
            );
        }
        if members.is_empty() {
            let message = format!("group `{name}` has no environments");
            problems
                .push(wrong(message, "nothing to deploy").help(format!("`{name}: [core, proxy]`")));
        }
        for (index, member) in members.iter().enumerate() {
            let at = config.at(&["groups", name, &index.to_string()]);
            if members[..index].contains(member) {
                let message = format!("group `{name}` names `{member}` twice");
                problems.push(at.error("config/wrong-value", message, "it is there already"));
            }
            if known.contains(&member.as_str()) {
                continue;
            }
            let message = format!("there is no environment `{member}`");
            let problem = at.error("config/unknown-environment", message, "no such environment");
            problems.push(match nearest_word(member, known.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None if known.is_empty() => {
                    problem.help(format!("`environments: {{ {member}: {{}} }}`"))
                }
                None => problem.help(format!("there are {}", known.join(", "))),
            });
        }
    }
}
