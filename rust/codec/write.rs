//! Writing msgpack with the shortest headers, as ormsgpack does.

pub fn nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub fn signed(out: &mut Vec<u8>, n: i64) {
    if n >= 0 {
        unsigned(out, n as u64);
    } else if n >= -32 {
        out.push(n as u8);
    } else if n >= i64::from(i8::MIN) {
        out.extend_from_slice(&[0xd0, n as u8]);
    } else if n >= i64::from(i16::MIN) {
        sized(out, 0xd1, &(n as i16).to_be_bytes());
    } else if n >= i64::from(i32::MIN) {
        sized(out, 0xd2, &(n as i32).to_be_bytes());
    } else {
        sized(out, 0xd3, &n.to_be_bytes());
    }
}

pub fn unsigned(out: &mut Vec<u8>, n: u64) {
    if n < 0x80 {
        out.push(n as u8);
    } else if n <= u64::from(u8::MAX) {
        out.extend_from_slice(&[0xcc, n as u8]);
    } else if n <= u64::from(u16::MAX) {
        sized(out, 0xcd, &(n as u16).to_be_bytes());
    } else if n <= u64::from(u32::MAX) {
        sized(out, 0xce, &(n as u32).to_be_bytes());
    } else {
        sized(out, 0xcf, &n.to_be_bytes());
    }
}

pub fn float(out: &mut Vec<u8>, x: f64) {
    sized(out, 0xcb, &x.to_be_bytes());
}

pub fn str(out: &mut Vec<u8>, text: &str) {
    let n = text.len();
    if n < 32 {
        out.push(0xa0 | n as u8);
    } else {
        length(out, [Some(0xd9), Some(0xda), Some(0xdb)], n);
    }
    out.extend_from_slice(text.as_bytes());
}

pub fn bin(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, [Some(0xc4), Some(0xc5), Some(0xc6)], bytes.len());
    out.extend_from_slice(bytes);
}

pub fn array(out: &mut Vec<u8>, items: usize) {
    if items < 16 {
        out.push(0x90 | items as u8);
    } else {
        length(out, [None, Some(0xdc), Some(0xdd)], items);
    }
}

pub fn map(out: &mut Vec<u8>, entries: usize) {
    if entries < 16 {
        out.push(0x80 | entries as u8);
    } else {
        length(out, [None, Some(0xde), Some(0xdf)], entries);
    }
}

pub fn ext(out: &mut Vec<u8>, code: i8, payload: &[u8]) {
    match payload.len() {
        1 => out.push(0xd4),
        2 => out.push(0xd5),
        4 => out.push(0xd6),
        8 => out.push(0xd7),
        16 => out.push(0xd8),
        n => length(out, [Some(0xc7), Some(0xc8), Some(0xc9)], n),
    }
    out.push(code as u8);
    out.extend_from_slice(payload);
}

fn sized(out: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    out.push(marker);
    out.extend_from_slice(bytes);
}

/// A length behind the shortest marker of one, two or four bytes that holds it.
fn length(out: &mut Vec<u8>, markers: [Option<u8>; 3], n: usize) {
    match (markers, u8::try_from(n), u16::try_from(n)) {
        ([Some(marker), ..], Ok(n), _) => out.extend_from_slice(&[marker, n]),
        ([_, Some(marker), _], _, Ok(n)) => sized(out, marker, &n.to_be_bytes()),
        ([.., Some(marker)], ..) => sized(out, marker, &(n as u32).to_be_bytes()),
        _ => unreachable!("every kind of object has a length of four bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::marker::skip;
    use super::*;

    #[test]
    fn what_is_written_is_one_object() {
        for n in [
            0usize, 1, 2, 4, 8, 15, 16, 17, 31, 32, 255, 256, 65_535, 65_536,
        ] {
            let text = "x".repeat(n);
            for write in [
                &|out: &mut Vec<u8>| str(out, &text),
                &|out: &mut Vec<u8>| bin(out, text.as_bytes()),
                &|out: &mut Vec<u8>| ext(out, 5, text.as_bytes()),
                &|out: &mut Vec<u8>| {
                    array(out, n);
                    (0..n).for_each(|_| nil(out));
                },
                &|out: &mut Vec<u8>| {
                    map(out, n);
                    (0..2 * n).for_each(|_| nil(out));
                },
            ] as [&dyn Fn(&mut Vec<u8>); 5]
            {
                let mut out = Vec::new();
                write(&mut out);
                assert_eq!(skip(&out, 0), Some(out.len()));
            }
        }
    }

    #[test]
    fn integers_take_the_shortest_form() {
        for (n, bytes) in [
            (0i64, 1),
            (127, 1),
            (128, 2),
            (256, 3),
            (65_536, 5),
            (1 << 32, 9),
            (-1, 1),
            (-32, 1),
            (-33, 2),
            (-129, 3),
            (-32_769, 5),
            (i64::MIN, 9),
        ] {
            let mut out = Vec::new();
            signed(&mut out, n);
            assert_eq!(out.len(), bytes, "{n}");
        }
    }
}
