//! What must not stay in the tree: tabs, unfinished marks, paths of somebody's machine.

use std::path::Path;

use crate::tree;

/// Marks of unfinished work in Rust sources. Written in two parts so that this file passes.
const UNFINISHED: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("#[ign", "ore"),
    concat!("FIX", "ME"),
];

/// Folders that only exist on somebody's machine.
const MACHINE_PATHS: [&str; 3] = ["/root/", "/home/", concat!("/", "work/")];

fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in tree::files().unwrap() {
        if let Some(text) = tree::text(&path).unwrap() {
            texts.push((path.to_string_lossy().into_owned(), text));
        }
    }
    texts
}

fn is_one_of(path: &str, extensions: &[&str]) -> bool {
    Path::new(path).extension().is_some_and(|ext| extensions.iter().any(|one| ext == *one))
}

fn find(wrong: &mut Vec<String>, path: &str, text: &str, bad: impl Fn(&str) -> bool) {
    for (number, line) in text.lines().enumerate() {
        if bad(line) {
            wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
        }
    }
}

#[test]
fn no_tabs_and_no_spaces_at_the_end_of_a_line() {
    let mut wrong = Vec::new();
    for (path, text) in texts() {
        if is_one_of(&path, &["rs", "toml", "md", "yml", "yaml"]) {
            find(&mut wrong, &path, &text, |line| line.contains('\t') || line.ends_with(' '));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_unfinished_is_left_in_the_sources() {
    let mut wrong = Vec::new();
    for (path, text) in texts() {
        if is_one_of(&path, &["rs"]) {
            let unfinished = |line: &str| UNFINISHED.iter().any(|mark| line.contains(mark));
            find(&mut wrong, &path, &text, unfinished);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let mut wrong = Vec::new();
    for (path, text) in texts() {
        if path != "xtask/src/tidy/leftovers.rs" {
            find(&mut wrong, &path, &text, names_a_machine);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a path of [`MACHINE_PATHS`] begins in this line; `/v1/home/` does not count.
fn names_a_machine(line: &str) -> bool {
    MACHINE_PATHS.iter().any(|folder| {
        line.match_indices(folder).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !(c.is_alphanumeric() || "_-.}".contains(c)))
        })
    })
}

#[test]
fn machine_paths_are_told_from_routes() {
    assert!(names_a_machine("see /home/ann/notes"));
    assert!(names_a_machine("`/root/x`"));
    assert!(!names_a_machine("GET /v1/home/x"));
    assert!(!names_a_machine("{base}/work/x"));
}
