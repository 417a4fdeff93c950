//! Who writes where: every connection owns sessions, is a producer in each, and counts its own
//! positions.

use std::io::Write;

/// In which order a connection visits its sessions.
#[derive(Debug, Clone)]
pub enum Order {
    /// One after another.
    Turns,
    /// Drawn anew each time.
    Random(fastrand::Rng),
}

/// The sessions of a run and how far each writer has come.
#[derive(Debug)]
pub struct Writers {
    /// Every session is called this and its number.
    prefix: String,
    /// Numbers of the sessions: from this one on.
    first: u32,
    sessions: u32,
    /// Which run this is: part of producer ids, so that a later run starts at 1 again.
    run: String,
    order: Order,
    /// Next position per connection and session it owns.
    next: Vec<Vec<u64>>,
    /// Which of its sessions each connection uses next.
    turn: Vec<usize>,
}

/// One writer's next position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the session.
    pub session: u32,
    /// Position of the first event.
    pub seq: u64,
}

impl Writers {
    /// Writers on `conns` connections over the sessions `first..first + sessions`.
    pub fn new(prefix: &str, first: u32, sessions: u32, run: String, conns: usize) -> Writers {
        let owned = |conn: usize| match conn < sessions as usize {
            true => (sessions as usize - conn).div_ceil(conns),
            // More connections than sessions: they share, each with a producer of its own.
            false => 1,
        };
        Writers {
            prefix: prefix.to_owned(),
            first,
            sessions,
            run,
            order: Order::Turns,
            next: (0..conns).map(|conn| vec![1; owned(conn)]).collect(),
            turn: vec![0; conns],
        }
    }

    /// The same with another order of visits.
    pub fn order(mut self, order: Order) -> Writers {
        self.order = order;
        self
    }

    /// The next `events` positions of a connection.
    pub fn next(&mut self, conn: usize, events: u64) -> Position {
        let owned = self.next[conn].len();
        let place = match &mut self.order {
            Order::Turns => {
                let place = self.turn[conn];
                self.turn[conn] = (place + 1) % owned;
                place
            }
            Order::Random(random) => random.usize(..owned),
        };
        let seq = self.next[conn][place];
        self.next[conn][place] += events;
        Position { session: self.first + self.number(conn, place), seq }
    }

    /// Id of the session that a connection visits next, and the last position it wrote there.
    pub fn latest(&self, conn: usize) -> (String, u64) {
        let place = self.turn[conn];
        let number = self.first + self.number(conn, place);
        (format!("{}{number}", self.prefix), self.next[conn][place] - 1)
    }

    fn number(&self, conn: usize, place: usize) -> u32 {
        ((conn + place * self.next.len()) % self.sessions as usize) as u32
    }

    /// Puts the line and headers of a post to a session behind `out`.
    pub fn head(&self, session: u32, verb_and_rest: &str, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = write!(out, "POST /v1/sessions/{}{session}{verb_and_rest}", self.prefix);
    }

    /// Puts an event of exactly `size` bytes behind `out`, or the shortest there is when that is
    /// longer.
    pub fn event(&self, conn: usize, seq: u64, size: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let _ = write!(
            out,
            r#"{{"type":"m","producer_id":"{}-{conn}","producer_seq":{seq},"payload":{{"text":""#,
            self.run
        );
        const END: &[u8] = br#""}}"#;
        let filled = (start + size).saturating_sub(END.len());
        out.resize(filled.max(out.len()), b'x');
        out.extend_from_slice(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_up_per_session_and_connection() {
        let mut writers = Writers::new("s", 0, 3, "r".into(), 2);
        let seen: Vec<_> = (0..4).map(|_| writers.next(0, 1)).map(|p| (p.session, p.seq)).collect();
        assert_eq!(seen, [(0, 1), (2, 1), (0, 2), (2, 2)]);
        assert_eq!(writers.next(1, 64), Position { session: 1, seq: 1 });
        assert_eq!(writers.next(1, 64), Position { session: 1, seq: 65 });
    }

    #[test]
    fn more_connections_than_sessions_share_them() {
        let mut writers = Writers::new("s", 10, 2, "r".into(), 5);
        let sessions: Vec<_> = (0..5).map(|conn| writers.next(conn, 1).session).collect();
        assert_eq!(sessions, [10, 11, 10, 11, 10]);
    }

    #[test]
    fn events_have_the_size_asked_for() {
        let writers = Writers::new("s", 0, 1, "b256".into(), 1);
        for size in [100, 1024] {
            let mut out = b"before".to_vec();
            writers.event(255, 1_000_000, size, &mut out);
            assert_eq!(out.len(), 6 + size);
            let event: serde_json::Value = serde_json::from_slice(&out[6..]).expect("JSON");
            assert_eq!(event["producer_seq"], 1_000_000);
        }
    }
}
