//! Man pages: one for finwait, one for each command, and `finwait.toml(5)`.
//!
//! clap_mangen renders name, synopsis, description and options. The other sections are written here, from the
//! same definition of the commands: blocks of the long help, exit status, environment, files and references.

use std::fmt::Write as _;
use std::io;

use clap::{Arg, Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::Cli;
use crate::store::PACKAGED_DIRECTORY;

/// A man page.
pub(super) struct Page {
    /// The name without section: `finwait-ls`.
    pub(super) name: String,
    /// The section of the manual.
    pub(super) section: u8,
    /// The page in roff.
    pub(super) text: String,
}

/// Writes the man page of a command, of finwait itself, or of `finwait.toml`.
pub fn man(command: Option<&str>, out: &mut impl io::Write) -> io::Result<()> {
    let name = match command {
        None => "finwait".to_owned(),
        Some("finwait.toml") => "finwait.toml".to_owned(),
        Some(command) => format!("finwait-{command}"),
    };
    let page = pages().into_iter().find(|page| page.name == name);
    let page = page.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("finwait has no man page {name}"))
    })?;
    out.write_all(page.text.as_bytes())
}

/// Every page.
pub(super) fn pages() -> Vec<Page> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![overview(&root), configuration(&root)];
    pages.extend(commands(&root).map(|command| command_page(&root, command)));
    pages
}

/// `finwait(1)`.
fn overview(root: &Command) -> Page {
    let mut text = head("finwait", 1);
    push_options(&mut text, root);
    text.push_str(&roff(|page| {
        page.control("SH", ["COMMANDS"]);
        for command in commands(root) {
            tagged(page, &format!("finwait-{}(1)", command.get_name()), &about(command));
        }
    }));
    push_help(&mut text, root);
    push_environment(&mut text, root, &[("NO_COLOR", "Disables colors if it is set and not empty.")]);
    push_files(&mut text, root);
    let pages = commands(root).map(|command| format!("finwait-{}(1)", command.get_name()));
    let others = ["finwait.toml(5)", "ss(8)", "conntrack(8)", "tcpdump(1)"].map(str::to_owned);
    push_references(&mut text, pages.chain(others));
    Page { name: "finwait".to_owned(), section: 1, text }
}

/// `finwait-COMMAND(1)`.
fn command_page(root: &Command, command: &Command) -> Page {
    let name = format!("finwait-{}", command.get_name());
    let mut text = head(&name, 1);
    push_options(&mut text, command);
    push_help(&mut text, command);
    push_help(&mut text, root);
    push_environment(&mut text, command, &[]);
    push_files(&mut text, command);
    let others: &[&str] = match command.get_name() {
        "run" => &["finwait.toml(5)"],
        "ls" | "audit" => &["ss(8)"],
        "watch" => &["conntrack(8)"],
        "replay" => &["tcpdump(1)"],
        _ => &[],
    };
    push_references(&mut text, ["finwait(1)"].iter().chain(others).map(|page| (*page).to_owned()));
    Page { name, section: 1, text }
}

/// `finwait.toml(5)`: the options of `finwait run` as keys.
fn configuration(root: &Command) -> Page {
    let mut text = head("finwait.toml", 5);
    text.push_str(&roff(|page| {
        page.control("SH", ["NAME"]);
        page.text([roman("finwait.toml - configuration file of the finwait agent")]);
        page.control("SH", ["SYNOPSIS"]);
        page.text([bold(CONFIGURATION)]);
        page.control("SH", ["DESCRIPTION"]);
        page.text([roman(
            "The packaged agent reads this TOML file when it starts. Each key has the name of an option of \
             finwait-run(1). A command-line option overrides the environment, and the environment overrides this file.",
        )]);
        page.control("PP", []);
        page.text([roman(
            "Values are strings in the same form as on the command line, except where the key says otherwise. An \
             unknown key is an error. To check a file, use",
        )]);
        page.control("PP", []);
        page.control("nf", []);
        page.text([roman("    finwait run --dry-run --config FILE")]);
        page.control("fi", []);
        page.control("SH", ["KEYS"]);
        let run = root.find_subcommand("run");
        for option in run.into_iter().flat_map(Command::get_arguments).filter(|option| is_key(option)) {
            let key = option.get_long().unwrap_or_default();
            let form = match key {
                "interface" => "interface = [\"NAME\", ...]".to_owned(),
                "max-flows" => "max-flows = N".to_owned(),
                "rfc1337" => "rfc1337 = true|false".to_owned(),
                "timeout" => "[timeout] STATE = \"DURATION\"".to_owned(),
                key => format!("{key} = \"{}\"", value_name(option)),
            };
            tagged(page, &form, &help_of(option));
        }
    }));
    for block in root.find_subcommand("run").map(blocks_of).unwrap_or_default() {
        if block.title.contains("CONFIGURATION") {
            push_block(&mut text, &Block { title: "EXAMPLE".to_owned(), ..block });
        }
    }
    text.push_str(&roff(|page| {
        page.control("SH", ["FILES"]);
        tagged(
            page,
            CONFIGURATION,
            "The file that the systemd unit names. Every key in it is commented out.",
        );
    }));
    push_references(&mut text, ["finwait-run(1)".to_owned(), "finwait(1)".to_owned()]);
    Page { name: "finwait.toml".to_owned(), section: 5, text }
}

/// The commands that have a page.
fn commands(root: &Command) -> impl Iterator<Item = &Command> {
    root.get_subcommands().filter(|command| !command.is_hide_set())
}

/// Whether the configuration file has a key for this option of `run`.
fn is_key(option: &Arg) -> bool {
    option.get_long().is_some_and(|name| !["config", "dry-run", "help", "verbose", "version"].contains(&name))
}

/// Title line, and no hyphenation: words of a command must survive copying.
fn head(name: &str, section: u8) -> String {
    let manual = if section == 5 { "File Formats" } else { "User Commands" };
    let title = name.to_uppercase();
    format!(
        "{}.TH \"{title}\" \"{section}\" \"\" \"{name} {}\" \"{manual}\"\n.nh\n.ad l\n",
        Roff::new().render(),
        env!("CARGO_PKG_VERSION")
    )
}

/// NAME, SYNOPSIS, DESCRIPTION and OPTIONS.
fn push_options(text: &mut String, command: &Command) {
    let man = Man::new(command.clone());
    let mut sections = Vec::new();
    let rendered = man
        .render_name_section(&mut sections)
        .and_then(|()| man.render_synopsis_section(&mut sections))
        .and_then(|()| man.render_description_section(&mut sections))
        .and_then(|()| man.render_options_section(&mut sections));
    debug_assert!(rendered.is_ok(), "writing into memory does not fail");
    text.push_str(&String::from_utf8_lossy(&sections).replace(&Roff::new().render(), ""));
}

/// The blocks of the help below the options.
fn push_help(text: &mut String, command: &Command) {
    blocks_of(command).iter().for_each(|block| push_block(text, block));
}

fn push_block(text: &mut String, block: &Block) {
    text.push_str(&roff(|page| {
        if !block.title.is_empty() {
            page.control("SH", [block.title.as_str()]);
        }
        match entries(&block.lines) {
            Some(entries) => entries.iter().for_each(|(term, meaning)| tagged(page, term, meaning)),
            None if block.title.is_empty() => {
                page.control("PP", []);
                block.lines.iter().for_each(|line| {
                    page.text([roman(line.as_str())]);
                });
            }
            None => {
                page.control("nf", []);
                block.lines.iter().for_each(|line| {
                    page.text([roman(line.as_str())]);
                });
                page.control("fi", []);
            }
        }
    }));
}

/// The environment variables of the options, and others.
fn push_environment(text: &mut String, command: &Command, others: &[(&str, &str)]) {
    let options = command.get_arguments().filter(|option| !option.is_hide_set());
    let variables = options.filter_map(|option| Some((option.get_env()?.to_str()?, option.get_long()?)));
    let mut entries: Vec<(String, String)> = variables
        .map(|(variable, option)| (variable.to_owned(), format!("Sets --{option}. The option overrides it.")))
        .collect();
    entries.extend(others.iter().map(|&(variable, meaning)| (variable.to_owned(), meaning.to_owned())));
    push_entries(text, "ENVIRONMENT", &entries);
}

fn push_files(text: &mut String, command: &Command) {
    let has = |name: &str| command.get_arguments().any(|option| option.get_long() == Some(name));
    let is_root = command.has_subcommands();
    let mut files = Vec::new();
    if is_root || has("socket") {
        files.push(("/run/finwait/finwait.sock", "Default query socket of the agent."));
    }
    if is_root || has("config") {
        files.push((CONFIGURATION, "Configuration of the packaged agent, see finwait.toml(5)."));
        files.push(("/usr/share/doc/finwait/METRICS.md", "All metrics with their labels."));
    }
    if is_root || has("history-dir") {
        files.push((PACKAGED_DIRECTORY, "History of the packaged agent: connections that closed."));
        files.push(("/usr/share/doc/finwait/HISTORY.md", "The history, with the columns for SQL."));
    }
    if is_root || has("output") {
        files.push((
            "/usr/share/doc/finwait/RECORDS.md",
            "Keys of the JSON output and columns of the CSV output.",
        ));
    }
    let entries: Vec<_> =
        files.iter().map(|&(path, meaning)| (path.to_owned(), meaning.to_owned())).collect();
    push_entries(text, "FILES", &entries);
}

fn push_entries(text: &mut String, title: &str, entries: &[(String, String)]) {
    if !entries.is_empty() {
        text.push_str(&roff(|page| {
            page.control("SH", [title]);
            entries.iter().for_each(|(term, meaning)| tagged(page, term, meaning));
        }));
    }
}

fn push_references(text: &mut String, pages: impl IntoIterator<Item = String>) {
    let pages: Vec<_> = pages.into_iter().collect();
    text.push_str(&roff(|page| {
        page.control("SH", ["SEE ALSO"]);
        for (index, reference) in pages.iter().enumerate() {
            let (name, section) = reference.split_once('(').unwrap_or((reference, ""));
            let comma = if index + 1 < pages.len() { "," } else { "" };
            page.text([bold(name), roman(format!("({section}{comma}"))]);
        }
    }));
}

/// A part of a help text: its lines, and the title before them, if any.
struct Block {
    title: String,
    lines: Vec<String>,
}

/// Splits the help below the options at its blank lines.
fn blocks_of(command: &Command) -> Vec<Block> {
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    help.split("\n\n").filter(|block| !block.is_empty()).map(Block::of).collect()
}

impl Block {
    fn of(text: &str) -> Block {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let first = lines.first().map(String::as_str).unwrap_or_default();
        let title = first.strip_suffix(':').filter(|title| !title.starts_with(' ')).map(str::to_uppercase);
        match title {
            Some(title) => {
                lines.remove(0);
                Block { title, lines }
            }
            None => Block { title: String::new(), lines },
        }
    }
}

/// Reads lines in two columns, where a line without the first one continues the entry before. `None` if the
/// lines have no second column.
fn entries(lines: &[String]) -> Option<Vec<(String, String)>> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in lines {
        let words = line.trim_start();
        let indent = line.len() - words.len();
        match entries.last_mut() {
            Some((_, meaning)) if indent > SECOND_COLUMN => {
                let _ = write!(meaning, " {words}");
            }
            _ => {
                let (term, meaning) = words.split_once("  ").unwrap_or((words, ""));
                entries.push((term.to_owned(), meaning.trim_start().to_owned()));
            }
        }
    }
    entries.iter().any(|(_, meaning)| !meaning.is_empty()).then_some(entries)
}

/// No first column is indented by more.
const SECOND_COLUMN: usize = 4;

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// The long help of an option, its paragraphs joined, with its values and its default.
fn help_of(option: &Arg) -> String {
    let help = option.get_long_help().or_else(|| option.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let paragraphs = help.split("\n\n").map(|paragraph| paragraph.trim_end_matches('.').replace('\n', " "));
    let mut text = paragraphs.collect::<Vec<_>>().join(". ");
    let values: Vec<_> =
        option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if values.len() > 1 && values != ["true", "false"] {
        let _ = write!(text, ". One of {}", values.join(", "));
    }
    let defaults: Vec<_> = option.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && !text.contains("[default: ") {
        let _ = write!(text, " [default: {}]", defaults.join(" "));
    }
    text + "."
}

fn value_name(option: &Arg) -> String {
    let names = option.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| "VALUE".to_owned(), ToString::to_string)
}

fn tagged(page: &mut Roff, term: &str, meaning: &str) {
    page.control("TP", []);
    page.text([bold(term)]);
    page.text([roman(meaning)]);
}

/// Renders lines without the definitions that stand once at the top of a page.
fn roff(write: impl FnOnce(&mut Roff)) -> String {
    let mut page = Roff::new();
    write(&mut page);
    page.render().replacen(&Roff::new().render(), "", 1)
}

const CONFIGURATION: &str = "/etc/finwait/finwait.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_sections() {
        for Page { name, text, .. } in pages() {
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "SEE ALSO"] {
                let optional = section == "FILES" && !text.contains("socket");
                assert!(
                    optional
                        || text.contains(&format!("\n.SH {section}\n").replace("SEE ALSO", "\"SEE ALSO\"")),
                    "{name}: {section}"
                );
            }
            assert!(!text.contains("EXTRA"), "{name}");
            assert_eq!(text.matches(".TH ").count(), 1, "{name}");
        }
    }

    #[test]
    fn a_filter_is_a_list_of_its_tests() {
        let page = pages().into_iter().find(|page| page.name == "finwait-ls").expect("a page");
        assert!(page.text.contains("\n.SH FILTER\n.TP\n\\fBstate NAME\\fR\n"), "{}", page.text);
        assert!(page.text.contains("\n.SH EXAMPLES\n.nf\n"), "{}", page.text);
    }

    #[test]
    fn every_key_of_the_packaged_file_is_explained() {
        let page = pages().into_iter().find(|page| page.name == "finwait.toml").expect("a page");
        let file = include_str!("../../../packaging/finwait.toml");
        let keys =
            file.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = ").map(|(key, _)| key));
        for key in
            keys.filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        {
            assert!(page.text.contains(&format!("\n\\fB{} = ", key.replace('-', "\\-"))), "{key}");
        }
    }
}
