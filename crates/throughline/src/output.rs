//! Where output goes: JSON lines for programs, text and tables for people.
//!
//! Facts asked for go to stdout; progress, notes and errors go to stderr, so that a pipe sees
//! only facts.

use std::io::{IsTerminal, Write};

use serde::Serialize;

/// The output of one command.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    json: bool,
}

impl Out {
    pub fn new(json: bool) -> Out {
        Out { json }
    }

    /// Whether the caller is a program.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// One line of text.
    pub fn line(self, text: &str) -> anyhow::Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// A value as one line of JSON.
    pub fn json(self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// The value for programs, the text for people.
    pub fn either(self, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
        if self.json { self.json(value) } else { self.line(text) }
    }

    /// Bytes as they are.
    pub fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }

    /// A remark for people, on stderr; programs get none.
    pub fn note(self, text: &str) {
        if !self.json {
            // Nobody to tell when stderr is gone.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// Whether progress may be drawn.
    pub fn shows_progress(self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }
}

/// Rows under a header, columns as wide as their widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// Text on one line without control characters, at most `max` characters.
pub fn shorten(text: &str, max: usize) -> String {
    let mut short = String::new();
    for (count, c) in text.chars().enumerate() {
        if count + 1 >= max && text.chars().nth(count + 1).is_some() {
            short.push('…');
            break;
        }
        short.push(if c.is_control() { ' ' } else { c });
    }
    short
}

/// A number with its thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["long-one".into(), "1".into()], vec!["b".into(), "22".into()]];
        assert_eq!(table(&["id", "n"], &rows), "id        n\nlong-one  1\nb         22");
    }

    #[test]
    fn text_for_people_stays_on_one_line() {
        assert_eq!(shorten("a\nb\u{1b}[1m", 20), "a b [1m");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([count(0), count(999), count(258_145)], ["0", "999", "258,145"]);
    }
}
