//! The names of Redis keys, and back.
//!
//! Ids come from tenants. Escaping makes every name injective: `:` ends a part only
//! where holdfast wrote it, and no id can open a `{hash tag}`.

/// The escape of the empty id, which no other id has: `%` itself is always escaped.
const EMPTY: &[u8] = b"%00";
const SLOTS: u16 = 16384;

/// Escape `:`, `{`, `}` and `%`; an empty id gets an escape of its own.
pub fn escape(id: &[u8]) -> Vec<u8> {
    if id.is_empty() {
        return EMPTY.to_vec();
    }
    let mut out = Vec::with_capacity(id.len() + 8);
    for byte in id {
        match byte {
            b':' | b'{' | b'}' | b'%' => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out
}

/// The id that was escaped; `None` for what [`escape`] never gives.
pub fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    if escaped == EMPTY {
        return Some(Vec::new());
    }
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => out.push(match [*rest.next()?, *rest.next()?] {
                [b'3', b'A'] => b':',
                [b'7', b'B'] => b'{',
                [b'7', b'D'] => b'}',
                [b'2', b'5'] => b'%',
                _ => return None,
            }),
            b':' | b'{' | b'}' => return None,
            _ => out.push(*byte),
        }
    }
    (!out.is_empty()).then_some(out)
}

/// How the thread is written: `{thread}` on a cluster, so that it lives in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain,
    Cluster,
}

/// Builds the keys below one prefix.
pub struct Keys {
    prefix: Vec<u8>,
    form: Form,
}

impl Keys {
    pub fn new(prefix: &[u8], form: Form) -> Self {
        Self {
            prefix: escape(prefix),
            form,
        }
    }

    fn join(&self, kind: &str, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut out = self.prefix.clone();
        out.push(b':');
        out.extend_from_slice(kind.as_bytes());
        for part in parts {
            out.push(b':');
            out.extend_from_slice(part);
        }
        out
    }

    fn thread(&self, thread: &[u8]) -> Vec<u8> {
        let escaped = escape(thread);
        match self.form {
            Form::Plain => escaped,
            Form::Cluster => [b"{", &escaped[..], b"}"].concat(),
        }
    }

    /// The root namespace has no part of its own.
    fn place(&self, thread: &[u8], namespace: &[u8], id: Option<&[u8]>) -> Vec<Vec<u8>> {
        let mut parts = vec![self.thread(thread)];
        if !namespace.is_empty() {
            parts.push(escape(namespace));
        }
        parts.extend(id.map(escape));
        parts
    }

    pub fn checkpoint(&self, thread: &[u8], namespace: &[u8], id: &[u8]) -> Vec<u8> {
        self.join("checkpoint", &self.place(thread, namespace, Some(id)))
    }

    /// What the keys of all the thread's checkpoints begin with.
    pub fn checkpoints(&self, thread: &[u8]) -> Vec<u8> {
        self.join("checkpoint", &self.place(thread, b"", None))
    }

    /// What the keys of all the thread's pending writes begin with.
    pub fn all_writes(&self, thread: &[u8]) -> Vec<u8> {
        self.join("writes", &self.place(thread, b"", None))
    }

    pub fn index(&self, thread: &[u8], namespace: &[u8]) -> Vec<u8> {
        self.join("idx", &self.place(thread, namespace, None))
    }

    pub fn writes(&self, thread: &[u8], namespace: &[u8], id: &[u8]) -> Vec<u8> {
        self.join("writes", &self.place(thread, namespace, Some(id)))
    }

    pub fn blobs(&self, thread: &[u8]) -> Vec<u8> {
        self.join("blob", &[self.thread(thread)])
    }

    pub fn meta(&self, thread: &[u8]) -> Vec<u8> {
        self.join("meta", &[self.thread(thread)])
    }

    pub fn run(&self, run: &[u8]) -> Vec<u8> {
        self.join("run", &[escape(run)])
    }

    /// What the keys of all runs begin with.
    pub fn runs(&self) -> Vec<u8> {
        self.join("run", &[])
    }

    pub fn format(&self) -> Vec<u8> {
        self.join("format", &[])
    }

    /// The registry of threads; on a cluster the part of it in the thread's own slot.
    pub fn threads(&self, thread: &[u8]) -> Vec<u8> {
        match self.form {
            Form::Plain => self.join("threads", &[]),
            Form::Cluster => {
                let tag = tag_of(slot(&escape(thread)));
                self.join("threads", &[format!("{{{tag}}}").into_bytes()])
            }
        }
    }
}

/// The slot of a hash tag: CRC-16/XMODEM modulo 16384.
///
/// Source: Redis Cluster specification, "Key distribution model".
pub fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

/// The least number whose digits hash to `slot`.
fn tag_of(wanted: u16) -> u32 {
    (0u32..)
        .find(|n| slot(n.to_string().as_bytes()) == wanted)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const HOSTILE: [&[u8]; 12] = [
        b"",
        b"a",
        b"a:b",
        b"a%3Ab",
        b"%",
        b"%00",
        b"{a}",
        b"}{",
        b"\0",
        b"%25",
        b"\xed\xa0\x80",
        "ключ".as_bytes(),
    ];

    #[test]
    fn escapes_round_trip_and_are_injective() {
        let mut seen = HashMap::new();
        for id in HOSTILE {
            let escaped = escape(id);
            assert_eq!(unescape(&escaped).as_deref(), Some(id));
            assert!(seen.insert(escaped, id).is_none());
        }
        for bad in [
            &b""[..],
            b"%",
            b"%4",
            b"%41",
            b"%3a",
            b"a:b",
            b"{",
            b"}",
            b"%00a",
        ] {
            assert_eq!(unescape(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn keys_are_injective_in_both_forms() {
        for form in [Form::Plain, Form::Cluster] {
            let keys = Keys::new(b"app:1", form);
            let mut seen: HashMap<Vec<u8>, String> = HashMap::new();
            let mut add = |key: Vec<u8>, what: String| {
                assert!(
                    seen.insert(key, what.clone()).is_none(),
                    "{what} is not alone"
                );
            };
            for thread in HOSTILE {
                add(keys.blobs(thread), format!("blobs {thread:?}"));
                add(keys.meta(thread), format!("meta {thread:?}"));
                add(keys.run(thread), format!("run {thread:?}"));
                for namespace in HOSTILE {
                    add(
                        keys.index(thread, namespace),
                        format!("idx {thread:?} {namespace:?}"),
                    );
                    for id in HOSTILE {
                        add(
                            keys.checkpoint(thread, namespace, id),
                            format!("{thread:?} {namespace:?} {id:?}"),
                        );
                        add(
                            keys.writes(thread, namespace, id),
                            format!("w {thread:?} {namespace:?} {id:?}"),
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_the_design() {
        let keys = Keys::new(b"app", Form::Plain);
        assert_eq!(keys.checkpoint(b"t", b"", b"1"), b"app:checkpoint:t:1");
        assert_eq!(
            keys.checkpoint(b"t", b"a:b", b"1"),
            b"app:checkpoint:t:a%3Ab:1"
        );
        assert_eq!(keys.checkpoints(b"t"), b"app:checkpoint:t");
        assert_eq!(keys.all_writes(b"t"), b"app:writes:t");
        assert_eq!(keys.runs(), b"app:run");
        assert_eq!(keys.index(b"t", b""), b"app:idx:t");
        assert_eq!(keys.threads(b"t"), b"app:threads");
        assert_eq!(keys.format(), b"app:format");
        let keys = Keys::new(b"app", Form::Cluster);
        assert_eq!(keys.meta(b"t"), b"app:meta:{t}");
    }

    #[test]
    fn a_threads_registry_is_in_its_slot() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        for thread in HOSTILE {
            let registry = Keys::new(b"app", Form::Cluster).threads(thread);
            let text = String::from_utf8(registry).unwrap();
            let tag = text.split(['{', '}']).nth(1).unwrap();
            assert_eq!(slot(tag.as_bytes()), slot(&escape(thread)));
        }
    }
}
