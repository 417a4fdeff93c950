//! JSON that is carried but not read: arguments, metadata, results.

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::error::InvalidInput;

/// Valid JSON as the text that was given, shared and not copied.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonText(Arc<str>);

impl JsonText {
    /// Takes any JSON value.
    ///
    /// # Errors
    /// [`InvalidInput`] naming `field` when the text is not one JSON value, or nests deeper
    /// than serde_json reads (128 levels).
    pub fn value(field: &'static str, text: &str) -> Result<JsonText, InvalidInput> {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => Ok(JsonText(raw.get().into())),
            Err(error) => Err(InvalidInput::new(field, format!("is not valid JSON: {error}"))),
        }
    }

    /// Takes a JSON object.
    ///
    /// # Errors
    /// As [`JsonText::value`], and for any other kind of value.
    pub fn object(field: &'static str, text: &str) -> Result<JsonText, InvalidInput> {
        let json = JsonText::value(field, text)?;
        if json.as_str().starts_with('{') {
            Ok(json)
        } else {
            Err(InvalidInput::new(field, "must be a JSON object"))
        }
    }

    /// The empty object.
    #[must_use]
    pub fn empty_object() -> JsonText {
        JsonText("{}".into())
    }

    /// `null`.
    #[must_use]
    pub fn null() -> JsonText {
        JsonText("null".into())
    }

    /// What a store has kept; it was checked on its way in.
    #[must_use]
    pub fn from_store(text: &str) -> JsonText {
        JsonText(text.into())
    }

    /// Writes a value of the program as JSON.
    ///
    /// # Errors
    /// [`InvalidInput`] when the value has no form in JSON, such as a map with keys that are
    /// not text.
    pub fn of(
        field: &'static str,
        value: &impl serde::Serialize,
    ) -> Result<JsonText, InvalidInput> {
        match serde_json::to_string(value) {
            Ok(text) => Ok(JsonText(text.into())),
            Err(error) => Err(InvalidInput::new(field, format!("has no JSON form: {error}"))),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length, bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for JsonText {
    /// Payloads are the users' and do not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({} bytes)", self.0.len())
    }
}
