//! The one place where an error becomes an HTTP reply: status, body, `Retry-After`.

use std::borrow::Cow;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tl_types::ErrorCode;
use tl_wire::error::{Fact, WireError, error_body};

use crate::reply::whole_json;

/// A refusal or failure on its way out.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    code: ErrorCode,
    message: Cow<'static, str>,
    facts: Vec<(&'static str, Fact)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with the table's own message.
    pub fn of(code: ErrorCode) -> Problem {
        Problem::new(code, code.message())
    }

    /// A problem that says more exactly what happened.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Problem {
        Problem { code, message: message.into(), facts: Vec::new(), headers: Vec::new() }
    }

    /// Adds a named number to the body.
    pub fn fact(mut self, name: &'static str, value: u64) -> Problem {
        self.facts.push((name, Fact::Number(value)));
        self
    }

    /// Takes a fact away.
    pub fn without_fact(mut self, name: &str) -> Problem {
        self.facts.retain(|(fact, _)| *fact != name);
        self
    }

    /// Adds a header to the reply.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    /// Its public code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The reply.
    pub fn reply(self) -> Response<Body> {
        self.whole().map(Body::from)
    }

    /// The reply with its body in one piece.
    pub fn whole(self) -> Response<Vec<u8>> {
        let mut body = Vec::with_capacity(128);
        error_body(&mut body, self.code, &self.message, &self.facts);
        let mut response = whole_json(status(self.code), body);
        let headers = response.headers_mut();
        if self.code.has_retry_after() {
            headers.insert(header::RETRY_AFTER, retry_after(self.code));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

fn status(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.status()).expect("the table holds statuses of HTTP")
}

/// Whole seconds. Open tails end by readers leaving, which takes longer than a queue or an
/// election.
fn retry_after(code: ErrorCode) -> HeaderValue {
    match code {
        ErrorCode::TooManyTails => HeaderValue::from_static("5"),
        _ => HeaderValue::from_static("1"),
    }
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Problem {
        let WireError { code, message, facts } = error;
        Problem { code, message, facts, headers: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_seconds_and_only_on_429_and_503() {
        for &code in ErrorCode::ALL {
            let response = Problem::of(code).reply();
            assert_eq!(response.status().as_u16(), code.status());
            let wait = response.headers().get(header::RETRY_AFTER);
            assert_eq!(wait.is_some(), matches!(code.status(), 429 | 503), "{code}");
            if let Some(wait) = wait {
                let seconds: u32 = wait.to_str().expect("text").parse().expect("whole seconds");
                assert!(seconds >= 1);
            }
        }
    }
}
