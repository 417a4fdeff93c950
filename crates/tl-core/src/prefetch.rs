//! Which rows an entry needs in memory so that applying it never waits.
//!
//! Names give the directory rows; those give the numbers, which give the rest. So loading goes
//! in rounds: ask, load what is named, ask again, until nothing is named. Ranges (forgetting
//! the oldest producers or requests, ticks) cannot be named by keys; an entry that needs one
//! may still come out [`crate::Poison::Cold`] and is then applied where reads may wait.

use tl_types::keys::GroupField;
use tl_types::{ResourceNumber, RowKey};

use crate::entry::{Command, Entry};
use crate::group::requests::scoped;
use crate::rows::{Read, Rows};
use crate::session::directory::DirectoryRow;

/// Keys of rows that `entry` reads and that `rows` does not have in memory, as far as they can
/// be known yet. Empty: as far as single rows go, `apply` will not find any of them cold.
#[must_use]
pub fn cold_keys(entry: &Entry, rows: &dyn Rows) -> Vec<RowKey> {
    let mut cold = Cold { rows, keys: Vec::new() };
    cold.look(RowKey::group(GroupField::Last));
    if let Some(id) = entry.request {
        cold.look(RowKey::request(scoped(id, &entry.principal)));
        cold.look(RowKey::group(GroupField::RequestCount));
    }
    for command in &entry.commands {
        cold.command(command);
    }
    cold.keys.sort_unstable();
    cold.keys.dedup();
    cold.keys
}

struct Cold<'a> {
    rows: &'a dyn Rows,
    keys: Vec<RowKey>,
}

impl Cold<'_> {
    fn command(&mut self, command: &Command) {
        let Some(path) = command.path() else {
            let is_list = matches!(command, Command::SetMembers(_));
            let field = if is_list { GroupField::Members } else { GroupField::RequestCount };
            self.look(RowKey::group(field));
            return;
        };
        let mut number = None;
        self.look_at(RowKey::directory(path), |row| {
            // A damaged row is for `apply` to find.
            number = DirectoryRow::decode(row).ok().map(|row| row.number);
        });
        match command {
            Command::CreateSession(_) => {
                self.look(RowKey::group(GroupField::NextNumber));
            }
            Command::Append(append) => {
                let Some(number) = self.header(number) else { return };
                for event in &append.events {
                    self.look(RowKey::producer(number, event.producer_id.as_str()));
                }
            }
            Command::UpdateHeader(_)
            | Command::SetListing(_)
            | Command::Close(_)
            | Command::Tombstone(_)
            | Command::AckArchived(_)
            | Command::Trim(_) => {
                self.header(number);
            }
            Command::Tick | Command::SetMembers(_) => {}
        }
    }

    fn header(&mut self, number: Option<ResourceNumber>) -> Option<ResourceNumber> {
        self.look(RowKey::session(number?));
        number
    }

    fn look(&mut self, key: RowKey) {
        self.look_at(key, |_| {});
    }

    /// Calls `found` with the row when it is in memory; a cold one is noted.
    fn look_at(&mut self, key: RowKey, mut found: impl FnMut(&bytes::Bytes)) {
        if self.rows.look(&key, &mut found) == Read::Cold {
            self.keys.push(key);
        }
    }
}
