//! Reports of scanners: SARIF and CycloneDX.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shiplap_config::{ReportFormat, Weight};

/// What a scanner has found in an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// By name; the worst, where one was found in several places. One without a weight that can be
    /// read counts as the worst: what is not known is not harmless.
    pub found: BTreeMap<String, Weight>,
}

impl Findings {
    /// Those that are too much.
    pub fn above(&self, limit: Weight, ignore: &BTreeSet<String>) -> Vec<&str> {
        let mut above: Vec<(&str, Weight)> = self
            .found
            .iter()
            .filter(|(name, weight)| **weight >= limit && !ignore.contains(*name))
            .map(|(name, weight)| (name.as_str(), *weight))
            .collect();
        above.sort_by_key(|(name, weight)| (std::cmp::Reverse(*weight), *name));
        above.into_iter().map(|(name, _)| name).collect()
    }

    /// How many of which weight: `1 critical, 3 high`.
    pub fn words(&self) -> String {
        let weights = [
            (Weight::Critical, "critical"),
            (Weight::High, "high"),
            (Weight::Medium, "medium"),
            (Weight::Low, "low"),
        ];
        let counted = weights.into_iter().filter_map(|(weight, word)| {
            let count = self.found.values().filter(|found| **found == weight).count();
            (count > 0).then(|| format!("{count} {word}"))
        });
        let counted: Vec<String> = counted.collect();
        if counted.is_empty() { "nothing found".to_owned() } else { counted.join(", ") }
    }

    fn add(&mut self, name: &str, weight: Weight) {
        let known = self.found.entry(name.to_owned()).or_insert(weight);
        *known = (*known).max(weight);
    }
}

/// Reads a report.
///
/// # Errors
/// When it is not of its form: a report that cannot be read says nothing good.
pub fn read(bytes: &[u8], format: ReportFormat) -> Result<Findings, String> {
    let report: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
    match format {
        ReportFormat::Sarif => sarif(&report),
        ReportFormat::Cyclonedx => cyclonedx(&report),
    }
}

fn sarif(report: &Value) -> Result<Findings, String> {
    if report["version"] != "2.1.0" {
        return Err("it is not SARIF 2.1.0".to_owned());
    }
    let runs = report["runs"].as_array().filter(|runs| !runs.is_empty());
    let runs = runs.ok_or("it has no run of a scanner in it")?;
    let mut findings = Findings::default();
    for run in runs {
        // A scanner says so when it could not finish; its list is not whole then.
        let invocations = run["invocations"].as_array().into_iter().flatten();
        if invocations.into_iter().any(|one| one["executionSuccessful"] == false) {
            return Err("its scanner says that it did not finish".to_owned());
        }
        let results = run["results"].as_array().ok_or("a run in it has no results")?;
        let rules = run["tool"]["driver"]["rules"].as_array().map(Vec::as_slice);
        let rules = rules.unwrap_or_default();
        for result in results {
            let suppressed = result["suppressions"].as_array().is_some_and(|all| !all.is_empty());
            if suppressed {
                continue;
            }
            let index = result["ruleIndex"].as_u64().and_then(|index| usize::try_from(index).ok());
            let id = result["ruleId"].as_str().or_else(|| result["rule"]["id"].as_str());
            let rule = match (id, index) {
                (Some(id), _) => rules.iter().find(|rule| rule["id"] == id),
                (None, Some(index)) => rules.get(index),
                (None, None) => None,
            };
            let id = id.or_else(|| rule?["id"].as_str()).ok_or("a result in it has no name")?;
            findings.add(id, sarif_weight(result, rule.unwrap_or(&Value::Null)));
        }
    }
    Ok(findings)
}

/// The number that scanners write besides (`security-severity`, as CVSS), else the level, in which
/// `error` stands for high and critical alike.
fn sarif_weight(result: &Value, rule: &Value) -> Weight {
    let scores =
        [&result["properties"]["security-severity"], &rule["properties"]["security-severity"]];
    if let Some(weight) = scores.into_iter().find_map(score) {
        return weight;
    }
    let level = result["level"].as_str().or_else(|| rule["defaultConfiguration"]["level"].as_str());
    match level {
        Some("none" | "note") => Weight::Low,
        Some("warning") => Weight::Medium,
        Some("error") => Weight::High,
        // SARIF says that a result without any level is a warning.
        None => Weight::Medium,
        Some(_) => Weight::Critical,
    }
}

fn score(value: &Value) -> Option<Weight> {
    let score = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    Some(match score {
        score if score >= 9.0 => Weight::Critical,
        score if score >= 7.0 => Weight::High,
        score if score >= 4.0 => Weight::Medium,
        score if score >= 0.0 => Weight::Low,
        _ => Weight::Critical,
    })
}

fn cyclonedx(report: &Value) -> Result<Findings, String> {
    if report["bomFormat"] != "CycloneDX" {
        return Err("it is not CycloneDX".to_owned());
    }
    // A list of parts alone says nothing of their holes.
    let holes = report["vulnerabilities"].as_array();
    let holes = holes.ok_or("it has no `vulnerabilities`: it lists parts, and was not scanned")?;
    let mut findings = Findings::default();
    for hole in holes {
        let id = hole["id"].as_str().ok_or("a vulnerability in it has no id")?;
        let state = hole["analysis"]["state"].as_str().unwrap_or_default();
        if matches!(state, "false_positive" | "not_affected" | "resolved") {
            continue;
        }
        let ratings = hole["ratings"].as_array().into_iter().flatten();
        let worst = ratings.filter_map(rating).max();
        findings.add(id, worst.unwrap_or(Weight::Critical));
    }
    Ok(findings)
}

fn rating(rating: &Value) -> Option<Weight> {
    match rating["severity"].as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("critical") => Some(Weight::Critical),
        Some("high") => Some(Weight::High),
        Some("medium") => Some(Weight::Medium),
        Some("low" | "info" | "none" | "negligible") => Some(Weight::Low),
        Some(_) | None => score(&rating["score"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(report: &Value, format: ReportFormat) -> Vec<(String, Weight)> {
        read(report.to_string().as_bytes(), format).unwrap().found.into_iter().collect()
    }

    #[test]
    fn sarif_is_weighed_by_its_score_and_else_by_its_level() {
        let rule =
            |id: &str, score: &str| json!({"id": id, "properties": {"security-severity": score}});
        let report = json!({"version": "2.1.0", "runs": [{
            "tool": {"driver": {"rules": [rule("CVE-1", "9.8"), rule("CVE-2", "5.0")]}},
            "results": [
                {"ruleId": "CVE-1", "level": "error"}, {"ruleIndex": 1, "level": "error"},
                {"ruleId": "LEVEL", "level": "error"}, {"ruleId": "NOTHING"},
                {"ruleId": "ODD", "level": "what"},
                {"ruleId": "ACCEPTED", "level": "error", "suppressions": [{"kind": "external"}]},
            ],
        }]});
        let expected = [
            ("CVE-1", Weight::Critical),
            ("CVE-2", Weight::Medium),
            ("LEVEL", Weight::High),
            ("NOTHING", Weight::Medium),
            ("ODD", Weight::Critical),
        ];
        let expected = expected.map(|(name, weight)| (name.to_owned(), weight));
        assert_eq!(found(&report, ReportFormat::Sarif), expected);
    }

    #[test]
    fn cyclonedx_is_weighed_by_the_worst_rating() {
        let report = json!({"bomFormat": "CycloneDX", "vulnerabilities": [
            {"id": "CVE-1", "ratings": [{"severity": "low"}, {"severity": "HIGH"}]},
            {"id": "CVE-2", "ratings": [{"score": 9.1, "severity": "unknown"}]},
            {"id": "CVE-3"},
            {"id": "CVE-4", "ratings": [{"severity": "critical"}],
                "analysis": {"state": "not_affected"}},
        ]});
        let expected =
            [("CVE-1", Weight::High), ("CVE-2", Weight::Critical), ("CVE-3", Weight::Critical)];
        let expected = expected.map(|(name, weight)| (name.to_owned(), weight));
        assert_eq!(found(&report, ReportFormat::Cyclonedx), expected);
    }

    #[test]
    fn what_cannot_be_read_is_no_report() {
        let sarif = |text: &str| read(text.as_bytes(), ReportFormat::Sarif).unwrap_err();
        assert!(sarif("<html>").contains("not JSON"));
        assert!(sarif("{}").contains("not SARIF"));
        assert!(sarif(r#"{"version":"2.1.0","runs":[]}"#).contains("no run"));
        assert!(sarif(r#"{"version":"2.1.0","runs":[{}]}"#).contains("no results"));
        let broken = json!({"version": "2.1.0", "runs": [{
            "invocations": [{"executionSuccessful": false}], "results": [],
        }]});
        assert!(sarif(&broken.to_string()).contains("did not finish"));
        let cyclonedx = |text: &str| read(text.as_bytes(), ReportFormat::Cyclonedx).unwrap_err();
        assert!(cyclonedx(r#"{"version":"2.1.0"}"#).contains("not CycloneDX"));
        assert!(cyclonedx(r#"{"bomFormat":"CycloneDX"}"#).contains("was not scanned"));
    }

    #[test]
    fn what_is_accepted_is_not_too_much() {
        let mut findings = Findings::default();
        for (name, weight) in
            [("B", Weight::High), ("A", Weight::High), ("C", Weight::Critical), ("D", Weight::Low)]
        {
            findings.add(name, weight);
        }
        let ignore = BTreeSet::from(["A".to_owned()]);
        assert_eq!(findings.above(Weight::High, &ignore), ["C", "B"]);
        assert_eq!(findings.words(), "1 critical, 2 high, 1 low");
        assert_eq!(Findings::default().words(), "nothing found");
    }
}
