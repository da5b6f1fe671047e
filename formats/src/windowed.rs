//! Keys of windowed tables: the inner key's bytes, then the window's bounds as 8-byte big-endian milliseconds.
//!
//! ```text
//! time window      | inner key ... | start (8) |              the end follows from the window's size
//! session window   | inner key ... | end (8)   | start (8) |
//! ```

/// Bytes that a time window adds to a key.
pub const TIME_SUFFIX_LEN: usize = 8;
/// Bytes that a session window adds to a key.
pub const SESSION_SUFFIX_LEN: usize = 16;

/// Appends the key of a time window.
pub fn write_time_key(out: &mut Vec<u8>, inner: &[u8], start_ms: i64) {
    out.extend_from_slice(inner);
    out.extend_from_slice(&start_ms.to_be_bytes());
}

/// Appends the key of a session window.
pub fn write_session_key(out: &mut Vec<u8>, inner: &[u8], start_ms: i64, end_ms: i64) {
    out.extend_from_slice(inner);
    out.extend_from_slice(&end_ms.to_be_bytes());
    out.extend_from_slice(&start_ms.to_be_bytes());
}

/// The inner key and the window's start; `None` where the bytes are too short.
pub fn read_time_key(key: &[u8]) -> Option<(&[u8], i64)> {
    let (inner, start) = key.split_last_chunk::<8>()?;
    Some((inner, i64::from_be_bytes(*start)))
}

/// The inner key, the window's start and its end; `None` where the bytes are too short.
pub fn read_session_key(key: &[u8]) -> Option<(&[u8], i64, i64)> {
    let (rest, start) = key.split_last_chunk::<8>()?;
    let (inner, end) = rest.split_last_chunk::<8>()?;
    Some((inner, i64::from_be_bytes(*start), i64::from_be_bytes(*end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_round_trip() {
        let mut out = Vec::new();
        write_time_key(&mut out, b"key", 30_000);
        assert_eq!(out, b"key\0\0\0\0\0\0\x75\x30");
        assert_eq!(read_time_key(&out), Some((&b"key"[..], 30_000)));
        out.clear();
        write_session_key(&mut out, b"", 1, 2);
        assert_eq!(out, b"\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01");
        assert_eq!(read_session_key(&out), Some((&b""[..], 1, 2)));
        assert_eq!((read_time_key(b"short"), read_session_key(b"0123456789")), (None, None));
    }
}
