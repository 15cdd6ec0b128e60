//! The extension codes of LangGraph's serializer (`langgraph.checkpoint.serde.jsonplus`), and
//! what their payloads say.

/// `[module, name, argument]`: the class is called with the argument.
pub const CALL_ONE: i8 = 0;
/// `[module, name, arguments]`: the class is called with each of them.
pub const CALL_ARGUMENTS: i8 = 1;
/// `[module, name, keywords]`: the class is called with them.
pub const CALL_KEYWORDS: i8 = 2;
/// `[module, name, argument, method]`: the class's method is called with the argument.
pub const CALL_METHOD: i8 = 3;
/// `[module, name, fields]` of a model of Pydantic 1.
pub const MODEL_V1: i8 = 4;
/// `[module, name, fields, "model_validate_json"]` of a model of Pydantic 2.
pub const MODEL: i8 = 5;
/// `[dtype, shape, order, bytes]` of a numpy array.
pub const ARRAY: i8 = 6;
/// The value of a delta channel's snapshot.
pub const SNAPSHOT: i8 = 7;

/// Whether the payload is msgpack in which elements may be worth finding.
pub fn is_nested(code: i8) -> bool {
    (CALL_ONE..=MODEL).contains(&code) || code == SNAPSHOT
}
