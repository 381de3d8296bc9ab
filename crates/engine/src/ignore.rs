//! `.dockerignore`: which files of a build context stay at home.

/// The rules of a `.dockerignore` file.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    keeps: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Literal(char),
    /// `?`: one character of a name.
    One,
    /// `*`: any number of characters of a name.
    Many,
    /// `**/`: any number of folders, none among them.
    Folders,
    /// Its second half, always behind the first: within a folder's name.
    InFolders,
    /// `**` at the end: everything.
    Everything,
    /// `[a-z]`, `[^a-z]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Rules {
    /// Reads a file. Lines that say nothing are skipped.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.trim_start_matches('\u{feff}').lines();
        let rules = lines.filter(|line| !line.starts_with('#')).filter_map(|line| {
            let line = line.trim();
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = cleaned(pattern);
            (!pattern.is_empty()).then(|| Rule { keeps, tokens: tokens(&pattern) })
        });
        Self { rules: rules.collect() }
    }

    /// Whether a path, relative to the context and with `/`, is left out. The last rule that
    /// matches it or a folder above it decides.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            if rule.keeps == excluded && rule.covers(path) {
                excluded = !rule.keeps;
            }
        }
        excluded
    }

    /// Whether something below an excluded folder may be kept after all.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }
}

impl Rule {
    fn covers(&self, path: &str) -> bool {
        let above = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &path[..at]);
        above.chain([path]).any(|path| matches(&self.tokens, path))
    }
}

/// `./a//b/../c/` to `a/c`, as Go's `filepath.Clean` does, without the leading slash.
fn cleaned(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        let token = match c {
            '*' if rest.peek() == Some(&'*') => {
                while rest.next_if_eq(&'*').is_some() {}
                if rest.next_if_eq(&'/').is_some() {
                    out.push(Token::Folders);
                    Token::InFolders
                } else {
                    Token::Everything
                }
            }
            '*' => Token::Many,
            '?' => Token::One,
            '[' => class(&mut rest),
            '\\' => Token::Literal(rest.next().unwrap_or('\\')),
            c => Token::Literal(c),
        };
        out.push(token);
    }
    out
}

fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Token {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while let Some(c) = rest.next() {
        let first = match c {
            ']' => break,
            '\\' => rest.next().unwrap_or('\\'),
            c => c,
        };
        let mut last = first;
        if rest.next_if_eq(&'-').is_some() {
            last = rest.next().unwrap_or('-');
        }
        ranges.push((first, last));
    }
    Token::Class { negated, ranges }
}

/// Follows all ways through the pattern at once, so that no pattern takes exponential time.
fn matches(tokens: &[Token], text: &str) -> bool {
    let mut states = vec![false; tokens.len() + 1];
    states[0] = true;
    skip_empty(tokens, &mut states);
    for c in text.chars() {
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
            match token {
                Token::Literal(own) => next[at + 1] |= *own == c,
                Token::One => next[at + 1] |= c != '/',
                Token::Many => next[at] |= c != '/',
                Token::Everything => next[at] = true,
                Token::Folders => next[at + 1] = true,
                Token::InFolders => {
                    next[at] = true;
                    next[at + 1] |= c == '/';
                }
                Token::Class { negated, ranges } => {
                    let inside = ranges.iter().any(|(a, z)| (*a..=*z).contains(&c));
                    next[at + 1] |= inside != *negated && c != '/';
                }
            }
        }
        skip_empty(tokens, &mut next);
        states = next;
    }
    states[tokens.len()]
}

/// Wildcards may stand for nothing.
fn skip_empty(tokens: &[Token], states: &mut [bool]) {
    for at in (0..tokens.len()).filter(|at| !matches!(tokens[*at], Token::InFolders)) {
        match tokens[at] {
            Token::Many | Token::Everything if states[at] => states[at + 1] = true,
            // Past its second half, too.
            Token::Folders if states[at] => states[at + 2] = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, excluded: &[&str], kept: &[&str]) {
        let rules = Rules::parse(rules);
        for path in excluded {
            assert!(rules.excludes(path), "{path} is kept");
        }
        for path in kept {
            assert!(!rules.excludes(path), "{path} is left out");
        }
    }

    #[test]
    fn a_rule_covers_a_path_and_what_is_below() {
        check("/node_modules/\n", &["node_modules", "node_modules/a/b"], &["web/node_modules"]);
        check("./a/../b", &["b", "b/c"], &["a"]);
    }

    #[test]
    fn wildcards_stay_within_a_name() {
        check("*.md", &["a.md", ".md"], &["docs/a.md", "a.mdx"]);
        check("*/temp?", &["a/temp1", "b/tempx/y"], &["temp1", "a/b/temp1", "a/temp"]);
        check("[a-c]x\n[^a]y", &["ax", "by"], &["dx", "ay"]);
    }

    #[test]
    fn two_stars_cross_folders() {
        check("**/*.pyc", &["a.pyc", "a/b/c.pyc"], &["a.py", "a.pyc.txt"]);
        check("**/foo", &["foo", "a/foo", "a/b/foo/c"], &["afoo", "a/xfoo"]);
        check("a/**", &["a/b", "a/b/c"], &["a", "b"]);
        check("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]);
        check("**", &["a", "a/b"], &[]);
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let rules = "# all but\n*\n!src\n!README.md\nsrc/secret*\n";
        check(rules, &["a", "src/secret.txt"], &["src", "src/main.rs", "README.md"]);
        check("*.md\n!*.md\nREADME.md", &["README.md"], &["a.md"]);
        check("docs\n!docs/keep", &["docs", "docs/x"], &["docs/keep", "docs/keep/y"]);
    }

    #[test]
    fn a_malicious_pattern_takes_no_time() {
        let rules = Rules::parse(&"*a".repeat(50));
        assert!(!rules.excludes(&"a".repeat(2000).replace("aaaa", "aaab")));
    }
}
