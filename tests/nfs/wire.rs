//! Calls byte by byte.

/// A GETATTR by root whose handle says that it is four gigabytes long.
pub fn call_with_long_handle() -> Vec<u8> {
    let mut b = Vec::new();
    for n in [7u32, 0, 2, 100_003, 3, 1] {
        b.extend_from_slice(&n.to_be_bytes());
    }
    // AUTH_UNIX: stamp, no name, root, no groups.
    for n in [1u32, 20, 0, 0, 0, 0, 0] {
        b.extend_from_slice(&n.to_be_bytes());
    }
    for n in [0u32, 0, 0xffff_fff0] {
        b.extend_from_slice(&n.to_be_bytes());
    }
    let mut record = (b.len() as u32 | 0x8000_0000).to_be_bytes().to_vec();
    record.extend(b);
    record
}
