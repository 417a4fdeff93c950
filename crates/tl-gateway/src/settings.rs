//! What an operator may choose about the HTTP face, and its fixed ceilings.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use tl_types::limits::{EVENT_BYTES_MAX, PAGE_BYTES_MAX, TAILS_OPEN_MAX};

/// Most bytes of a request's line and headers together. One past: 431 and the connection ends.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Most headers of a request. One past: 431 and the connection ends.
pub const HEADERS_MAX: usize = 100;
/// Bytes that a connection buffers in each direction.
pub const CONNECTION_BUFFER_BYTES: usize = HEADER_BYTES_MAX + 8 * 1024;
/// How long the reply to an append may hold its events back from tails when the client does not
/// read it, milliseconds.
pub const REPLY_HOLD_MS: u64 = 100;
/// Replies to appends that one connection may hold back at a time; the oldest is let go.
pub const REPLIES_HELD_MAX: usize = 64;
/// A body that promises no more than this is a small one.
pub const SMALL_BODY_BYTES: u64 = 64 * 1024;
/// Of the room for bodies, this part is for small ones.
pub const SMALL_BODIES_DIVISOR: u64 = 4;
/// Unread rest of a refused body that is read and dropped, so that the connection can go on. With
/// more behind it, or an unknown rest, the connection ends.
pub const SKIPPED_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that a client may still send into a connection that ends before it is cut: until then
/// it can read why.
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the rest of a refused body is read on, milliseconds.
pub const LINGER_MS: u64 = 2_000;
/// How long the last frame of a WebSocket may take to go out, milliseconds: a reader that was cut
/// off for being slow has this long to come back and learn why.
pub const GOODBYE_MS: u64 = 5_000;
/// How long the peer of a closed WebSocket may take to close its side, milliseconds.
pub const CLOSE_LINGER_MS: u64 = 1_000;
/// Frames that the client of a WebSocket may send between two of our pings. A tail takes none,
/// so these are pings, pongs and what is ignored. One past: close 1008.
pub const CLIENT_FRAMES_MAX: usize = 1_024;
/// Payload that the client of a WebSocket may send between two of our pings, bytes. One past:
/// close 1008.
pub const CLIENT_BYTES_MAX: usize = 1024 * 1024;
/// Room that a page takes while it is read and written down: its events, one of them past the
/// limit of a page, and the reply made from them. Given back when the reply is there, up to the
/// reply's own bytes.
pub const PAGE_ROOM_BYTES: usize = 2 * (PAGE_BYTES_MAX + EVENT_BYTES_MAX);
/// Pause after the operating system refused to accept a connection, milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 50;
/// Most bytes of a plain append that the driver's thread serves itself, head and body; larger
/// ones take the general way.
pub const HOT_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of requests that are not whole yet or were sent ahead, over all connections on the
/// driver's thread. Past it a connection with the first kind takes the general way at once, and
/// the second kind is read in small pieces.
pub const HOT_INPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of such a piece: what one more connection may have sent ahead.
pub const HOT_CROWDED_READ_BYTES: usize = 8 * 1024;
/// Bytes that the driver's thread reads from sockets before it does anything else.
pub const HOT_READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A request that is not whole after this takes the general way, milliseconds.
pub const HOT_HANDOVER_MS: u64 = 1_000;
/// Events a tail takes from the Service at a time when the reader asked for single frames.
pub const TAIL_TAKE_MAX: usize = 512;

/// Settings of the HTTP face as written. [`GatewaySettings::check`] refuses values out of range
/// by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct GatewaySettings {
    /// Address to listen on. Default `127.0.0.1:4000`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Serve on an address that is not loopback although there is no access control. Default
    /// false.
    pub open_to_network: bool,
    /// Origins that browsers may call from, as `https://app.example`. Default none written,
    /// which admits every origin; no cookies are ever used. At most 64.
    pub origins: Vec<String>,
    /// Serve plain appends on the driver's own thread, which spares two hand-overs each. Default
    /// true; without effect where there is no epoll.
    pub hot_appends: bool,
    /// Most connections at a time; more wait in the listen queue. Default 60000; from 1 to
    /// 1000000.
    pub connections_max: u32,
    /// Bytes that all request bodies under way may take together, a quarter of it for those of at
    /// most 64 KiB alone; past it a request is refused
    /// with `event_store_backpressure`. Default 256 MiB; from 16 MiB to 64 GiB.
    pub bodies_bytes_max: u64,
    /// Bytes that all pages of events and sessions may take together while they are read, and
    /// until their readers have taken them. A page waits for its room; after five seconds
    /// it is refused with `event_store_backpressure`. Default 256 MiB; from 16 MiB to 64 GiB.
    pub pages_bytes_max: u64,
    /// Most requests that are worked on at a time, reads too; past it `event_store_backpressure`.
    /// Open tails and long polls that wait do not count, nor do health and metrics. Default 8192;
    /// from 1 to 1000000.
    pub requests_max: u32,
    /// Most open tails, long polls that wait among them; past it `too_many_tails`. A connection
    /// carries one at a time. Default 50000; from 1 to 50000.
    pub tails_max: u32,
    /// How long a connection may take to send a request's headers, also how long it may stay
    /// idle between requests, milliseconds. Default 60000; from 10 to 600000.
    pub head_read_ms: u64,
    /// How long a request's body may take to arrive, milliseconds. Default 30000; from 10 to
    /// 600000.
    pub body_read_ms: u64,
    /// How long a reader may take no byte before it is cut off, milliseconds. Default 10000;
    /// from 10 to 600000.
    pub write_stall_ms: u64,
    /// How long the peer of a connection may acknowledge nothing that was sent to it before it
    /// counts as gone, milliseconds. Default 60000; from 100 to 600000.
    pub unacked_ms: u32,
    /// Wait between two WebSocket pings, milliseconds. Default 20000; from 10 to 600000.
    pub ping_ms: u64,
    /// Wait between two heartbeats of an event stream, milliseconds. Default 10000; from 10 to
    /// 600000.
    pub heartbeat_ms: u64,
    /// How long open requests may take to finish when the server stops, milliseconds. Default
    /// 10000; from 0 to 600000.
    pub drain_ms: u64,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        GatewaySettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4000)),
            open_to_network: false,
            origins: Vec::new(),
            hot_appends: true,
            connections_max: 60_000,
            bodies_bytes_max: 256 << 20,
            pages_bytes_max: 256 << 20,
            requests_max: 8_192,
            tails_max: TAILS_OPEN_MAX as u32,
            head_read_ms: 60_000,
            body_read_ms: 30_000,
            write_stall_ms: 10_000,
            unacked_ms: 60_000,
            ping_ms: 20_000,
            heartbeat_ms: 10_000,
            drain_ms: 10_000,
        }
    }
}

/// Most origins in the settings.
const ORIGINS_MAX: usize = 64;

impl GatewaySettings {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// A sentence per bad value, naming the key and the range.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let mut range = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                errors.push(format!("{key} is {value}; it must be from {low} to {high}"));
            }
        };
        range("connections_max", self.connections_max.into(), 1, 1_000_000);
        range("bodies_bytes_max", self.bodies_bytes_max, 16 << 20, 64 << 30);
        range("pages_bytes_max", self.pages_bytes_max, 16 << 20, 64 << 30);
        range("requests_max", self.requests_max.into(), 1, 1_000_000);
        range("tails_max", self.tails_max.into(), 1, TAILS_OPEN_MAX as u64);
        range("head_read_ms", self.head_read_ms, 10, 600_000);
        range("body_read_ms", self.body_read_ms, 10, 600_000);
        range("write_stall_ms", self.write_stall_ms, 10, 600_000);
        range("unacked_ms", self.unacked_ms.into(), 100, 600_000);
        range("ping_ms", self.ping_ms, 10, 600_000);
        range("heartbeat_ms", self.heartbeat_ms, 10, 600_000);
        range("drain_ms", self.drain_ms, 0, 600_000);
        range("the number of origins", self.origins.len() as u64, 0, ORIGINS_MAX as u64);
        if !self.listen.ip().is_loopback() && !self.open_to_network {
            errors.push(format!(
                "listen is {}, which is not loopback, and there is no access control; set \
                 open_to_network to serve it all the same",
                self.listen
            ));
        }
        for origin in &self.origins {
            if !is_origin(origin) {
                errors
                    .push(format!("origin {origin:?} must be scheme://host or scheme://host:port"));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// `scheme://host[:port]` without a path, the shape browsers send.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let plain = |part: &str, extra: &[u8]| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
    };
    plain(scheme, b"+-.") && plain(host, b"-._:[]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_keep_their_own_ranges() {
        assert_eq!(GatewaySettings::default().check(), Ok(()));
    }

    #[test]
    fn every_bad_value_is_named_at_once() {
        let settings = GatewaySettings {
            listen: SocketAddr::from(([0, 0, 0, 0], 4000)),
            connections_max: 0,
            origins: vec!["https://app.example/path".to_owned(), "https://app.example".to_owned()],
            ..GatewaySettings::default()
        };
        let errors = settings.check().expect_err("three bad values");
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert_eq!(errors[0], "connections_max is 0; it must be from 1 to 1000000");
        assert!(errors[1].starts_with("listen is 0.0.0.0:4000"), "{errors:?}");
        let forced = GatewaySettings { open_to_network: true, ..settings };
        assert_eq!(forced.check().expect_err("two bad values").len(), 2);
    }
}
