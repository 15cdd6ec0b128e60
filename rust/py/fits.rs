//! Whether a field of a message holds what its annotation says, in the form that both
//! `model_dump()` and validation leave as it is, without a warning.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString};

use super::messages::Class;

/// What a field's name says of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Text, or a list of texts and dicts.
    Content,
    /// A dict, in which the class would parse tool calls when it is built.
    Kwargs,
    Dict,
    /// A dict with text for keys.
    TextDict,
    Text,
    TextOrNone,
    /// The class's own name of its kind.
    Kind,
    /// "success" or "error".
    Status,
    Anything,
    ToolCalls,
    InvalidToolCalls,
    Usage,
    /// Nothing that is known.
    Other,
}

impl Holds {
    pub fn of(field: &str) -> Self {
        match field {
            "content" => Self::Content,
            "additional_kwargs" => Self::Kwargs,
            "response_metadata" => Self::Dict,
            "metadata" => Self::TextDict,
            "name" | "id" => Self::TextOrNone,
            "type" => Self::Kind,
            "role" | "tool_call_id" | "page_content" => Self::Text,
            "status" => Self::Status,
            "artifact" => Self::Anything,
            "tool_calls" => Self::ToolCalls,
            "invalid_tool_calls" => Self::InvalidToolCalls,
            "usage_metadata" => Self::Usage,
            _ => Self::Other,
        }
    }

    /// Whether nothing is one of the field's values.
    pub fn takes_none(self) -> bool {
        matches!(self, Self::TextOrNone | Self::Anything | Self::Usage)
    }
}

/// Whether a value is of the form that a field has when nothing has to be done about it.
///
/// When an object is built, validation puts the keys of a `TypedDict` in order and parses
/// tool calls, so there the value must be past that.
pub fn fits(class: &Class, holds: Holds, value: &Bound<'_, PyAny>, is_built: bool) -> bool {
    match holds {
        Holds::Content => {
            is_any_text(value)
                || all_items(value, |item| {
                    is_any_text(item) || item.is_exact_instance_of::<PyDict>()
                })
        }
        Holds::Kwargs => value.cast_exact::<PyDict>().is_ok_and(|kwargs| {
            !is_built
                || kwargs.is_empty()
                || !kwargs
                    .contains(intern!(value.py(), "tool_calls"))
                    .unwrap_or(true)
        }),
        Holds::Dict => value.is_exact_instance_of::<PyDict>(),
        Holds::TextDict => has_text_keys(value),
        Holds::Text => is_any_text(value),
        Holds::TextOrNone => value.is_none() || is_any_text(value),
        Holds::Kind => class
            .kind
            .as_ref()
            .is_some_and(|(kind, _)| is_text(value, kind)),
        Holds::Status => is_text(value, "success") || is_text(value, "error"),
        Holds::Anything => true,
        Holds::ToolCalls => all_items(value, |call| is_tool_call(call, is_built)),
        Holds::InvalidToolCalls => all_items(value, |_| false),
        Holds::Usage => value.is_none() || is_usage(value, is_built),
        Holds::Other => false,
    }
}

fn all_items(value: &Bound<'_, PyAny>, check: impl Fn(&Bound<'_, PyAny>) -> bool) -> bool {
    value
        .cast_exact::<PyList>()
        .is_ok_and(|items| items.iter().all(|item| check(&item)))
}

fn is_any_text(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyString>()
}

pub fn is_text(value: &Bound<'_, PyAny>, text: &str) -> bool {
    value
        .cast_exact::<PyString>()
        .is_ok_and(|value| value.to_str().is_ok_and(|value| value == text))
}

fn has_text_keys(value: &Bound<'_, PyAny>) -> bool {
    value
        .cast_exact::<PyDict>()
        .is_ok_and(|dict| dict.iter().all(|(key, _)| is_any_text(&key)))
}

/// Check the entries of a dict whose keys are all among `names`: at least the first
/// `required` of them, and in this order where that matters.
fn is_typed_dict(
    value: &Bound<'_, PyAny>,
    names: &[&str],
    required: usize,
    is_ordered: bool,
    check: impl Fn(usize, &Bound<'_, PyAny>) -> bool,
) -> bool {
    let Ok(dict) = value.cast_exact::<PyDict>() else {
        return false;
    };
    let mut found = 0;
    let mut least = 0;
    let fit = dict.iter().all(|(key, value)| {
        let Some(at) = names.iter().position(|name| is_text(&key, name)) else {
            return false;
        };
        if is_ordered && at < least {
            return false;
        }
        least = at + 1;
        found += usize::from(at < required);
        check(at, &value)
    });
    fit && found == required
}

fn is_int(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyInt>()
}

/// Whether this is a dict of exactly the form of LangChain's `ToolCall`.
fn is_tool_call(call: &Bound<'_, PyAny>, is_ordered: bool) -> bool {
    let names = ["name", "args", "id", "type"];
    is_typed_dict(call, &names, 4, is_ordered, |at, value| match at {
        0 => is_any_text(value),
        1 => has_text_keys(value),
        2 => value.is_none() || is_any_text(value),
        _ => is_text(value, "tool_call"),
    })
}

/// Whether this is a dict of exactly the form of LangChain's `UsageMetadata`.
fn is_usage(usage: &Bound<'_, PyAny>, is_ordered: bool) -> bool {
    let names = [
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "input_token_details",
        "output_token_details",
    ];
    let details = |value: &Bound<'_, PyAny>, names: &[&str]| {
        is_typed_dict(value, names, 0, is_ordered, |_, value| is_int(value))
    };
    is_typed_dict(usage, &names, 3, is_ordered, |at, value| match at {
        0..=2 => is_int(value),
        3 => details(value, &["audio", "cache_creation", "cache_read"]),
        _ => details(value, &["audio", "reasoning"]),
    })
}
