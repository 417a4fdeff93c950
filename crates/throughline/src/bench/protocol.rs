//! The two protocols that the load thread speaks: raw frames for the ceiling, HTTP for a node.

/// What is sent and how a reply is recognised.
#[derive(Debug)]
pub enum Protocol {
    /// `size` bytes each, answered by 8 bytes.
    Raw {
        /// Bytes per request.
        size: usize,
    },
    /// `POST /v1/sessions/:id/append`, one event, keep-alive.
    Append(AppendRequests),
}

/// Bytes of the reply of the raw protocol.
pub const RAW_REPLY_BYTES: usize = 8;

/// Requests of appends: every connection owns sessions and counts its own positions in each.
#[derive(Debug)]
pub struct AppendRequests {
    /// Host header.
    pub host: String,
    /// Body bytes of each request.
    pub size: usize,
    /// Which run this is; part of producer ids, so that a later run starts at 1 again.
    pub run: String,
    /// All sessions; connection `c` of `n` uses every `n`-th from `c` on.
    pub sessions: Vec<String>,
    /// Next position per connection and session it owns.
    pub next: Vec<Vec<u64>>,
    /// Which of its sessions each connection uses next.
    pub turn: Vec<usize>,
}

impl AppendRequests {
    /// Requests for `conns` connections over `sessions`.
    pub fn new(
        host: String,
        size: usize,
        run: String,
        sessions: Vec<String>,
        conns: usize,
    ) -> Self {
        let owned = |conn: usize| match conn < sessions.len() {
            true => sessions.len().saturating_sub(conn).div_ceil(conns),
            // More connections than sessions: they share, each with a producer of its own.
            false => 1,
        };
        let next = (0..conns).map(|conn| vec![1; owned(conn)]).collect();
        AppendRequests { host, size, run, sessions, next, turn: vec![0; conns] }
    }

    fn request(&mut self, conn: usize, out: &mut Vec<u8>) {
        use std::io::Write;
        let conns = self.next.len();
        let place = self.turn[conn];
        self.turn[conn] = (place + 1) % self.next[conn].len();
        let session = &self.sessions[(conn + place * conns) % self.sessions.len()];
        let seq = self.next[conn][place];
        self.next[conn][place] += 1;
        let mut body = Vec::with_capacity(self.size);
        // Writing to a vector cannot fail.
        let _ = write!(
            body,
            r#"{{"type":"message","producer_id":"{}-{conn}","producer_seq":{seq},"payload":{{"text":""#,
            self.run
        );
        const END: &[u8] = br#""}}"#;
        body.resize(self.size.saturating_sub(END.len()).max(body.len()), b'x');
        body.extend_from_slice(END);
        let _ = write!(
            out,
            "POST /v1/sessions/{session}/append HTTP/1.1\r\nhost: {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        out.extend_from_slice(&body);
    }
}

impl Protocol {
    /// Appends the next request of a connection to `out`.
    pub fn request(&mut self, conn: usize, out: &mut Vec<u8>) {
        match self {
            Protocol::Raw { size } => out.resize(out.len() + *size, b'x'),
            Protocol::Append(requests) => requests.request(conn, out),
        }
    }

    /// Length of the reply at the front of `bytes` once it is whole.
    ///
    /// # Errors
    /// A reply that is no success, in words.
    pub fn reply(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        match self {
            Protocol::Raw { .. } => Ok((bytes.len() >= RAW_REPLY_BYTES).then_some(RAW_REPLY_BYTES)),
            Protocol::Append(_) => http_reply(bytes),
        }
    }
}

fn http_reply(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]);
    let length = text
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        })
        .ok_or("a reply without content-length")?;
    let whole = head + 4 + length;
    if bytes.len() < whole {
        return Ok(None);
    }
    if !text.starts_with("HTTP/1.1 201") {
        return Err(String::from_utf8_lossy(&bytes[..whole]).into_owned());
    }
    Ok(Some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_size_asked_for_and_positions_count_up_per_session() {
        let sessions = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let requests = AppendRequests::new("h".into(), 300, "r".into(), sessions, 2);
        let mut protocol = Protocol::Append(requests);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let mut out = Vec::new();
            protocol.request(0, &mut out);
            let text = String::from_utf8(out).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
            assert_eq!(body.len(), 300);
            let session = head.split('/').nth(3).expect("path").to_owned();
            let seq = body.split("\"producer_seq\":").nth(1).expect("seq")[..1].to_owned();
            seen.push(format!("{session}{seq}"));
        }
        assert_eq!(seen, ["a1", "c1", "a2", "c2"]);
    }

    #[test]
    fn replies_are_found_whole_or_not_at_all() {
        let reply = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}rest";
        assert_eq!(http_reply(&reply[..40]), Ok(None));
        assert_eq!(http_reply(reply), Ok(Some(reply.len() - 4)));
        assert!(http_reply(b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n").is_err());
        let protocol = Protocol::Raw { size: 10 };
        assert_eq!(protocol.reply(&[0; 7]), Ok(None));
        assert_eq!(protocol.reply(&[0; 9]), Ok(Some(8)));
    }
}
