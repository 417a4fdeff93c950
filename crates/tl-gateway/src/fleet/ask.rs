//! Reading requests: bodies, ids, queries. Every wrong one is named.

use bytes::Bytes;
use http::Uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tl_fleet::{
    JsonText, Kind, NewStep, PageRequest, PageToken, PodId, RunAt, StepFilter, StepId, StepState,
    Unique, UniqueUntil,
};
use tl_types::UnixMs;

use super::problem::Problem;

/// Rows of a page whose request names no number.
const PAGE_DEFAULT: usize = 100;

/// A JSON body, whatever its content type says.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::shape(format!("The body: {error}")))
}

/// A body that may be left out.
pub(super) fn body_or_default<T: DeserializeOwned + Default>(bytes: &Bytes) -> Result<T, Problem> {
    if bytes.is_empty() { Ok(T::default()) } else { body(bytes) }
}

/// An id that is not one is the id of no step.
pub(super) fn step_id(text: &str) -> Result<StepId, Problem> {
    text.parse().map_err(|_| Problem::step_not_found(text.chars().take(64).collect::<String>()))
}

/// A submission.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewStepBody {
    r#type: String,
    args: Option<Box<RawValue>>,
    metadata: Option<Box<RawValue>>,
    priority: Option<i32>,
    max_retries: Option<u32>,
    step_id: Option<String>,
    delay_ms: Option<u64>,
    run_at: Option<String>,
    timeout_ms: Option<u64>,
    unique_key: Option<String>,
    unique_until: Option<String>,
}

fn object(field: &'static str, raw: Option<Box<RawValue>>) -> Result<JsonText, Problem> {
    match raw {
        Some(raw) => Ok(JsonText::object(field, raw.get())?),
        None => Ok(JsonText::empty_object()),
    }
}

impl NewStepBody {
    pub(super) fn step(self) -> Result<NewStep, Problem> {
        let wrong =
            |field, problem: &str| Problem::rule(&tl_fleet::InvalidInput::new(field, problem));
        let mut step = NewStep::new(Kind::new(self.r#type)?);
        step.args = object("args", self.args)?;
        step.metadata = object("metadata", self.metadata)?;
        step.priority = self.priority.unwrap_or(0);
        if let Some(retries) = self.max_retries {
            step.attempts_max = retries.saturating_add(1);
        }
        if let Some(id) = self.step_id {
            step.id = id.parse()?;
        }
        step.run_at = match (self.delay_ms, self.run_at) {
            (None, None) => RunAt::Now,
            (Some(ms), None) => RunAt::InMs(ms),
            (None, Some(text)) => match UnixMs::parse_rfc3339(&text) {
                Some(at) => RunAt::At(at),
                None => return Err(wrong("run_at", "must be an RFC 3339 time")),
            },
            (Some(_), Some(_)) => return Err(wrong("run_at", "excludes delay_ms")),
        };
        step.timeout_ms = self.timeout_ms;
        step.unique = match (self.unique_key, self.unique_until.as_deref()) {
            (None, None) => None,
            (None, Some(_)) => return Err(wrong("unique_until", "needs unique_key")),
            (Some(key), until) => {
                let until = UniqueUntil::from_word(until.unwrap_or("forgotten"))
                    .ok_or_else(|| wrong("unique_until", "must be `finished` or `forgotten`"))?;
                Some(Unique { key, until })
            }
        };
        step.check()?;
        Ok(step)
    }
}

/// The pairs of a query. A name that is not known is refused: a filter with a slip in it would
/// let everything pass.
pub(super) fn query(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    for (name, _) in &pairs {
        if !known.contains(&name.as_str()) {
            let name: String = name.chars().take(64).collect();
            return Err(Problem::shape(format!("The query does not take `{name}`")));
        }
    }
    Ok(pairs)
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|_| Problem::shape(format!("`{name}` must be a whole number")))
}

/// The last value of this name.
pub(super) fn last<'q>(pairs: &'q [(String, String)], name: &str) -> Option<&'q str> {
    pairs.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

pub(super) fn last_number<T: std::str::FromStr>(
    pairs: &[(String, String)],
    name: &str,
) -> Result<Option<T>, Problem> {
    last(pairs, name).map(|value| number(name, value)).transpose()
}

pub(super) fn page(pairs: &[(String, String)]) -> Result<PageRequest, Problem> {
    Ok(PageRequest {
        after: last(pairs, "page").map(|token| PageToken(token.to_owned())),
        limit: last_number(pairs, "limit")?.unwrap_or(PAGE_DEFAULT),
    })
}

/// What `GET /v1/steps` takes.
pub(super) const FILTERS: &[&str] = &[
    "state",
    "type",
    "pod",
    "unique_key",
    "created_from",
    "created_before",
    "contains",
    "limit",
    "page",
];

pub(super) fn filter(pairs: &[(String, String)]) -> Result<StepFilter, Problem> {
    let mut filter = StepFilter::default();
    for (name, value) in pairs {
        let time = || {
            UnixMs::parse_rfc3339(value)
                .ok_or_else(|| Problem::shape(format!("`{name}` must be an RFC 3339 time")))
        };
        match name.as_str() {
            "state" => {
                for word in value.split(',') {
                    let state = StepState::from_word(word);
                    let state = state.ok_or_else(|| {
                        let words: Vec<_> = StepState::ALL.iter().map(|it| it.word()).collect();
                        Problem::shape(format!("`state` must be of {}", words.join(", ")))
                    })?;
                    filter.states.push(state);
                }
            }
            "type" => filter.kind = Some(Kind::new(value.as_str())?),
            "pod" => filter.pod = Some(PodId::new(value.as_str())?),
            "unique_key" => filter.unique_key = Some(value.clone()),
            "contains" => filter.contains = Some(value.clone()),
            "created_from" => filter.created_from = Some(time()?),
            "created_before" => filter.created_before = Some(time()?),
            _ => {}
        }
    }
    Ok(filter)
}
