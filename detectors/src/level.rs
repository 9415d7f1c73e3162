//! Severity levels (Sigma's five) and Falco's eight priorities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Sigma's levels, least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Context, no action.
    Informational,
    /// Worth a look in bulk.
    Low,
    /// Worth a look today.
    Medium,
    /// Look now.
    High,
    /// Wake somebody.
    Critical,
}

impl Level {
    /// All levels, least severe first.
    pub const ALL: [Level; 5] =
        [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical];

    /// The level's name in rules, flags and alerts.
    pub fn name(self) -> &'static str {
        match self {
            Level::Informational => "informational",
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }

    /// The Falco priority that an alert of this level carries.
    pub fn priority(self) -> &'static str {
        match self {
            Level::Informational => "Informational",
            Level::Low => "Notice",
            Level::Medium => "Warning",
            Level::High => "Error",
            Level::Critical => "Critical",
        }
    }

    /// The next level up; critical stays.
    #[must_use]
    pub fn raised(self) -> Level {
        match self {
            Level::Informational => Level::Low,
            Level::Low => Level::Medium,
            Level::Medium => Level::High,
            Level::High | Level::Critical => Level::Critical,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(s: &str) -> Result<Level, String> {
        match s {
            "info" => Ok(Level::Informational),
            _ => Level::ALL.into_iter().find(|l| l.name() == s).ok_or_else(|| {
                format!("unknown level `{s}`: use informational, low, medium, high or critical")
            }),
        }
    }
}
