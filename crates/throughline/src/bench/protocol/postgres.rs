//! `INSERT` in Postgres' protocol (version 3): a statement prepared once per connection, one row
//! and one commit per request.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, bail};

use super::Protocol;

/// Longest message that is read while a connection is opened.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Rows of one session number and one text.
#[derive(Debug)]
pub struct Rows {
    user: String,
    database: String,
    sessions: u32,
    text: Vec<u8>,
    next: u32,
}

impl Rows {
    /// Rows with texts of `size` bytes over so many session numbers.
    pub fn new(user: &str, database: &str, sessions: u32, size: usize) -> Rows {
        let text = vec![b'x'; size];
        Rows { user: user.to_owned(), database: database.to_owned(), sessions, text, next: 0 }
    }
}

impl Protocol for Rows {
    /// Logs in without a password, makes sure of the table and prepares the statement.
    fn greet(&mut self, stream: &mut TcpStream) -> anyhow::Result<()> {
        let mut start = 196_608_u32.to_be_bytes().to_vec();
        for text in ["user", &self.user, "database", &self.database, ""] {
            start.extend_from_slice(text.as_bytes());
            start.push(0);
        }
        let length = (start.len() + 4) as u32;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&start)?;
        until_ready(stream).context("logging in to Postgres")?;
        let mut out = Vec::new();
        let table = "create table if not exists bench (id bigserial primary key, session int \
                     not null, payload text not null)";
        message(&mut out, b'Q', |body| text(body, table));
        stream.write_all(&out)?;
        until_ready(stream).context("creating the table")?;
        out.clear();
        message(&mut out, b'P', |body| {
            text(body, "add");
            text(body, "insert into bench (session, payload) values ($1::text::int, $2)");
            body.extend_from_slice(&0_u16.to_be_bytes());
        });
        message(&mut out, b'S', |_| ());
        stream.write_all(&out)?;
        until_ready(stream).context("preparing the insert")
    }

    /// Bind, Execute and Sync; the parameters are texts.
    fn request(&mut self, _place: usize, out: &mut Vec<u8>) {
        self.next = (self.next + 1) % self.sessions;
        message(out, b'B', |body| {
            text(body, "");
            text(body, "add");
            body.extend_from_slice(&0_u16.to_be_bytes());
            body.extend_from_slice(&2_u16.to_be_bytes());
            let session = self.next.to_string();
            for value in [session.as_bytes(), &self.text] {
                body.extend_from_slice(&(value.len() as u32).to_be_bytes());
                body.extend_from_slice(value);
            }
            body.extend_from_slice(&0_u16.to_be_bytes());
        });
        message(out, b'E', |body| {
            text(body, "");
            body.extend_from_slice(&0_u32.to_be_bytes());
        });
        message(out, b'S', |_| ());
    }

    /// Everything up to "ready for the next query".
    fn reply(&mut self, _place: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        let mut at = 0;
        while let Some((kind, length)) = header(&bytes[at..]) {
            let Some(body) = bytes.get(at + 5..at + 1 + length) else { return Ok(None) };
            match kind {
                b'E' => return Err(complaint(body)),
                b'Z' => return Ok(Some(at + 1 + length)),
                _ => at += 1 + length,
            }
        }
        Ok(None)
    }
}

/// Kind and length (which counts itself) of the message at the front.
fn header(bytes: &[u8]) -> Option<(u8, usize)> {
    let (head, _) = bytes.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    Some((head[0], (length as usize).max(4)))
}

fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// The readable field of an error message.
fn complaint(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let readable = fields.filter_map(|field| field.strip_prefix(b"M")).next();
    String::from_utf8_lossy(readable.unwrap_or(b"an error without words")).into_owned()
}

fn until_ready(stream: &mut TcpStream) -> anyhow::Result<()> {
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let (kind, length) = header(&head).expect("a header has five bytes");
        if length > MESSAGE_BYTES_MAX {
            bail!("the server announced a message of {length} bytes");
        }
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body)?;
        match kind {
            b'E' => bail!("{}", complaint(&body)),
            // Authentication: 0 is "you are in"; anything else asks for a password.
            b'R' if body != [0; 4] => bail!("the server wants a password"),
            b'Z' => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_bind_execute_sync() {
        let mut out = Vec::new();
        Rows::new("u", "d", 5, 3).request(0, &mut out);
        let mut kinds = Vec::new();
        let mut at = 0;
        while let Some((kind, length)) = header(&out[at..]) {
            kinds.push(kind);
            at += 1 + length;
        }
        assert_eq!((at, kinds.as_slice()), (out.len(), b"BES".as_slice()));
    }

    #[test]
    fn a_reply_ends_with_ready_and_an_error_is_told() {
        let mut rows = Rows::new("u", "d", 1, 1);
        let mut reply = b"2\0\0\0\x04C\0\0\0\x0fINSERT 0 1\0Z\0\0\0\x05I".to_vec();
        for cut in 0..reply.len() {
            assert_eq!(rows.reply(0, &reply[..cut]), Ok(None), "{cut}");
        }
        let whole = reply.len();
        reply.push(b'2');
        assert_eq!(rows.reply(0, &reply), Ok(Some(whole)));
        let error = b"E\0\0\0\x0eSERROR\0Mno\0\0";
        assert_eq!(rows.reply(0, error), Err("no".to_owned()));
    }
}
