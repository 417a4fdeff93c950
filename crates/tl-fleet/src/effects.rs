//! Insert-if-absent beside a claim, for effects that must happen once.

use crate::claim::ClaimKey;
use crate::error::InvalidInput;
use crate::json::JsonText;
use crate::limits::EFFECT_BYTES_MAX;
use crate::step::check_key;

/// An effect to be noted under a step. The note outlives the attempt, so a later attempt sees
/// that the effect has happened and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEffect {
    /// Who notes it: only the holder may.
    pub claim: ClaimKey,
    /// Which effect of the step.
    pub key: String,
    /// What came of it.
    pub value: JsonText,
}

impl NewEffect {
    /// Holds every limit of an effect.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the first field that is past its limit.
    pub fn check(&self) -> Result<(), InvalidInput> {
        check_key("effect_key", &self.key)?;
        if self.value.len_bytes() > EFFECT_BYTES_MAX {
            return Err(InvalidInput::new(
                "effect_value",
                format!("must be at most {EFFECT_BYTES_MAX} bytes"),
            ));
        }
        Ok(())
    }
}

/// What became of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectNoted {
    /// It is new and kept.
    Now,
    /// It was there; the earlier value stands.
    Before {
        /// What came of it then.
        value: JsonText,
    },
    /// The claim is lost; nothing was noted.
    Fenced,
    /// The step has noted [`crate::limits::EFFECTS_MAX`] others; nothing was noted.
    TooMany,
}
