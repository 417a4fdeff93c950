//! Where the database is and how it is used.

use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::tls::{Asked, Tls};
use crate::error::InvalidInput;

/// Connections that one store keeps at most, unless said otherwise.
pub const CONNECTIONS_DEFAULT: usize = 4;
/// Connections that one store may be told to keep.
pub const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How soon a connection whose other end is gone is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where a fleet's database is.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub(super) config: Config,
    pub(super) tls: Tls,
    pub(super) schema: String,
    pub(super) connections: usize,
    pub(super) migrate: bool,
}

impl PostgresOptions {
    /// Takes `postgres://user:password@host:port/database` or `host=… user=… dbname=…`.
    /// Connections are encrypted as `sslmode` and `sslrootcert` in it say, with libpq's meaning:
    /// `disable` (which is the default), `allow`, `prefer`, `require`, `verify-ca`,
    /// `verify-full`. The file of `sslrootcert` is read here.
    ///
    /// # Errors
    /// [`InvalidInput`] when it is neither, or what it says of encryption cannot be done. What was
    /// given is not repeated: it may hold a password.
    pub fn parse(url: &str) -> Result<PostgresOptions, InvalidInput> {
        let (asked, rest) = Asked::take_from(url);
        let Ok(mut config) = Config::from_str(&rest) else {
            return Err(InvalidInput::new(
                "url",
                "must be like postgres://user:password@host:5432/database",
            ));
        };
        if config.get_hosts().is_empty() {
            return Err(InvalidInput::new("url", "must name a host"));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name("throughline fleet");
        }
        config.keepalives_idle(KEEPALIVE);
        // Never in the clear because the two of us read an address differently.
        if asked.is_silent() && config.get_ssl_mode() == SslMode::Require {
            return Err(InvalidInput::new("url", "names sslmode in a way that is not understood"));
        }
        let (tls, mode) = Tls::new(&asked)?;
        config.ssl_mode(mode);
        Ok(PostgresOptions {
            config,
            tls,
            schema: "public".to_owned(),
            connections: CONNECTIONS_DEFAULT,
            migrate: true,
        })
    }

    /// The schema that the tables are in; `public` unless said otherwise.
    ///
    /// # Errors
    /// [`InvalidInput`] for anything but a plain name in lower case.
    pub fn schema(self, schema: &str) -> Result<PostgresOptions, InvalidInput> {
        let begins = schema.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !begins || schema.len() > 63 || !schema.bytes().all(plain) {
            return Err(InvalidInput::new(
                "schema",
                "must be 1 to 63 lower-case letters, digits or `_`, not beginning with a digit",
            ));
        }
        Ok(PostgresOptions { schema: schema.to_owned(), ..self })
    }

    /// How many connections to keep at most.
    ///
    /// # Errors
    /// [`InvalidInput`] outside of 1 to [`CONNECTIONS_MAX`].
    pub fn connections(self, connections: usize) -> Result<PostgresOptions, InvalidInput> {
        if connections == 0 || connections > CONNECTIONS_MAX {
            return Err(InvalidInput::new(
                "connections",
                format!("must be from 1 to {CONNECTIONS_MAX}"),
            ));
        }
        Ok(PostgresOptions { connections, ..self })
    }

    /// Only checks the tables and never makes them: for a role that may not.
    #[must_use]
    pub fn without_migration(self) -> PostgresOptions {
        PostgresOptions { migrate: false, ..self }
    }

    /// A statement in which `@` before a name stands for the schema. The name was held to plain
    /// letters, so that quoting it is enough.
    pub(super) fn sql(&self, text: &str) -> String {
        text.replace('@', &format!("\"{}\".", self.schema))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_a_wrong_one_is_not_repeated() {
        assert!(PostgresOptions::parse("postgres://ann:pw@db:5433/fleet").is_ok());
        assert!(PostgresOptions::parse("host=/run/postgresql user=ann dbname=fleet").is_ok());
        for wrong in ["", "postgres://ann:secret@db:port/fleet", "user=secret"] {
            let error = PostgresOptions::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with("url ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_address_that_asks_for_what_cannot_be_had_is_refused_by_name() {
        for fine in ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=require"] {
            assert!(PostgresOptions::parse(&format!("postgres://h/d{fine}")).is_ok(), "{fine}");
        }
        let cases = [
            ("sslmode=always", "sslmode that is not"),
            ("sslmode=verify-full", "needs sslrootcert"),
            ("sslmode=verify-ca", "needs sslrootcert"),
            ("sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
            ("sslmode=require&sslrootcert=/dev/null", "holds no certificate"),
        ];
        for (words, said) in cases {
            let url = format!("postgres://ann:secret@h/d?{words}");
            let error = PostgresOptions::parse(&url).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("secret"), "{words}: {error}");
        }
    }

    #[test]
    fn a_schema_is_a_plain_name() {
        let options = PostgresOptions::parse("host=db").unwrap();
        assert_eq!(
            options.clone().schema("team_1").unwrap().sql("SELECT @x()"),
            r#"SELECT "team_1".x()"#
        );
        for wrong in ["", "1a", "Team", "a b", "a\"; DROP TABLE x; --", &"a".repeat(64)] {
            assert!(options.clone().schema(wrong).is_err(), "{wrong}");
        }
        assert!(options.clone().connections(CONNECTIONS_MAX).is_ok());
        assert!(options.clone().connections(0).is_err());
        assert!(options.connections(CONNECTIONS_MAX + 1).is_err());
    }
}
