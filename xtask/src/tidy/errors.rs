//! Every public error code has a page that agrees with the table.

use std::path::PathBuf;

use tl_types::ErrorCode;

use crate::tree;

fn folder() -> PathBuf {
    tree::root().join("docs/reference/errors")
}

fn section<'a>(page: &'a str, title: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("\n## {title}\n"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest).trim())
}

fn faults(code: ErrorCode, page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !page.starts_with(&format!("# {code}\n")) {
        faults.push("the title is not the word".to_owned());
    }
    let facts = format!(
        "HTTP {} · retry: {} · WebSocket close {}",
        code.status(),
        code.retry().word(),
        code.close_code()
    );
    if !page.contains(&facts) {
        faults.push(format!("the line `{facts}` is missing"));
    }
    for title in ["Cause", "Remedy", "Example"] {
        if section(page, title).is_none_or(str::is_empty) {
            faults.push(format!("section {title} is missing or empty"));
        }
    }
    let example = section(page, "Example").unwrap_or("");
    let body = example.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```"));
    match body.map(|(body, _)| serde_json::from_str::<serde_json::Value>(body)) {
        Some(Ok(body)) if body["error"] == code.word() && body["message"].is_string() => {}
        other => faults.push(format!("the example's body is not an error of this code: {other:?}")),
    }
    if code.has_retry_after() && !example.to_lowercase().contains("retry-after:") {
        faults.push("the example does not show Retry-After".to_owned());
    }
    faults
}

#[test]
fn every_error_code_has_a_page_with_cause_remedy_and_example() {
    let mut wrong = Vec::new();
    for &code in ErrorCode::ALL {
        let path = folder().join(format!("{code}.md"));
        match std::fs::read_to_string(&path) {
            Ok(page) => {
                wrong.extend(faults(code, &page).into_iter().map(|f| format!("{code}: {f}")));
            }
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_error_page_belongs_to_a_code_and_is_in_the_index() {
    let index = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let word = name.strip_suffix(".md").unwrap();
        let known = ErrorCode::ALL.iter().any(|code| code.word() == word);
        assert!(known || word == "README", "{name} describes no code");
    }
    for code in ErrorCode::ALL {
        let row =
            format!("| [`{code}`]({code}.md) | {} | {} |", code.status(), code.retry().word());
        assert!(index.contains(&row), "README.md lacks the row {row}");
    }
}

#[test]
fn a_page_that_disagrees_with_the_table_is_found() {
    let page = "# not_found\n\nHTTP 404 · retry: never · WebSocket close 1002\n\n## Cause\nx\n\n\
                ## Remedy\nx\n\n## Example\n\n```json\n{\"error\":\"not_found\",\"message\":\"m\"}\n```\n";
    assert_eq!(faults(ErrorCode::NotFound, page), Vec::<String>::new());
    assert!(!faults(ErrorCode::NotFound, &page.replace("404", "405")).is_empty());
    assert!(!faults(ErrorCode::NotFound, &page.replace("## Remedy\nx\n", "")).is_empty());
    assert!(!faults(ErrorCode::NotFound, &page.replace("\"not_found\"", "\"x\"")).is_empty());
}
