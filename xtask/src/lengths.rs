//! Files that have grown past what one head holds, tests aside.

use std::path::Path;

use anyhow::Result;

use crate::tree;

/// Lines past which a file is named in the report.
const LINES_WANTED_MAX: usize = 500;
/// Lines past which a file is refused.
const LINES_MAX: usize = 1_000;

/// Files of product code past the wanted length, longest first.
pub fn long_files() -> Result<Vec<(usize, String)>> {
    let mut long = Vec::new();
    for path in tree::files()? {
        let name = path.to_string_lossy().into_owned();
        if path.extension().is_none_or(|ext| ext != "rs") || is_test_file(&path) {
            continue;
        }
        let lines = product_lines(&tree::text(&path)?.unwrap_or_default());
        if lines > LINES_WANTED_MAX {
            long.push((lines, name));
        }
    }
    long.sort_unstable_by(|one, other| other.cmp(one));
    Ok(long)
}

/// Prints the report; it fails nothing, the tidy test does.
pub fn print_report() -> Result<()> {
    for (lines, name) in long_files()? {
        let word = if lines > LINES_MAX { "too long" } else { "is there a second idea in it?" };
        println!("{name}: {lines} lines; {word}");
    }
    Ok(())
}

fn is_test_file(path: &Path) -> bool {
    path.ends_with("tests.rs")
        || path
            .components()
            .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
}

/// Lines in front of the inline tests.
fn product_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        })
        .unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_can_be_held_in_the_head() {
        let refused: Vec<_> =
            long_files().unwrap().into_iter().filter(|(lines, _)| *lines > LINES_MAX).collect();
        assert!(refused.is_empty(), "longer than {LINES_MAX} lines: {refused:#?}");
    }

    #[test]
    fn inline_tests_and_test_files_do_not_count() {
        assert_eq!(product_lines("a\nb\n#[cfg(test)]\nmod tests {\nc\n}\n"), 2);
        assert_eq!(product_lines("#[cfg(test)]\nmod tests;\na\nb\n"), 4);
        assert!(is_test_file(Path::new("crates/x/src/a/tests.rs")));
        assert!(is_test_file(Path::new("crates/x/tests/it/main.rs")));
        assert!(is_test_file(Path::new("crates/x/src/a/tests/b.rs")));
        assert!(!is_test_file(Path::new("crates/x/src/tests_of_mine.rs")));
    }
}
