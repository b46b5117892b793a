//! Which defect is switched on in this process. Chosen once: before anything else, or by the environment when it is first asked.

use std::{env, fmt, str::FromStr, sync::OnceLock};

use crate::Defect;

/// Where a test finds the name of the defect that it runs with.
pub const ENVIRONMENT: &str = "ONCELOG_DEFECT";

/// Switches a defect on, for the life of this process.
///
/// # Panics
/// It is too late: another choice was made, or was asked for.
pub fn choose(defect: Defect) {
    assert_eq!(*CHOSEN.get_or_init(|| Some(defect)), Some(defect), "a process has one defect, from its beginning");
}

/// Is this defect switched on?
pub fn is_on(defect: Defect) -> bool {
    *CHOSEN.get_or_init(by_environment) == Some(defect)
}

fn by_environment() -> Option<Defect> {
    let name = env::var(ENVIRONMENT).ok()?;
    Some(name.parse().unwrap_or_else(|error| panic!("{ENVIRONMENT}: {error}")))
}

static CHOSEN: OnceLock<Option<Defect>> = OnceLock::new();

/// The name on the command line: that of the variant, in small letters with hyphens.
impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in format!("{self:?}").char_indices() {
            let hyphen = if at > 0 && letter.is_ascii_uppercase() { "-" } else { "" };
            write!(f, "{hyphen}{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl FromStr for Defect {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|defect| defect.to_string() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("there is no defect {name}; there is {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_defect() {
        for defect in Defect::ALL {
            assert_eq!(defect.to_string().parse(), Ok(*defect));
        }
        assert_eq!(Defect::SpanCountsUnresolved.to_string(), "span-counts-unresolved");
        assert!("span".parse::<Defect>().is_err());
    }
}
