//! Writing msgpack with the shortest headers, as ormsgpack does.

/// Takes bytes, one piece behind the other.
pub trait Output {
    fn put(&mut self, bytes: &[u8]);

    /// The same as two calls of `put`; an output may do better.
    fn put_both<const N: usize>(&mut self, head: [u8; N], body: &[u8]) {
        self.put(&head);
        self.put(body);
    }
}

impl Output for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

pub fn nil(out: &mut impl Output) {
    out.put(&[0xc0]);
}

pub fn bool(out: &mut impl Output, value: bool) {
    out.put(&[if value { 0xc3 } else { 0xc2 }]);
}

#[inline]
pub fn signed(out: &mut impl Output, n: i64) {
    if n >= 0 {
        unsigned(out, n as u64);
    } else if n >= -32 {
        out.put(&[n as u8]);
    } else if n >= i64::from(i8::MIN) {
        out.put(&[0xd0, n as u8]);
    } else if n >= i64::from(i16::MIN) {
        out.put_both([0xd1], &(n as i16).to_be_bytes());
    } else if n >= i64::from(i32::MIN) {
        out.put_both([0xd2], &(n as i32).to_be_bytes());
    } else {
        out.put_both([0xd3], &n.to_be_bytes());
    }
}

#[inline]
pub fn unsigned(out: &mut impl Output, n: u64) {
    if n < 0x80 {
        out.put(&[n as u8]);
    } else if n <= u64::from(u8::MAX) {
        out.put(&[0xcc, n as u8]);
    } else if n <= u64::from(u16::MAX) {
        out.put_both([0xcd], &(n as u16).to_be_bytes());
    } else if n <= u64::from(u32::MAX) {
        out.put_both([0xce], &(n as u32).to_be_bytes());
    } else {
        out.put_both([0xcf], &n.to_be_bytes());
    }
}

#[inline]
pub fn float(out: &mut impl Output, x: f64) {
    out.put_both([0xcb], &x.to_be_bytes());
}

#[inline]
pub fn str(out: &mut impl Output, text: &str) {
    let n = text.len();
    if n < 32 {
        out.put_both([0xa0 | n as u8], text.as_bytes());
    } else {
        sized(out, [0xd9, 0xda, 0xdb], text.as_bytes());
    }
}

pub fn bin(out: &mut impl Output, bytes: &[u8]) {
    sized(out, [0xc4, 0xc5, 0xc6], bytes);
}

#[inline]
pub fn array(out: &mut impl Output, items: usize) {
    container(out, 0x90, [0xdc, 0xdd], items);
}

#[inline]
pub fn map(out: &mut impl Output, entries: usize) {
    container(out, 0x80, [0xde, 0xdf], entries);
}

/// An extension object's header, and how many of its bytes count.
pub fn ext_header(code: i8, payload: usize) -> ([u8; 6], usize) {
    let code = code as u8;
    let fixed = match payload {
        1 => 0xd4,
        2 => 0xd5,
        4 => 0xd6,
        8 => 0xd7,
        16 => 0xd8,
        _ => 0,
    };
    if fixed != 0 {
        return ([fixed, code, 0, 0, 0, 0], 2);
    }
    let [a, b, c, d] = (payload as u32).to_be_bytes();
    if payload <= usize::from(u8::MAX) {
        ([0xc7, d, code, 0, 0, 0], 3)
    } else if payload <= usize::from(u16::MAX) {
        ([0xc8, c, d, code, 0, 0], 4)
    } else {
        ([0xc9, a, b, c, d, code], 6)
    }
}

pub fn ext(out: &mut impl Output, code: i8, payload: &[u8]) {
    let (header, length) = ext_header(code, payload.len());
    out.put(&header[..length]);
    out.put(payload);
}

/// Bytes behind the shortest marker of one, two or four bytes that holds their length.
#[inline]
fn sized(out: &mut impl Output, markers: [u8; 3], bytes: &[u8]) {
    let [a, b, c, d] = (bytes.len() as u32).to_be_bytes();
    match bytes.len() {
        0..=0xff => out.put_both([markers[0], d], bytes),
        0x100..=0xffff => out.put_both([markers[1], c, d], bytes),
        _ => out.put_both([markers[2], a, b, c, d], bytes),
    }
}

#[inline]
fn container(out: &mut impl Output, short: u8, markers: [u8; 2], n: usize) {
    let [a, b, c, d] = (n as u32).to_be_bytes();
    match n {
        0..=15 => out.put(&[short | d]),
        16..=0xffff => out.put(&[markers[0], c, d]),
        _ => out.put(&[markers[1], a, b, c, d]),
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
