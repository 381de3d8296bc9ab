//! How much of the suite is run.

/// Set to `all` by `make test-faults`.
const VARIABLE: &str = "SHIPLAP_FAULTS";

/// How much of the suite is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A few points of each matrix.
    Sample,
    /// Every one.
    All,
}

impl Extent {
    /// As the environment says.
    #[must_use]
    pub fn of_this_run() -> Self {
        match std::env::var(VARIABLE) {
            Ok(value) if value == "all" => Self::All,
            Ok(_) | Err(_) => Self::Sample,
        }
    }
}

/// All of them, or `few` spread evenly, the last one included.
#[must_use]
pub fn pick<T>(all: Vec<T>, few: usize) -> Vec<T> {
    match Extent::of_this_run() {
        Extent::All => all,
        Extent::Sample => spread(all, few),
    }
}

fn spread<T>(all: Vec<T>, few: usize) -> Vec<T> {
    if all.len() <= few {
        return all;
    }
    let length = all.len();
    let chosen = |index: usize| (index + 1) * few / length != index * few / length;
    all.into_iter().enumerate().filter(|(index, _)| chosen(*index)).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn a_few_are_spread_and_include_the_last() {
        assert_eq!(spread((1..=10).collect(), 3), [4, 7, 10]);
        assert_eq!(spread(vec![1, 2], 3), [1, 2]);
    }
}
