//! Resource paths `tenant/namespace/kind/name`, the affinity tag, and the group they fall in.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::ids::GroupId;
use crate::limits::{NAMESPACE_BYTES_MAX, SESSION_ID_BYTES_MAX};

/// The four kinds of resource. The numbers stand in directory keys and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One ordered log for a conversation or run.
    Session = 1,
    /// A partitioned log.
    Stream = 2,
    /// Jobs with leases.
    Queue = 3,
    /// Keys and values.
    Kv = 4,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` when it keeps the rule, else `None`.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                $check(text).then(|| $name(text.into()))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text!(
    /// Security and quota boundary; comes from the token, never from a body.
    Tenant, is_namespace
);
text!(
    /// A tenant's own folder of names: 1–64 bytes of ASCII letters, digits, `-_.`.
    Namespace, is_namespace
);
text!(
    /// A session's id: 1–255 bytes of UTF-8 without control characters.
    SessionId, is_session_id
);

impl Namespace {
    /// The namespace used when a request names none.
    #[must_use]
    pub fn default_namespace() -> Namespace {
        Namespace("default".into())
    }
}

fn is_namespace(text: &str) -> bool {
    (1..=NAMESPACE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_session_id(text: &str) -> bool {
    (1..=SESSION_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The full address of a session; other kinds get theirs when they are built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePath {
    /// Owner.
    pub tenant: Tenant,
    /// Folder.
    pub namespace: Namespace,
    /// What it is.
    pub kind: Kind,
    /// Its name; for sessions the session id.
    pub name: SessionId,
}

impl ResourcePath {
    /// The path of a session.
    #[must_use]
    pub fn session(tenant: Tenant, namespace: Namespace, id: SessionId) -> Self {
        ResourcePath { tenant, namespace, kind: Kind::Session, name: id }
    }

    /// What decides the group: resources with the same tenant, namespace and tag live together.
    #[must_use]
    pub fn affinity(&self) -> Affinity<'_> {
        Affinity {
            tenant: self.tenant.as_str(),
            namespace: self.namespace.as_str(),
            tag: tag_of(self.name.as_str()),
            partition: None,
        }
    }

    /// The group this resource lives in.
    #[must_use]
    pub fn group(&self, groups: u16) -> GroupId {
        self.affinity().group(groups)
    }
}

/// The affinity tag: bytes between the first `{` and the next `}` behind it, if at least one,
/// else the whole name.
///
/// # Source
/// Redis Cluster's hash tag rule.
#[must_use]
pub fn tag_of(name: &str) -> &str {
    let Some(open) = name.find('{') else { return name };
    let behind = &name[open + 1..];
    match behind.find('}') {
        Some(len) if len > 0 => &behind[..len],
        _ => name,
    }
}

/// What the group hash is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity<'a> {
    /// Owner.
    pub tenant: &'a str,
    /// Folder.
    pub namespace: &'a str,
    /// Tag of the name, or the name.
    pub tag: &'a str,
    /// Partition of a stream without a tag.
    pub partition: Option<u32>,
}

impl Affinity<'_> {
    /// xxh3-64 (seed 0) of the length-prefixed parts, modulo the number of groups. Each part is
    /// preceded by its length as a big-endian `u32`; the partition is written in decimal.
    ///
    /// # Panics
    /// When `groups` is zero: the cluster record never holds that.
    #[must_use]
    pub fn group(&self, groups: u16) -> GroupId {
        assert!(groups > 0, "a cluster has at least one group");
        let mut hash = Xxh3::new();
        let mut part = |text: &str| {
            hash.update(&(text.len() as u32).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(self.tenant);
        part(self.namespace);
        part(self.tag);
        if let Some(partition) = self.partition {
            part(&partition.to_string());
        }
        GroupId((hash.digest() % u64::from(groups)) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(tenant: &str, namespace: &str, name: &str) -> u16 {
        let path = ResourcePath::session(
            Tenant::new(tenant).expect("tenant"),
            Namespace::new(namespace).expect("namespace"),
            SessionId::new(name).expect("id"),
        );
        path.group(256).0
    }

    #[test]
    fn the_tag_is_what_redis_cluster_takes() {
        let cases = [
            ("chat-{42}", "42"),
            ("{a}{b}", "a"),
            ("{}x", "{}x"),
            ("{}{a}", "{}{a}"),
            ("x{", "x{"),
            ("}{a}", "a"),
            ("a{{b}}", "{b"),
            ("plain", "plain"),
        ];
        for (name, tag) in cases {
            assert_eq!(tag_of(name), tag, "{name}");
        }
    }

    #[test]
    fn groups_never_move_golden() {
        let seen: Vec<u16> = [
            ("default", "default", "ses_1"),
            ("default", "default", "chat-{42}"),
            ("default", "default", "tools-{42}"),
            ("acme", "default", "ses_1"),
            ("default", "acme", "ses_1"),
            ("default", "default", "Gespräch/7"),
        ]
        .into_iter()
        .map(|(t, n, s)| group(t, n, s))
        .collect();
        let golden = include_str!("../golden/groups.txt");
        let golden: Vec<u16> = golden.lines().map(|l| l.parse().expect("number")).collect();
        assert_eq!(seen, golden);
        assert_eq!(seen[1], seen[2], "one tag, one group");
    }

    #[test]
    fn ids_at_the_limit_and_one_past() {
        assert!(SessionId::new(&"x".repeat(255)).is_some());
        assert!(SessionId::new(&"x".repeat(256)).is_none());
        assert!(SessionId::new("").is_none());
        assert!(SessionId::new("a\u{7f}").is_none());
        assert!(SessionId::new("a b/ü").is_some());
        assert!(Namespace::new(&"n".repeat(64)).is_some());
        assert!(Namespace::new(&"n".repeat(65)).is_none());
        assert!(Namespace::new("a/b").is_none());
    }
}
