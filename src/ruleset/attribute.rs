//! Netlink attributes: length, type, payload, padding to 4 (linux/netlink.h). A writer for what we
//! send and a reader for what the kernel prints.

/// Set in the type of an attribute that holds attributes (`NLA_F_NESTED`, linux/netlink.h).
const NESTED: u16 = 1 << 15;

/// Type bits that are flags (`NLA_TYPE_MASK`).
const FLAGS: u16 = 0b11 << 14;

/// Bytes of an attribute's header (`NLA_HDRLEN`).
const HEADER: usize = 4;

/// Appends one attribute.
pub fn put(buffer: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    nest(buffer, kind, |buffer| buffer.extend_from_slice(payload));
}

/// Appends a string with its end mark.
pub fn put_str(buffer: &mut Vec<u8>, kind: u16, text: &str) {
    put_name(buffer, kind, text.as_bytes());
}

/// Appends a string that need not be UTF-8, with its end mark.
pub fn put_name(buffer: &mut Vec<u8>, kind: u16, name: &[u8]) {
    nest(buffer, kind, |buffer| {
        buffer.extend_from_slice(name);
        buffer.push(0);
    });
}

/// Appends a 32-bit number in network order, as nf_tables has its numbers.
pub(super) fn put_u32(buffer: &mut Vec<u8>, kind: u16, number: u32) {
    put(buffer, kind, &number.to_be_bytes());
}

/// Appends an attribute of attributes.
pub fn put_nested(buffer: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    nest(buffer, kind | NESTED, fill);
}

fn nest(buffer: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 2]);
    buffer.extend_from_slice(&kind.to_ne_bytes());
    fill(buffer);
    let length = u16::try_from(buffer.len() - start).unwrap_or(u16::MAX);
    buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// The attributes of `bytes` in order: type without flags, and payload. Ends at the first one that is
/// cut short.
pub fn each(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]);
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !FLAGS, payload))
    })
}

/// The payload of the first attribute of this type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    each(bytes)
        .find(|(k, _)| *k == kind)
        .map(|(_, payload)| payload)
}

/// The string in the first attribute of this type, up to its end mark.
pub fn find_str(bytes: &[u8], kind: u16) -> Option<&str> {
    str::from_utf8(find_name(bytes, kind)?).ok()
}

/// The same where it need not be UTF-8.
pub fn find_name(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    find(bytes, kind).map(until_end_mark)
}

/// A string of the kernel without what follows its end mark.
pub fn until_end_mark(payload: &[u8]) -> &[u8] {
    payload.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The 32-bit number in network order in the first attribute of this type.
pub fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// The 64-bit number in network order in the first attribute of this type.
pub fn find_u64(bytes: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// Whether `found` holds every attribute of `wanted`, with the same payload. What the kernel adds by
/// itself does not count against it.
pub fn contains(found: &[u8], wanted: &[u8]) -> bool {
    let mut rest = wanted;
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]);
        let Some(payload) = rest.get(HEADER..length) else {
            return false;
        };
        let same = match find(found, kind & !FLAGS) {
            Some(other) if kind & NESTED != 0 => contains(other, payload),
            Some(other) => other == payload,
            None => false,
        };
        if !same {
            return false;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        put_str(&mut bytes, 1, "vpngw");
        put_nested(&mut bytes, 4, |inner| put_u32(inner, 2, 7));
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(find_str(&bytes, 1), Some("vpngw"));
        let inner = find(&bytes, 4).unwrap();
        assert_eq!(find_u32(inner, 2), Some(7));
        assert_eq!(each(&bytes).count(), 2);
    }

    #[test]
    fn cut_attributes_end_the_list() {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, 1, 1);
        put_u32(&mut bytes, 2, 2);
        for length in 0..bytes.len() {
            assert!(each(&bytes[..length]).count() < 2);
        }
        assert_eq!(each(&[0; 8]).count(), 0, "a length of zero does not loop");
    }

    #[test]
    fn a_superset_contains_and_a_changed_value_does_not() {
        let write = |extra: bool, number: u32| {
            let mut bytes = Vec::new();
            put_nested(&mut bytes, 3, |inner| {
                if extra {
                    put_u32(inner, 9, 9);
                }
                put_u32(inner, 1, number);
            });
            bytes
        };
        assert!(contains(&write(true, 5), &write(false, 5)));
        assert!(!contains(&write(true, 6), &write(false, 5)));
        assert!(!contains(&write(false, 5), &write(true, 5)));
    }
}
