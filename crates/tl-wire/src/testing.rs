//! Helpers for the tests of this crate.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use tl_types::{Actor, Principal, Tenant};

/// Compares with a golden file. With `TL_GOLDEN=write` the file is written instead: look at the
/// difference before committing it, since readers and archives depend on these bytes.
pub(crate) fn golden(name: &str, seen: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let seen = String::from_utf8(seen.to_vec()).unwrap() + "\n";
    if std::env::var("TL_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, &seen).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    assert_eq!(seen, wanted, "{name}");
}

/// A caller with a token.
pub(crate) fn ann() -> Principal {
    Principal {
        tenant: Tenant::new("acme").unwrap(),
        actor: Actor::parse("user:ann").unwrap(),
        any_actor: false,
    }
}

/// A source of choices for spelling the same value in many ways.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}
