//! `docs/invariants.md` lists every promise; each line below a promise names a test that
//! exists, a step of `cargo xtask test` that exists, or a gap.

use crate::{test, tree};

fn faults(page: &str, is_test: impl Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut sections = page.split("\n## ").skip(1).peekable();
    if sections.peek().is_none() {
        faults.push("there is no promise".to_owned());
    }
    for section in sections {
        let title = section.lines().next().unwrap_or("");
        let lines: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("- ")).collect();
        if lines.is_empty() {
            faults.push(format!("{title}: neither test nor gap"));
        }
        for line in lines {
            let name = || line.split('`').nth(1).unwrap_or("");
            let sound = match line.split_once(": ").map(|(kind, _)| kind) {
                Some("test") => is_test(name()),
                Some("step") => test::STEPS.iter().any(|step| step.name == name()),
                Some("gap") => line.len() > "gap: ".len(),
                _ => false,
            };
            if !sound {
                faults.push(format!("{title}: `{line}` points to nothing"));
            }
        }
    }
    faults
}

#[test]
fn every_promise_points_to_tests_that_exist_or_names_a_gap() {
    let page = tree::text("docs/invariants.md".as_ref()).unwrap().unwrap();
    let mut sources = String::new();
    for path in tree::files().unwrap() {
        if path.extension().is_some_and(|ext| ext == "rs") {
            sources.push_str(&tree::text(&path).unwrap().unwrap());
        }
    }
    let is_test = |path: &str| {
        let name = path.rsplit("::").next().unwrap_or("");
        !name.is_empty() && sources.contains(&format!("fn {name}("))
    };
    let faults = faults(&page, is_test);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_line_that_points_to_nothing_is_found() {
    let is_test = |path: &str| path == "a::exists";
    let check = |lines: &str| faults(&format!("# t\n\n## P1 x\n\n{lines}\n"), is_test).len();
    assert_eq!(check("- test: `a::exists` says so\n- step: `format`\n- gap: no proof yet"), 0);
    assert_eq!(check("- test: `a::gone`"), 1);
    assert_eq!(check("- step: `gone`"), 1);
    assert_eq!(check("- gap:"), 1);
    assert_eq!(check("- see elsewhere"), 1);
    assert_eq!(check("text alone"), 1);
}
