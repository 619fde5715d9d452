//! Golden files: expected texts that the program under test can write itself.

use std::fs;
use std::path::Path;

/// Whether golden files are to be rewritten: `FINWAIT_BLESS` is set, as `cargo xtask bless` does.
pub fn is_blessing() -> bool {
    std::env::var_os("FINWAIT_BLESS").is_some()
}

/// Compares a text with a golden file, or rewrites the file if [`is_blessing`].
///
/// # Panics
///
/// Panics at the first line that differs, and if the file cannot be read or written.
#[track_caller]
pub fn assert_golden(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    if is_blessing() {
        fs::write(path, text).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        return;
    }
    let golden =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    if golden == text {
        return;
    }
    let line = golden.lines().zip(text.lines()).take_while(|(old, new)| old == new).count();
    let at = |text: &str| {
        text.lines().nth(line).map_or("the end of the text".to_owned(), |line| format!("{line:?}"))
    };
    panic!(
        "{}:{}: expected {}, got {}. If the change is intended, run `cargo xtask bless` and read the diff",
        path.display(),
        line + 1,
        at(&golden),
        at(text)
    );
}
