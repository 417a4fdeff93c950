//! Who a request speaks for.

use std::fmt;

use crate::limits::FIELD_BYTES_MAX;
use crate::path::Tenant;

/// What kind of caller acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActorKind {
    /// A person.
    User,
    /// A program acting for itself.
    Agent,
    /// A back end.
    Service,
}

impl ActorKind {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ActorKind::User => "user",
            ActorKind::Agent => "agent",
            ActorKind::Service => "service",
        }
    }
}

/// Who acted: `<user|agent|service>:<id>`, at most 255 bytes in all; the id may hold colons.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Actor {
    /// Kind.
    pub kind: ActorKind,
    /// Id, not empty.
    pub id: String,
}

impl Actor {
    /// Reads an actor; `None` when the text is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Actor> {
        let (kind, id) = text.split_once(':')?;
        let kind = match kind {
            "user" => ActorKind::User,
            "agent" => ActorKind::Agent,
            "service" => ActorKind::Service,
            _ => return None,
        };
        let fits = !id.is_empty() && text.len() <= FIELD_BYTES_MAX;
        fits.then(|| Actor { kind, id: id.to_owned() })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.id)
    }
}

/// What the edge has proved about a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Owner of everything the caller may touch.
    pub tenant: Tenant,
    /// Who the caller is.
    pub actor: Actor,
    /// True without access control: appends may name any actor. With a token the actor of an
    /// event must be the caller's own.
    pub any_actor: bool,
}

impl Principal {
    /// The one principal of a node without access control: tenant `default`, `service:service`.
    #[must_use]
    pub fn open_access() -> Principal {
        Principal {
            tenant: Tenant::new("default").expect("a valid constant"),
            actor: Actor { kind: ActorKind::Service, id: "service".into() },
            any_actor: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_have_a_known_kind_and_an_id() {
        for good in ["user:ann", "agent:a:b", "service:service"] {
            assert_eq!(Actor::parse(good).map(|a| a.to_string()).as_deref(), Some(good));
        }
        for bad in ["", "ann", "user:", "svc:x", "User:x"] {
            assert_eq!(Actor::parse(bad), None, "{bad}");
        }
        assert!(Actor::parse(&format!("user:{}", "x".repeat(250))).is_some());
        assert!(Actor::parse(&format!("user:{}", "x".repeat(251))).is_none());
    }
}
