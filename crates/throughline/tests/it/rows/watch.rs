//! The metrics of a member, looked at as often as it answers.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A member that needs longer for its metrics is as good as away.
const WITHIN: Duration = Duration::from_secs(2);

/// What one look showed.
#[derive(Debug, Default)]
pub struct Seen(HashMap<String, u64>);

impl Seen {
    /// A metric by its name and labels, without the prefix; 0 when there is none yet.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Groups whose rows are at a step, `given` or `taken`.
    pub fn open(&self, rows: &str, step: &str) -> u64 {
        self.of(&format!("snapshots_open{{rows=\"{rows}\",step=\"{step}\"}}"))
    }
}

/// One look; nothing when the member does not answer.
pub fn look(address: SocketAddr) -> Option<Seen> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN).ok()?;
    stream.set_read_timeout(Some(WITHIN)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let whole = |line: &str| {
        let (name, value) = line.strip_prefix("throughline_")?.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Some(Seen(text.lines().filter_map(whole).collect()))
}
