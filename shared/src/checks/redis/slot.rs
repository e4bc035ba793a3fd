//! Which slot of a Redis Cluster a key lies in, by the rule of its specification.

/// From 0 to 16383.
pub fn of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % 16_384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `CLUSTER KEYSLOT` answers.
    #[test]
    fn a_key_lies_where_redis_says_that_it_does() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12_182), ("{foo}bar", 12_182), ("a{foo}{x}", 12_182)] {
            assert_eq!(of(key), slot, "{key}");
        }
        assert_ne!(of("{}foo"), of("{}bar"));
        assert_ne!(of("{foo"), of("foo"));
    }
}
