//! Variables of two families, read one by one; every mistake is kept, so that one message can
//! name them all.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::settings::sources::nearest;

/// Our own variables begin so.
pub const OURS: &str = "TL_FLEET_";
/// Variables of a compatible program begin so.
pub const THEIRS: &str = "FLEET_Q_";

/// A value with the name that it goes by in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// A variable, or a flag.
    pub name: String,
    /// What was given.
    pub text: String,
}

/// What is left to read, and what was wrong so far.
#[derive(Debug, Default)]
pub struct Reader {
    given: BTreeMap<String, Given>,
    flags: BTreeMap<&'static str, Given>,
    /// Every variable that was asked for: those that there are.
    pub asked: Vec<String>,
    /// A sentence per mistake.
    pub problems: Vec<String>,
}

impl Reader {
    /// Takes the variables of both families out of an environment, whatever their case.
    pub fn new(environment: &[(String, String)], flags: Vec<(&'static str, Given)>) -> Reader {
        let mut reader = Reader { flags: flags.into_iter().collect(), ..Reader::default() };
        for (name, text) in environment {
            let upper = name.to_ascii_uppercase();
            if upper.starts_with(OURS) || upper.starts_with(THEIRS) {
                let given = Given { name: name.clone(), text: text.trim().to_owned() };
                reader.given.insert(upper, given);
            }
        }
        reader
    }

    /// The value of our setting: from its flag, else its variable. An empty one is none.
    pub fn ours(&mut self, key: &'static str) -> Option<Given> {
        let name = format!("{OURS}{}", key.to_ascii_uppercase());
        let variable = self.given.remove(&name);
        self.asked.push(name);
        self.flags.remove(key).or(variable).filter(|given| !given.text.is_empty())
    }

    /// The value of a compatible variable.
    pub fn theirs(&mut self, name: &str) -> Option<Given> {
        let name = format!("{THEIRS}{name}");
        let variable = self.given.remove(&name);
        self.asked.push(name);
        variable.filter(|given| !given.text.is_empty())
    }

    /// A number of ours in its range, or its default.
    pub fn number<T>(&mut self, key: &'static str, range: RangeInclusive<T>, default: T) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        let given = self.ours(key);
        self.parsed(given, range).unwrap_or(default)
    }

    /// A number of a compatible variable in its range.
    pub fn their_number<T>(&mut self, name: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let given = self.theirs(name);
        self.parsed(given, range)
    }

    fn parsed<T>(&mut self, given: Option<Given>, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let given = given?;
        match given.text.parse::<T>() {
            Ok(value) if range.contains(&value) => Some(value),
            _ => {
                let (least, most) = range.into_inner();
                self.wrong(&given, &format!("must be from {least} to {most}"));
                None
            }
        }
    }

    /// Notes a mistake in a value, which is repeated, cut to what fits a line.
    pub fn wrong(&mut self, given: &Given, rule: &str) {
        let text: String = given.text.chars().take(60).collect();
        self.problems.push(format!("{} {rule}, not {text:?}", given.name));
    }

    /// Notes a mistake in a value that may be a secret.
    pub fn wrong_secret(&mut self, given: &Given, rule: &str) {
        self.problems.push(format!("{} {rule}", given.name));
    }

    /// Truth value of ours.
    pub fn truth(&mut self, key: &'static str, default: bool) -> bool {
        match self.ours(key) {
            None => default,
            Some(given) => match given.text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => true,
                "false" | "0" | "no" | "off" => false,
                _ => {
                    self.wrong(&given, "must be true or false");
                    default
                }
            },
        }
    }

    /// Ends the reading: whatever of ours is left is a slip. Of the others, what is not known
    /// here is passed over.
    pub fn end(mut self) -> Vec<String> {
        for (name, given) in &self.given {
            if name.starts_with(OURS) && !given.text.is_empty() {
                let known: Vec<&str> = self.asked.iter().map(String::as_str).collect();
                let near = nearest(name, &known);
                let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                self.problems.push(format!("there is no setting {}{near}", given.name));
            }
        }
        self.problems
    }
}
