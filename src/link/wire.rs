//! How a message becomes packets of the socket, and packets a message. Pure.
//!
//! A message that fits a packet is one: JSON, which begins with `{` or `"`. A longer one of the warden travels as a
//! sealed file in memory beside the packet `@LENGTH`, in one act that never waits. The warden takes no descriptors, so
//! a longer one of the engine travels in parts: each begins with `+` if there is more to come, or `.` if it is the last.

/// The first byte of a packet that is not a whole message.
const FILE: u8 = b'@';
const MORE: u8 = b'+';
const LAST: u8 = b'.';

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// A message.
    Whole(&'a [u8]),
    /// Its first descriptor holds a message of so many bytes.
    File(usize),
    /// A part of a message that goes on.
    More(&'a [u8]),
    /// The last part.
    Last(&'a [u8]),
}

impl<'a> Packet<'a> {
    /// Reads one; `None` if it is none of these.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        match *first {
            FILE => {
                let digits = std::str::from_utf8(rest).ok()?;
                Some(Self::File(digits.parse().ok()?))
            }
            MORE => Some(Self::More(rest)),
            LAST => Some(Self::Last(rest)),
            _ => Some(Self::Whole(bytes)),
        }
    }
}

/// The packet that announces a file of so many bytes.
pub(super) fn file(length: usize) -> Vec<u8> {
    format!("{}{length}", char::from(FILE)).into()
}

/// The packets of a message in parts, none over `longest` bytes.
pub(super) fn parts(message: &[u8], longest: usize) -> impl Iterator<Item = Vec<u8>> {
    // A part holds at least one byte of the message.
    let mut chunks = message.chunks(longest.saturating_sub(1).max(1)).peekable();
    std::iter::from_fn(move || {
        let chunk = chunks.next()?;
        let first = if chunks.peek().is_some() { MORE } else { LAST };
        Some([&[first], chunk].concat())
    })
}

/// Parts that have arrived of a message that goes on.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<u8>);

/// Parts that make no message: it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    #[error("a message in parts is longer than {0} bytes")]
    TooLong(usize),
    #[error("a message in parts was not ended before the next one")]
    Torn,
    #[error("a packet that is neither a message nor a part of one")]
    Unknown,
}

impl Parts {
    /// Takes the next packet in; gives the message that it ends, if it ends one. Never holds more than `longest` bytes.
    pub(super) fn take(
        &mut self,
        packet: Packet<'_>,
        longest: usize,
    ) -> Result<Option<Vec<u8>>, Misfit> {
        let taken = self.add(packet, longest);
        if !matches!(taken, Ok(None)) {
            self.0 = Vec::new();
        }
        taken
    }

    fn add(&mut self, packet: Packet<'_>, longest: usize) -> Result<Option<Vec<u8>>, Misfit> {
        let (part, last) = match packet {
            Packet::Whole(message) if self.0.is_empty() => return Ok(Some(message.to_vec())),
            Packet::Whole(_) => return Err(Misfit::Torn),
            Packet::File(_) => return Err(Misfit::Unknown),
            Packet::More(part) => (part, false),
            Packet::Last(part) => (part, true),
        };
        if self.0.len() + part.len() > longest {
            return Err(Misfit::TooLong(longest));
        }
        self.0.extend_from_slice(part);
        Ok(last.then(|| std::mem::take(&mut self.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(packets: &[Vec<u8>], longest: usize) -> Result<Vec<Vec<u8>>, Misfit> {
        let (mut parts, mut messages) = (Parts::default(), Vec::new());
        for packet in packets {
            let packet = Packet::read(packet).ok_or(Misfit::Unknown)?;
            messages.extend(parts.take(packet, longest)?);
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn what_is_cut_is_joined_again(text in "\\{.{0,600}", packet in 2_usize..90) {
            let message = text.into_bytes();
            let packets: Vec<_> = parts(&message, packet).collect();
            prop_assert!(packets.iter().all(|part| (2..=packet).contains(&part.len())));
            let twice = [packets.clone(), vec![b"{}".to_vec()], packets].concat();
            let expected = [message.clone(), b"{}".to_vec(), message.clone()];
            prop_assert_eq!(joined(&twice, message.len()).unwrap(), expected);
        }

        #[test]
        fn whatever_arrives_no_more_is_held_than_is_allowed(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..60),
            tags in prop::collection::vec(prop::sample::select(b"+.@{x".to_vec()), 60),
            longest in 0_usize..200,
        ) {
            let mut parts = Parts::default();
            for (mut bytes, tag) in packets.into_iter().zip(tags) {
                bytes.insert(0, tag);
                let Some(packet) = Packet::read(&bytes) else { continue };
                if let Ok(Some(message)) = parts.take(packet, longest) {
                    prop_assert!(message.len() <= longest.max(bytes.len()));
                    prop_assert!(parts.0.is_empty());
                }
                prop_assert!(parts.0.len() <= longest);
            }
        }

        #[test]
        fn a_length_is_read_as_it_was_written(length in any::<usize>()) {
            let packet = file(length);
            prop_assert_eq!(Packet::read(&packet), Some(Packet::File(length)));
        }
    }

    #[test]
    fn what_is_no_message_is_forgotten_whole() {
        let mut parts = Parts::default();
        let mut take = |bytes: &[u8]| parts.take(Packet::read(bytes).unwrap(), 8);
        assert_eq!(take(b"+12345678"), Ok(None));
        assert_eq!(take(b"+9"), Err(Misfit::TooLong(8)));
        assert_eq!(take(b"+123"), Ok(None));
        assert_eq!(take(b"{}"), Err(Misfit::Torn));
        assert_eq!(take(b"+123"), Ok(None));
        assert_eq!(take(b"@3"), Err(Misfit::Unknown));
        assert_eq!(take(b"{}"), Ok(Some(b"{}".to_vec())));
        assert_eq!(Packet::read(b"@"), None);
        assert_eq!(Packet::read(b"@1x"), None);
        assert_eq!(Packet::read(b""), None);
    }
}
