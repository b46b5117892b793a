//! What one look found.

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Advice,
    /// Something does not work.
    Problem,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What was found, with the values.
    pub(super) what: String,
    /// What to do about it; always there if it is not good.
    pub(super) advice: Option<String>,
    /// The values, for programs.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub(super) values: serde_json::Map<String, serde_json::Value>,
}

impl Finding {
    pub(super) fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Good, what: what.into(), advice: None, values: serde_json::Map::new() }
    }

    pub(super) fn advice(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Advice, advice: Some(advice.into()), ..Self::good(check, what) }
    }

    pub(super) fn problem(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, advice: Some(advice.into()), ..Self::good(check, what) }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }
}
