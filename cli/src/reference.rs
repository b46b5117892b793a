//! `oncelog reference`: docs/command.md, made from what `--help` says. A test compares the page with it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Arg, Command, CommandFactory};

use crate::{Cli, exit::Exit};

/// Writes the page to stdout.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    io::stdout().write_all(page(Cli::command()).as_bytes())?;
    Ok(Exit::Success.into())
}

fn page(mut command: Command) -> String {
    command.build();
    let mut page = String::from(HEAD);
    let about = |command: &Command| command.get_about().map(ToString::to_string).unwrap_or_default();
    page += "| command | what it does |\n|---|---|\n";
    for sub in visible(&command) {
        let _ = writeln!(page, "| [`oncelog {name}`](#oncelog-{name}) | {} |", about(sub), name = sub.get_name());
    }
    page += "\n## Exit codes\n\nThe same for every command.\n\n| code | meaning |\n|---|---|\n";
    for exit in Exit::ALL {
        let _ = writeln!(page, "| {} | {} |", exit.number(), exit.meaning());
    }
    for sub in visible(&command) {
        section(sub, "oncelog", &mut page);
    }
    page
}

/// A command's words and flags, and those of its sub-commands.
fn section(command: &Command, parent: &str, page: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    // Writing to a string does not fail.
    let _ = write!(page, "\n## {name}\n\n{about}\n");
    // What holds for all sub-commands stands with their parent.
    let is_said_above = |arg: &Arg| arg.is_global_set() && parent != "oncelog";
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set() && !is_everywhere(arg) && !is_said_above(arg));
    let args: Vec<&Arg> = args.collect();
    if !args.is_empty() {
        *page += "\n| argument | meaning |\n|---|---|\n";
    }
    for arg in args {
        let _ = writeln!(page, "| {} | {} |", word(arg), meaning(arg));
    }
    for sub in visible(command) {
        section(sub, &name, page);
    }
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

fn is_everywhere(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version" | "no_color")
}

fn word(arg: &Arg) -> String {
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match arg.get_long() {
        Some(long) if takes_value => format!("`--{long} {value}`"),
        Some(long) => format!("`--{long}`"),
        None if arg.get_num_args().is_some_and(|count| count.max_values() > 1) => format!("`{value}`..."),
        None => format!("`{value}`"),
    }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut meaning = help.replace('\n', " ").replace('|', "\\|");
    if !meaning.ends_with('.') {
        meaning.push('.');
    }
    let values: Vec<_> =
        arg.get_possible_values().iter().filter(|value| !value.is_hide_set()).map(|v| v.get_name().to_owned()).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        let _ = write!(meaning, " One of `{}`.", values.join("`, `"));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(meaning, " Default: `{}`.", defaults.join(" "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(meaning, " Environment: `{}`.", variable.to_string_lossy());
    }
    meaning
}

const HEAD: &str = "\
# The oncelog command

Made by `oncelog reference` from what `--help` says; a test compares the two.

Addresses of services are `--broker URL` and `--producer URL`, or the environment variables `ONCELOG_BROKER` and `ONCELOG_PRODUCER`.
`--output json` writes one JSON object (`fetch`: one a line). Messages for people go to stderr, results to stdout. Colours are left out
with `--no-color`, with a `NO_COLOR` that is not empty, with `TERM=dumb`, and where the output is no terminal; nothing is told by colour
alone.

";
