//! Instants as Unix milliseconds inside, RFC 3339 with three fraction digits and `Z` outside.

use std::fmt;

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMs(pub u64);

/// Last representable instant: 9999-12-31T23:59:59.999Z, the end of RFC 3339's year range.
const LAST_MS: u64 = 253_402_300_799_999;

impl UnixMs {
    /// Reads an RFC 3339 instant; digits past milliseconds are cut.
    ///
    /// Returns `None` for anything else, and for instants before 1970.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<UnixMs> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(UtcOffset::UTC);
        let ms = u64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (ms <= LAST_MS).then_some(UnixMs(ms))
    }
}

impl fmt::Display for UnixMs {
    /// `2026-02-08T15:00:01.123Z`; instants past year 9999 print as the last one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.min(LAST_MS);
        let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (h, m, s) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1_000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", in_day % 1_000)
    }
}

/// Days since the epoch to a calendar date (Howard Hinnant, "chrono-compatible low-level date
/// algorithms"). By hand because formatting sits on the tail path, where the general formatter
/// costs several times as much.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_fraction_digits_and_z() {
        assert_eq!(UnixMs(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMs(951_826_154_007).to_string(), "2000-02-29T12:09:14.007Z");
        assert_eq!(UnixMs(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn offsets_are_taken_to_utc_and_other_texts_refused() {
        let at = UnixMs::parse_rfc3339("2026-02-08T16:00:01.123999+01:00");
        assert_eq!(at.map(|at| at.to_string()).as_deref(), Some("2026-02-08T15:00:01.123Z"));
        for bad in ["", "2026-02-08", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "now"] {
            assert_eq!(UnixMs::parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(ms in 0..=LAST_MS) {
            prop_assert_eq!(UnixMs::parse_rfc3339(&UnixMs(ms).to_string()), Some(UnixMs(ms)));
        }
    }
}
