//! Any bytes, given to what reads stored objects: as they are, and as the payload of an object
//! that is otherwise right, so that a checksum does not keep all of them out.

#![no_main]

use _core::store::base::Base;
use _core::store::bundle::{bundled, unbundled};
use _core::store::chunk::{
    front, level, open, put_checksum, references, seal, Compression, Id, Ref, BUNDLE, KEYED, LEAF,
    MANIFEST,
};
use _core::store::manifest::{manifest_leaf, Manifest};
use _core::store::record::Record;
use _core::store::tree::{children, Page};
use _core::store::writes::Write;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// References of several levels; the payload may name any of them.
fn some_references(count: u8) -> Vec<Ref> {
    let reference = |number: u8| Ref {
        level: [LEAF, 1, 2, 3, MANIFEST][usize::from(number % 5)],
        id: Id([number; 16]),
    };
    (0..count % 8).map(reference).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = level(bytes);
    let _ = references(bytes);
    let _ = Record::open(bytes);
    let _ = Write::open(bytes);
    let _ = unbundled(bytes);
    if let Ok(object) = open(bytes) {
        let _ = manifest_leaf(&object);
        let _ = children(object.level, &object.references, &object.payload);
        // What was read is written as the same object.
        let stored = seal(
            object.level,
            &object.references,
            &object.payload,
            Compression::None,
        );
        let stored = stored.expect("what was stored can be stored");
        let again = open(&stored).expect("what was stored can be read");
        assert_eq!(
            (again.level, again.references),
            (object.level, object.references)
        );
        assert_eq!(again.payload, object.payload);
    }

    let Some((&[count, height], payload)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let named = some_references(count);
    let _ = children(height, &named, payload);

    let mut bundle = front(BUNDLE, &named);
    bundle.extend_from_slice(payload);
    put_checksum(&mut bundle);
    if let Ok(writes) = unbundled(&bundle) {
        // What was read is written, and read again, as the same writes.
        let again = bundled(writes.iter().map(|(index, stored)| (*index, &stored[..])));
        let again: Vec<_> = again
            .iter()
            .flat_map(|bytes| unbundled(bytes).expect("what was read can be stored"))
            .collect();
        assert_eq!(again, writes);
    }
    for level in [KEYED, LEAF] {
        let Ok(stored) = seal(level, &named, payload, Compression::None) else {
            continue;
        };
        if let Ok(object) = open(&stored) {
            let _ = manifest_leaf(&object);
        }
        let _ = Write::open(&stored);
        let Ok(record) = Record::open(&stored) else {
            continue;
        };
        if let Manifest::Based(_, edits) = &record.manifest {
            let page = Page::new(MANIFEST, named.clone(), bytes.to_vec());
            let _ = Base::open(Arc::new(page)).and_then(|base| base.edited(edits));
        }
        // Written and read again it is the same, to the bit: versions may be NaN.
        let (stored, _) = record
            .seal(Compression::None)
            .expect("a record that was read");
        let again = Record::open(&stored).expect("a record that was written");
        assert_eq!(
            again.seal(Compression::None).ok().map(|(stored, _)| stored),
            Some(stored)
        );
    }
});
