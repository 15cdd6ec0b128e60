//! Any bytes, given to what looks at msgpack without making objects of it.

#![no_main]

use _core::codec::marker::{is_plain, read, skip, Kind};
use _core::codec::scan::{scan, Part};
use _core::codec::write;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let end = skip(bytes, 0);
    assert!(end.is_none_or(|end| end <= bytes.len()));
    let is_whole = end == Some(bytes.len());

    // What is plain is one whole object, at any depth that allows it.
    let is_shallow = is_plain(bytes, 8);
    assert!(!is_shallow || is_whole);
    assert!(!is_shallow || is_plain(bytes, 100));

    // Parts cover one whole object, without gaps and in order.
    if let Some(parts) = scan(bytes) {
        assert!(is_whole);
        let mut at = 0;
        for part in parts {
            let (Part::Header(end) | Part::Element(end)) = part else {
                unreachable!("nothing was left out");
            };
            assert!(at < end && end <= bytes.len());
            at = end;
        }
        assert_eq!(at, bytes.len());
    }

    // What is written is read as what it is.
    let code = bytes.first().map_or(0, |first| (first & 0x7f) as i8);
    let mut out = Vec::new();
    write::ext(&mut out, code, bytes);
    assert_eq!(
        read(&out, 0).map(|marker| marker.kind),
        Some(Kind::Ext(code))
    );
    assert_eq!(skip(&out, 0), Some(out.len()));
    out.clear();
    write::bin(&mut out, bytes);
    assert_eq!(skip(&out, 0), Some(out.len()));
    assert!(is_plain(&out, 1));
});
