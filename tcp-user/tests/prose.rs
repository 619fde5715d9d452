//! The English that users read: help, metric HELP texts, the fixed parts of errors and log lines, and the
//! documentation.
//!
//! A sentence has at most 25 words, and none of the words that CONTRIBUTING.md rules out. An error's text
//! does not contain its cause, which `main` prints after it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use finwait::cli::Cli;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Maximum number of words in a sentence.
const LONGEST: usize = 25;

/// Words and phrases that are not the field's, with what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("so many", "a number of, or the number"),
    ("so much", "an amount of, or the amount"),
    ("tell", "report, log, publish or notify"),
    ("tells", "reports, logs, publishes or notifies"),
    ("told", "reported, logged, published or notified"),
    ("look at", "check or read"),
    ("looks at", "checks or reads"),
    ("looked at", "checked or read"),
    ("a look", "a check"),
    ("the look", "the check"),
    ("two looks", "two checks"),
    ("glance", "check or scan"),
    ("somebody", "another program, or the passive voice"),
    ("nobody", "no program, or the passive voice"),
    ("anybody", "any user"),
    ("octet", "byte"),
    ("octets", "bytes"),
    ("whoever", "any user who"),
    ("a place", "a slot"),
    ("places", "slots"),
    ("the same.", "what it is"),
    ("cable", "link"),
    ("wants", "needs or requires"),
    ("believed", "accepted"),
    ("what is over", "closed connections"),
    ("mends", "fixes"),
    ("anew", "again"),
    ("let go", "unlock or release"),
];

/// A text and its origin.
struct Text {
    origin: String,
    text: String,
}

#[test]
fn help_is_plain_english() {
    let mut texts = Vec::new();
    let mut cli = Cli::command();
    cli.build();
    help_of(&cli, &mut texts);
    assert!(texts.len() > 60, "only {} texts: the commands are not reached", texts.len());
    report(&texts, true);
}

#[test]
fn metric_help_is_plain_english() {
    let page = fs::read_to_string(here().join("tests/metrics.golden.txt")).expect("the golden page");
    let texts: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .filter_map(|line| line.split_once(' '))
        .map(|(family, text)| Text { origin: family.to_owned(), text: text.to_owned() })
        .collect();
    assert!(texts.len() > 20, "only {} families", texts.len());
    report(&texts, true);
}

#[test]
fn errors_and_log_lines_are_plain_english() {
    let mut texts = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("a source file");
        let tokens: TokenStream = text.parse().expect("Rust");
        let name = file.strip_prefix(here()).expect("below the crate").display().to_string();
        messages(tokens, &name, false, &mut texts);
    }
    assert!(texts.len() > 150, "only {} messages", texts.len());
    report(&texts, true);
}

#[test]
fn an_error_leaves_its_cause_to_main() {
    let mut doubled = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("a source file");
        let parsed = syn::parse_file(&text).expect("Rust");
        for item in &parsed.items {
            if let Some(fault) = doubles_its_cause(item) {
                doubled.push(format!("{}: {fault}", file.display()));
            }
        }
    }
    assert!(doubled.is_empty(), "these texts contain the cause that `main` prints after them: {doubled:#?}");
}

#[test]
fn documentation_has_no_banned_words() {
    let root = here().join("..");
    let mut texts = Vec::new();
    let docs = fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("a file").path());
    let pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    for page in docs.chain(pages.map(|name| root.join(name))) {
        if page.extension().is_some_and(|extension| extension == "md") {
            texts.extend(prose_of(&page));
        }
    }
    report(&texts, false);
}

/// Panics with a list of all faults, if the texts have any.
fn report(texts: &[Text], with_length: bool) {
    let mut faults = Vec::new();
    for Text { origin, text } in texts {
        for (word, instead) in banned_in(text) {
            faults.push(format!("{origin}: {word:?} (write {instead}) in {text:?}"));
        }
        for sentence in sentences(text).filter(|_| with_length) {
            let words = sentence.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric));
            let count = words.count();
            if count > LONGEST {
                faults.push(format!("{origin}: {count} words in {sentence:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn banned_in(text: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let padded = format!(" {} ", text.to_lowercase());
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    BANNED.iter().copied().filter(move |(banned, _)| {
        padded.match_indices(banned).any(|(at, found)| {
            let before = padded[..at].chars().next_back().unwrap_or(' ');
            let after = padded[at + found.len()..].chars().next().unwrap_or(' ');
            !is_word(before) && !is_word(after)
        })
    })
}

/// Splits a text into sentences. They end with a full stop, colon or semicolon, or where a line begins a new
/// item of a list or a table.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(". ")
        .flat_map(|part| part.split(": "))
        .flat_map(|part| part.split("; "))
        .flat_map(|part| part.split('\n'))
}

fn help_of(command: &Command, texts: &mut Vec<Text>) {
    let name = command.get_bin_name().unwrap_or("finwait").to_owned();
    let mut add = |origin: &str, text: Option<String>| {
        texts.extend(text.map(|text| Text { origin: format!("{name} {origin}"), text }));
    };
    add("about", command.get_about().map(ToString::to_string));
    add("long about", command.get_long_about().map(ToString::to_string));
    add("after help", command.get_after_help().map(ToString::to_string));
    add("after long help", command.get_after_long_help().map(ToString::to_string));
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        add(id, argument.get_help().map(ToString::to_string));
        add(id, argument.get_long_help().map(ToString::to_string));
        for value in argument.get_possible_values() {
            add(id, value.get_help().map(ToString::to_string));
        }
    }
    for subcommand in command.get_subcommands() {
        help_of(subcommand, texts);
    }
}

/// Attributes, macros and methods whose string literals are messages to the user.
const MESSAGES: &[&str] = &[
    "error",
    "context",
    "with_context",
    "bail",
    "ensure",
    "anyhow",
    "failed",
    "system",
    "info",
    "warn",
    "debug",
    "println",
    "eprintln",
    "write",
    "writeln",
];

/// Collects string literals inside a group that follows one of [`MESSAGES`].
fn messages(tokens: TokenStream, file: &str, is_message: bool, texts: &mut Vec<Text>) {
    let mut last_ident = String::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => last_ident = ident.to_string(),
            TokenTree::Group(group) => {
                let begins = group.delimiter() != Delimiter::Brace && MESSAGES.contains(&last_ident.as_str());
                messages(group.stream(), file, is_message || begins, texts);
                last_ident.clear();
            }
            TokenTree::Literal(literal) if is_message => {
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    let line = literal.span().start().line;
                    texts.push(Text { origin: format!("{file}:{line}"), text: text.value() });
                }
            }
            TokenTree::Punct(punct) if matches!(punct.as_char(), '!' | '.') => {}
            _ => last_ident.clear(),
        }
    }
}

/// Returns the text of an error variant that prints its own source.
fn doubles_its_cause(item: &syn::Item) -> Option<String> {
    let (attributes_and_fields, name): (Vec<(&[syn::Attribute], &syn::Fields)>, _) = match item {
        syn::Item::Enum(item) => (
            item.variants.iter().map(|variant| (variant.attrs.as_slice(), &variant.fields)).collect(),
            &item.ident,
        ),
        syn::Item::Struct(item) => (vec![(item.attrs.as_slice(), &item.fields)], &item.ident),
        _ => return None,
    };
    for (attributes, fields) in attributes_and_fields {
        let Some(text) = attributes.iter().find_map(error_text) else { continue };
        for (index, field) in fields.iter().enumerate() {
            let marked = field
                .attrs
                .iter()
                .any(|attribute| attribute.path().is_ident("source") || attribute.path().is_ident("from"));
            let label = field.ident.as_ref().map_or(index.to_string(), ToString::to_string);
            let is_source = marked || label == "source";
            if is_source && (text.contains(&format!("{{{label}}}")) || text.contains(&format!("{{{label}:")))
            {
                return Some(format!("{name}: {text:?}"));
            }
        }
    }
    None
}

fn error_text(attribute: &syn::Attribute) -> Option<String> {
    if !attribute.path().is_ident("error") {
        return None;
    }
    let list = attribute.meta.require_list().ok()?;
    let first = list.tokens.clone().into_iter().next()?;
    syn::parse_str::<syn::LitStr>(&first.to_string()).ok().map(|text| text.value())
}

/// Returns the lines of a page, without code.
fn prose_of(page: &Path) -> Vec<Text> {
    let text = fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let mut is_code = false;
    let mut texts = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            let outside_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            texts.push(Text { origin: format!("{}:{number}", page.display()), text: outside_code });
        }
    }
    texts
}

fn sources() -> Vec<PathBuf> {
    let mut folders = vec![here().join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_check_finds_banned_words_and_doubled_causes() {
    let found = |text: &str| banned_in(text).map(|(word, _)| word).collect::<Vec<_>>();
    assert_eq!(found("So many octets, told by nobody"), ["so many", "told", "nobody", "octets"]);
    assert_eq!(found("a lookup replaces the table"), [""; 0]);
    let item =
        syn::parse_str(r#"enum E { #[error("reading {path}: {source}")] Io { path: String, source: Io } }"#);
    assert!(doubles_its_cause(&item.expect("an enum")).is_some());
    let item = syn::parse_str(r#"enum E { #[error("reading {path}")] Io { path: String, source: Io } }"#);
    assert!(doubles_its_cause(&item.expect("an enum")).is_none());
    let mut texts = Vec::new();
    messages(r#"fn f() { bail!("one {}", format!("two")); x.context("three")?; format!("none") }"#.parse().expect("Rust"), "f", false, &mut texts);
    assert_eq!(texts.iter().map(|text| text.text.as_str()).collect::<Vec<_>>(), ["one {}", "two", "three"]);
}
