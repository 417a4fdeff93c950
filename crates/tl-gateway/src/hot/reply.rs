//! Replies as bytes.

use std::io::Write as _;
use std::time::{Instant, SystemTime};

use http::Response;
use tl_engine::api::{Appended, Indexed};

use crate::append::{self, Form};
use crate::problem::Problem;

/// Writes whole replies into a buffer; the date is written out once a second.
#[derive(Debug)]
pub struct Writer {
    /// `vary` has to be told because the origins are a list.
    varies: bool,
    date: String,
    date_at: Instant,
    body: Vec<u8>,
}

impl Writer {
    /// One for a gateway whose origins are listed, or not.
    pub fn new(varies: bool, now: Instant) -> Writer {
        let mut writer = Writer { varies, date: String::new(), date_at: now, body: Vec::new() };
        writer.set_date(now);
        writer
    }

    fn set_date(&mut self, now: Instant) {
        self.date_at = now;
        self.date = httpdate::fmt_http_date(SystemTime::now());
    }

    /// An append that was done.
    pub fn done(
        &mut self,
        out: &mut Vec<u8>,
        done: &Indexed<Appended>,
        form: Form,
        closing: bool,
        now: Instant,
    ) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        append::write(&mut body, &done.value, form);
        out.extend_from_slice(
            b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\
              cache-control: no-store\r\nx-throughline-index: ",
        );
        number(out, done.index.0);
        out.extend_from_slice(b"\r\n");
        self.end(out, &body, closing, now);
        self.body = body;
    }

    /// An append that was refused or failed.
    pub fn refused(&mut self, out: &mut Vec<u8>, problem: Problem, closing: bool, now: Instant) {
        let response: Response<Vec<u8>> = problem.whole();
        out.extend_from_slice(b"HTTP/1.1 ");
        number(out, response.status().as_u16().into());
        out.push(b' ');
        let reason = response.status().canonical_reason().unwrap_or_default();
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in response.headers() {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        self.end(out, response.body(), closing, now);
    }

    fn end(&mut self, out: &mut Vec<u8>, body: &[u8], closing: bool, now: Instant) {
        if now.duration_since(self.date_at).as_secs() >= 1 {
            self.set_date(now);
        }
        if self.varies {
            out.extend_from_slice(b"vary: origin\r\n");
        }
        if closing {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"content-length: ");
        number(out, body.len() as u64);
        out.extend_from_slice(b"\r\ndate: ");
        out.extend_from_slice(self.date.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    // Writing to a `Vec` cannot fail.
    let _ = write!(out, "{value}");
}
