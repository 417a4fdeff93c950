//! Links inside the documents lead somewhere, and every document named anywhere exists.

use std::path::{Component, Path, PathBuf};

use crate::tree;

/// Targets of `](…)` in a text, outside fenced blocks.
fn targets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if !fenced {
            found.extend(line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        }
    }
    found
}

/// Names ending in `.md` in a text, web addresses aside.
fn named_documents(text: &str) -> Vec<&str> {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || "_-./:{}<>*…".contains(c);
    text.split(|c| !part_of_name(c))
        .map(|word| word.trim_end_matches(['.', ':']))
        .filter(|word| word.ends_with(".md") && word.len() > ".md".len())
        .filter(|word| !word.contains("://") && !word.contains(['{', '<', '*', '…']))
        .collect()
}

fn resolved(folder: &Path, link: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

#[test]
fn relative_links_of_the_documents_resolve() {
    let mut broken = Vec::new();
    for path in tree::files().unwrap() {
        if path.extension().is_none_or(|ext| ext != "md") {
            continue;
        }
        let text = tree::text(&path).unwrap().unwrap();
        for target in targets(&text) {
            let file = target.split('#').next().unwrap_or("");
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let folder = path.parent().unwrap_or(Path::new(""));
            if !tree::root().join(resolved(folder, file)).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_document_that_is_named_exists() {
    let files = tree::files().unwrap();
    let exists = |name: &str| {
        let name = name.trim_start_matches("./").trim_start_matches("../");
        files.iter().any(|path| path.ends_with(name))
    };
    let mut missing = Vec::new();
    for path in &files {
        let Some(text) = tree::text(path).unwrap() else { continue };
        let speaks =
            path.extension().is_some_and(|ext| ["rs", "md", "toml"].iter().any(|e| ext == *e));
        if !speaks || path == Path::new("xtask/src/tidy/links.rs") {
            continue;
        }
        for name in named_documents(&text).into_iter().filter(|name| !exists(name)) {
            missing.push(format!("{}: {name}", path.display()));
        }
    }
    assert!(missing.is_empty(), "named but not in the tree: {missing:#?}");
}

#[test]
fn links_and_names_are_read_right() {
    assert_eq!(targets("[a](b.md#c) and [d](e)\n```\n[x](y)\n```\n"), ["b.md#c", "e"]);
    assert_eq!(
        named_documents("see docs/a.md. `b.md` https://x/c.md <code>.md"),
        ["docs/a.md", "b.md"]
    );
    assert_eq!(
        resolved(Path::new("docs/guide"), "../reference/x.md"),
        Path::new("docs/reference/x.md")
    );
}
