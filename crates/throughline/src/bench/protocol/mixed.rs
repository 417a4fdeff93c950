//! A day of a node: single appends, batches, pages of events, sessions looked up and created.

use std::io::Write;

use super::writers::Writers;
use super::{Protocol, http_reply};

/// Events of a batch.
const BATCH_EVENTS: u64 = 16;
/// Most events of a page.
const PAGE_EVENTS: u64 = 50;
/// Of 100 requests, how many are at most this kind: the rest are creates.
const APPENDS: u8 = 60;
const BATCHES: u8 = 70;
const PAGES: u8 = 85;
const LOOKUPS: u8 = 95;

/// Requests drawn at random, always the same for the same seed.
#[derive(Debug)]
pub struct Mixed {
    host: String,
    writers: Writers,
    size: usize,
    run: String,
    random: fastrand::Rng,
    created: u64,
    /// The status that the request on its way on each connection must get.
    expected: Vec<&'static str>,
}

impl Mixed {
    /// Requests of `conns` connections; events have `size` bytes.
    pub fn new(host: &str, writers: Writers, size: usize, run: &str, conns: usize) -> Mixed {
        Mixed {
            host: host.to_owned(),
            writers,
            size,
            run: run.to_owned(),
            random: fastrand::Rng::with_seed(1),
            created: 0,
            expected: vec!["201"; conns],
        }
    }

    fn append(&mut self, place: usize, events: u64, out: &mut Vec<u8>) {
        let position = self.writers.next(place, events);
        let (kind, length) = match events {
            1 => ("application/json", self.size),
            _ => ("application/x-ndjson", self.size * events as usize),
        };
        let rest = format!(
            "/append HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n",
            self.host
        );
        self.writers.head(position.session, &rest, out);
        if events == 1 {
            return self.writers.event(place, position.seq, self.size, out);
        }
        for seq in position.seq..position.seq + events {
            self.writers.event(place, seq, self.size - 1, out);
            out.push(b'\n');
        }
    }

    fn create(&mut self, out: &mut Vec<u8>) {
        self.created += 1;
        let body = format!(r#"{{"id":"{}-{}","title":"mixed"}}"#, self.run, self.created);
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            "POST /v1/sessions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
    }

    fn get(&self, path: &str, out: &mut Vec<u8>) {
        // As above.
        let _ = write!(out, "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
    }
}

impl Protocol for Mixed {
    fn request(&mut self, place: usize, out: &mut Vec<u8>) {
        let kind = self.random.u8(..100);
        self.expected[place] = if (BATCHES..LOOKUPS).contains(&kind) { "200" } else { "201" };
        match kind {
            0..APPENDS => self.append(place, 1, out),
            APPENDS..BATCHES => self.append(place, BATCH_EVENTS, out),
            BATCHES..PAGES => {
                // The events that this connection wrote last, or what stands in their place.
                let (id, seq) = self.writers.latest(place);
                let cursor = seq.saturating_sub(PAGE_EVENTS);
                let path = format!("/v1/sessions/{id}/events?cursor={cursor}&limit={PAGE_EVENTS}");
                self.get(&path, out);
            }
            PAGES..LOOKUPS => {
                let (id, _) = self.writers.latest(place);
                self.get(&format!("/v1/sessions/{id}"), out);
            }
            _ => self.create(out),
        }
    }

    fn reply(&mut self, place: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        http_reply(self.expected[place], bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_drawn_and_knows_its_status() {
        let writers = Writers::new("s", 0, 2, "r".into(), 1);
        let mut mixed = Mixed::new("h", writers, 200, "r", 1);
        let mut starts = std::collections::BTreeMap::new();
        for _ in 0..1_000 {
            let mut out = Vec::new();
            mixed.request(0, &mut out);
            let line = out.split(|byte| *byte == b'\r').next().expect("a line");
            let line = String::from_utf8_lossy(line).into_owned();
            let words: Vec<&str> = line.split(['/', '?', ' ']).collect();
            let kind = (words[0].to_owned(), words[4].to_owned(), words[5].to_owned());
            starts.insert(kind, mixed.expected[0]);
        }
        let kinds: Vec<_> =
            starts.iter().map(|((verb, ..), status)| (verb.as_str(), *status)).collect();
        assert!(kinds.contains(&("GET", "200")) && kinds.contains(&("POST", "201")), "{kinds:?}");
        assert!(kinds.iter().all(|kind| [("GET", "200"), ("POST", "201")].contains(kind)));
    }
}
