//! What is known of the terminal, if there is one.

use std::env;
use std::io::{self, IsTerminal};

use terminal_size::{Width, terminal_size_of};

use crate::cli::When;
use crate::sink::Page;

/// The page that standard output is.
pub(crate) fn stdout(color: When) -> Page {
    let out = io::stdout();
    let terminal = out.is_terminal();
    let width = terminal.then(|| terminal_size_of(&out)).flatten();
    Page { color: wants_color(color, terminal), width: width.map(|(Width(columns), _)| usize::from(columns)) }
}

/// The page that standard error is.
pub(crate) fn stderr(color: When) -> Page {
    let out = io::stderr();
    let terminal = out.is_terminal();
    let width = terminal.then(|| terminal_size_of(&out)).flatten();
    Page { color: wants_color(color, terminal), width: width.map(|(Width(columns), _)| usize::from(columns)) }
}

fn wants_color(color: When, terminal: bool) -> bool {
    colored(color, terminal, |name| env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The flag decides; then NO_COLOR (no-color.org), then CLICOLOR_FORCE and CLICOLOR (bixense.com/clicolors), then whether it
/// is a terminal that can show colours.
fn colored(color: When, terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    match color {
        When::Always => true,
        When::Never => false,
        When::Auto if variable("NO_COLOR").is_some() => false,
        When::Auto if variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        When::Auto => {
            let refused = variable("CLICOLOR").is_some_and(|value| value == "0");
            terminal && !refused && variable("TERM").is_none_or(|value| value != "dumb")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides_about_colours() {
        let set = |names: &'static [(&'static str, &'static str)]| {
            move |name: &str| {
                names.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string())
            }
        };
        for (flag, terminal, variables, expected) in [
            (When::Auto, true, &[][..], true),
            (When::Auto, false, &[], false),
            (When::Always, false, &[("NO_COLOR", "1")], true),
            (When::Never, true, &[("CLICOLOR_FORCE", "1")], false),
            (When::Auto, true, &[("NO_COLOR", "1")], false),
            (When::Auto, true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false),
            (When::Auto, false, &[("CLICOLOR_FORCE", "1")], true),
            (When::Auto, false, &[("CLICOLOR_FORCE", "0")], false),
            (When::Auto, true, &[("CLICOLOR", "0")], false),
            (When::Auto, true, &[("TERM", "dumb")], false),
        ] {
            assert_eq!(
                colored(flag, terminal, set(variables)),
                expected,
                "{flag:?} {terminal} {variables:?}"
            );
        }
    }
}
