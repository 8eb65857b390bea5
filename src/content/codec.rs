//! What stands in the store under a chunk's key, and in a log batch.
//!
//! Format: the body of a chunk is the chunk itself if it hashes to the key, else one zstd frame whose content does.
//! Readers check, so there is no header. A log batch is one zstd frame with a content checksum: no hash is known of it,
//! and a record that was damaged on its way must not pass for one that says something else.
//! Must: nothing of a body is handed out before its hash was checked; a body never makes us allocate more than the
//! chunk may be long, whatever it claims.
//! Not here: which chunk, from where (`fetch`, `upload`).

use crate::error::{Error, Kind, Result};
use crate::model::Hash;
use bytes::Bytes;
use parking_lot::Mutex;
use std::io::{BufRead, BufReader, Read, Take, Write};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

/// Largest chunk anybody may have written, bytes (our own stay below `chunker::MAX`).
pub const MAX_CHUNK: u32 = 16 << 20;

/// Level of chunks. On source text as quick as level 1 and a tenth smaller; on programs level 3 takes half as long again
/// for a twentieth less.
const LEVEL: i32 = 2;
/// Level of log batches, which are small and kept for ever.
const LINES_LEVEL: i32 = 3;
/// Below this a frame's own overhead eats the gain.
const WORTH_TRYING: usize = 64;
/// From here on a sample decides first.
const SAMPLED_FROM: usize = 128 << 10;
/// Size of one of the four samples: 32 KiB together, a few per cent of a chunk.
const SAMPLE: usize = 8 << 10;
/// A body must save one part in this many, else the chunk is stored as it is (and read without decompression).
const MUST_SAVE: usize = 32;
/// Largest window a batch may ask its reader to hold, as a power of two: ours need 2 MiB.
const MAX_WINDOW_LOG: u32 = 23;
/// Up to so many bytes a batch is believed how long it is, before it is decompressed.
const WORTH_COUNTING: u64 = 16 << 20;
/// Contexts kept for reuse (about 2 MiB each).
const KEPT_CONTEXTS: usize = 8;

/// A compression context and the memory it writes to. Pooled and not bound to a thread: blocking threads come and go.
struct Encoder {
    zstd: Compressor<'static>,
    out: Vec<u8>,
}

static ENCODERS: Mutex<Vec<Encoder>> = Mutex::new(Vec::new());
static DECODERS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

fn give_back<T>(pool: &Mutex<Vec<T>>, item: T) {
    let mut pool = pool.lock();
    if pool.len() < KEPT_CONTEXTS {
        pool.push(item);
    }
}

/// The frame for `chunk`, or none if it should be stored as it is: too small, or it does not compress. What does not
/// compress costs a sample, not a pass. Takes CPU time (about 3 ms a MiB of text).
pub fn compress(chunk: &[u8]) -> Option<Bytes> {
    if chunk.len() < WORTH_TRYING {
        return None;
    }
    let pooled = ENCODERS.lock().pop();
    let mut enc = match pooled {
        Some(e) => e,
        None => Encoder { zstd: Compressor::new(LEVEL).ok()?, out: Vec::new() },
    };
    let body = enc.compress(chunk);
    give_back(&ENCODERS, enc);
    body
}

impl Encoder {
    fn compress(&mut self, chunk: &[u8]) -> Option<Bytes> {
        if chunk.len() >= SAMPLED_FROM && !self.sample_pays(chunk) {
            return None;
        }
        // An output buffer smaller than the input makes zstd give up as soon as the frame cannot be worth it.
        let room = chunk.len() - chunk.len() / MUST_SAVE;
        if self.out.len() < room {
            self.out.resize(room, 0);
        }
        let n = self.zstd.compress_to_buffer(chunk, &mut self.out[..room]).ok()?;
        Some(Bytes::copy_from_slice(&self.out[..n]))
    }

    fn sample_pays(&mut self, chunk: &[u8]) -> bool {
        let bound = zstd_safe::compress_bound(SAMPLE);
        if self.out.len() < bound {
            self.out.resize(bound, 0);
        }
        let (mut seen, mut became) = (0, 0);
        for k in 0..4 {
            let at = (chunk.len() - SAMPLE) / 3 * k;
            let Ok(n) = self.zstd.compress_to_buffer(&chunk[at..at + SAMPLE], &mut self.out[..bound]) else { return false };
            seen += SAMPLE;
            became += n;
        }
        became <= seen - seen / MUST_SAVE
    }
}

/// The body to store for `chunk`. Takes CPU time: from 64 KiB on for a blocking thread.
pub fn encode(chunk: Bytes) -> Bytes {
    compress(&chunk).unwrap_or(chunk)
}

/// The chunk `key` out of a `body` from the store. `expected`: its length where the manifest tells.
///
/// Errors: `Corrupt` naming the key, for anything that is not that chunk. Allocates at most the expected length
/// ([`MAX_CHUNK`] where unknown). Takes CPU time like [`encode`].
pub fn decode(key: &Hash, expected: Option<u32>, body: Bytes) -> Result<Bytes> {
    if expected.is_some_and(|n| n > MAX_CHUNK) {
        return Err(corrupt(key, format!("its length {} is beyond {MAX_CHUNK}", expected.unwrap_or_default())));
    }
    let raw_fits = match expected {
        Some(n) => body.len() == n as usize,
        None => body.len() <= MAX_CHUNK as usize,
    };
    if raw_fits && Hash::of(&body) == *key {
        return Ok(body);
    }
    let cap = expected.unwrap_or(MAX_CHUNK) as usize;
    let cap = match zstd_safe::get_frame_content_size(&body) {
        Ok(Some(n)) if n > cap as u64 => return Err(corrupt(key, format!("its body claims {n} bytes, {cap} are possible"))),
        Ok(Some(n)) if expected.is_some() && n != cap as u64 => return Err(corrupt(key, format!("its body claims {n} bytes of {cap}"))),
        Ok(Some(n)) => n as usize,
        Ok(None) => cap,
        Err(_) => return Err(corrupt(key, format!("a body of {} bytes is neither the chunk nor a zstd frame", body.len()))),
    };
    let mut out = Vec::with_capacity(cap);
    let pooled = DECODERS.lock().pop();
    let mut dec = match pooled {
        Some(d) => d,
        None => Decompressor::new().map_err(|e| Error::io("making a decompressor", e))?,
    };
    let done = dec.decompress_to_buffer(&body[..], &mut out);
    give_back(&DECODERS, dec);
    if let Err(e) = done {
        return Err(corrupt(key, format!("its body does not decompress into {cap} bytes: {e}")));
    }
    if expected.is_some_and(|n| n as usize != out.len()) {
        return Err(corrupt(key, format!("its body holds {} bytes of {cap}", out.len())));
    }
    if Hash::of(&out) != *key {
        return Err(corrupt(key, "its bytes have another hash".into()));
    }
    if out.capacity() > out.len() + out.len() / 8 {
        out.shrink_to_fit();
    }
    Ok(out.into())
}

fn corrupt(key: &Hash, why: String) -> Error {
    Error::new(Kind::Corrupt, format!("reading chunk {key}: {why}"))
        .hint("run `tcfs doctor`: the object in the store is damaged; a device that still has the bytes can write it again")
}

/// One zstd frame, with its checksum, for the lines of a log batch.
pub fn encode_lines(lines: &[u8]) -> Result<Bytes> {
    let compress = || {
        let mut zstd = Compressor::new(LINES_LEVEL)?;
        zstd.include_checksum(true)?;
        zstd.compress(lines)
    };
    compress().map(Bytes::from).map_err(|e| Error::io("compressing a batch of records", e))
}

/// The lines of a log batch, at most `cap` bytes of them. `what` names the object in errors.
///
/// Errors: `Corrupt` if it is no whole zstd frame, its checksum is wrong (where it has one: ours do), or it holds more.
/// Memory: what it really holds, and a window of 8 MiB.
pub fn decode_lines(what: &str, body: &[u8], cap: usize) -> Result<Vec<u8>> {
    let bad = does_not_decompress(what);
    let large = || Error::new(Kind::Corrupt, format!("reading {what}: it holds more than {cap} bytes"));
    let reader = || Ok::<_, Error>(decoder(body).map_err(&bad)?.take(cap as u64 + 1));
    // Memory is asked for once, and only for what is there: a claim is bounded first, and without one it is counted.
    let size = match zstd_safe::get_frame_content_size(body) {
        Ok(Some(n)) if n > cap as u64 => return Err(large()),
        Ok(Some(n)) if n <= WORTH_COUNTING => n,
        _ => std::io::copy(&mut reader()?, &mut std::io::sink()).map_err(&bad)?,
    };
    if size > cap as u64 {
        return Err(large());
    }
    let mut out = Vec::with_capacity(size as usize);
    // The reader ends quietly where the body ends inside a frame's header.
    let whole = zstd_safe::find_frame_compressed_size(body).is_ok();
    reader()?.read_to_end(&mut out).map_err(&bad)?;
    if out.len() > cap {
        return Err(large());
    }
    if !whole {
        return Err(Error::new(Kind::Corrupt, format!("reading {what}: {} bytes are no whole zstd frame", body.len())));
    }
    Ok(out)
}

/// A reader of a frame of lines, which may not ask for a large window.
fn decoder(body: &[u8]) -> std::io::Result<zstd::stream::read::Decoder<'static, &[u8]>> {
    let mut dec = zstd::stream::read::Decoder::with_buffer(body)?;
    dec.window_log_max(MAX_WINDOW_LOG)?;
    Ok(dec)
}

fn does_not_decompress(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::new(Kind::Corrupt, format!("reading {what}: it does not decompress")).source(e)
}

/// Lines on their way into one zstd frame with a checksum, for what is too long to lie in memory as it is.
pub struct LinesWriter {
    zstd: zstd::stream::write::Encoder<'static, Vec<u8>>,
}

impl LinesWriter {
    /// An empty frame.
    pub fn new() -> Result<LinesWriter> {
        let begin = || {
            let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), LINES_LEVEL)?;
            zstd.include_checksum(true)?;
            Ok(zstd)
        };
        begin().map(|zstd| LinesWriter { zstd }).map_err(|e| Error::io("beginning to compress records", e))
    }

    /// Adds bytes.
    pub fn write(&mut self, lines: &[u8]) -> Result<()> {
        self.zstd.write_all(lines).map_err(|e| Error::io("compressing records", e))
    }

    /// Bytes of the frame so far; some may still be on their way.
    pub fn written(&self) -> usize {
        self.zstd.get_ref().len()
    }

    /// The frame.
    pub fn finish(self) -> Result<Bytes> {
        self.zstd.finish().map(Bytes::from).map_err(|e| Error::io("compressing records", e))
    }
}

/// The lines of a frame, one after the other.
pub struct LinesReader<'b> {
    what: String,
    lines: BufReader<Take<zstd::stream::read::Decoder<'static, &'b [u8]>>>,
    longest: usize,
}

impl<'b> LinesReader<'b> {
    /// Reads `body`, which must be one frame, of lines up to `longest` bytes and `cap` bytes of them. `what` names the
    /// object in errors. Memory: one line, and a window of 8 MiB.
    ///
    /// Errors: `Corrupt` if it is no whole zstd frame, or asks for too much memory.
    pub fn new(what: &str, body: &'b [u8], longest: usize, cap: u64) -> Result<LinesReader<'b>> {
        if zstd_safe::find_frame_compressed_size(body) != Ok(body.len()) {
            return Err(Error::new(Kind::Corrupt, format!("reading {what}: {} bytes are not one whole zstd frame", body.len())));
        }
        let zstd = decoder(body).map_err(does_not_decompress(what))?;
        Ok(LinesReader { what: what.to_owned(), lines: BufReader::with_capacity(128 << 10, zstd.take(cap)), longest })
    }

    /// The next line into `line`, with its newline; false at the end.
    ///
    /// Errors: `Corrupt` for what does not decompress, has another checksum, a longer line, more of them, or none at the
    /// end.
    pub fn read(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        let bad = |why: &str| Error::new(Kind::Corrupt, format!("reading {}: {why}", self.what));
        let most = self.longest as u64 + 1;
        let read = (&mut self.lines).take(most).read_until(b'\n', line);
        read.map_err(|e| bad("it does not decompress").source(e))?;
        match line.last() {
            None if self.lines.get_ref().limit() == 0 => Err(bad("it holds more than it may")),
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) if line.len() as u64 == most => Err(bad("a line is too long")),
            Some(_) => Err(bad("its last line is cut off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::testing::{noise, text};
    use proptest::prelude::*;

    fn back(chunk: &[u8]) -> usize {
        let body = encode(Bytes::copy_from_slice(chunk));
        let key = Hash::of(chunk);
        for expected in [Some(chunk.len() as u32), None] {
            assert!(decode(&key, expected, body.clone()).unwrap() == chunk);
        }
        body.len()
    }

    #[test]
    fn text_shrinks_noise_stays_and_both_come_back() {
        for len in [0, 1, 63, 64, 5000, 127 << 10, 1 << 20] {
            assert_eq!(back(&noise(3, len)), len);
            let n = back(&text(3, len));
            assert!(len < 5000 || n < len / 2, "{len} → {n}");
        }
        assert!(back(&vec![0; 4 << 20]) < 1000);
    }

    #[test]
    fn a_chunk_that_is_itself_a_zstd_frame_is_stored_as_it_is() {
        let inner = zstd::bulk::compress(&text(1, 300_000), 3).unwrap();
        back(&inner);
    }

    #[test]
    fn bombs_lies_and_damage_are_corrupt_and_name_the_key() {
        let chunk = text(2, 100_000);
        let key = Hash::of(&chunk);
        let body = encode(Bytes::from(chunk.clone()));
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        let other = zstd::bulk::compress(&text(3, 100_000), 3).unwrap();
        let short = zstd::bulk::compress(&chunk[..99_999], 3).unwrap();
        // A frame without a size in its header that goes on for 64 MiB.
        let unsized_bomb = zstd::stream::encode_all(&vec![7u8; 64 << 20][..], 3).unwrap();
        assert_eq!(zstd_safe::get_frame_content_size(&unsized_bomb).unwrap(), None);
        let mut lying = body.to_vec();
        lying[5..7].copy_from_slice(&[0xff, 0xff]);
        let twice = [&body[..], &body[..]].concat();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", vec![]),
            ("bomb", bomb),
            ("unsized bomb", unsized_bomb),
            ("another chunk", other),
            ("too short", short),
            ("lying size", lying),
            ("twice", twice),
            ("cut off", body[..body.len() - 1].to_vec()),
            ("header only", body[..6].to_vec()),
            ("garbage", noise(1, 100_000)),
            ("raw but damaged", [&chunk[..99_999], b"!"].concat()),
        ];
        for (name, b) in cases {
            for expected in [Some(100_000), None] {
                let e = decode(&key, expected, b.clone().into()).unwrap_err();
                assert_eq!(e.kind(), Kind::Corrupt, "{name}");
                assert!(e.to_string().contains(&key.to_hex()), "{name}: {e}");
            }
        }
        assert_eq!(decode(&key, Some(99_000), body.clone()).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(decode(&key, Some(u32::MAX), body).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn batches_come_back_and_are_bounded() {
        let lines = text(9, 3_000_000);
        let body = encode_lines(&lines).unwrap();
        assert!(body.len() < lines.len() / 2);
        assert!(decode_lines("batch", &body, lines.len()).unwrap() == lines);
        assert_eq!(decode_lines("batch", &body, lines.len() - 1).unwrap_err().kind(), Kind::Corrupt);
        for cut in [0, 1, 4, 7, body.len() / 2, body.len() - 1] {
            assert_eq!(decode_lines("batch", &body[..cut], 1 << 30).unwrap_err().kind(), Kind::Corrupt, "{cut}");
        }
        let lines = text(11, 20_000);
        let body = encode_lines(&lines).unwrap();
        for at in 0..body.len() {
            let mut damaged = body.to_vec();
            damaged[at] ^= 0x20;
            let read = decode_lines("batch", &damaged, lines.len());
            assert!(read.as_ref().map_or_else(|e| e.kind() == Kind::Corrupt, |l| *l == lines), "byte {at}: passed for something else");
        }
        assert!(decode_lines("batch", &encode_lines(b"").unwrap(), 10).unwrap().is_empty());
        // A frame that asks for a window of 128 MiB.
        let greedy = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 17 << 3, 0x01, 0, 0];
        assert_eq!(decode_lines("batch", &greedy, 1 << 30).unwrap_err().kind(), Kind::Corrupt);
    }

    fn read_all(body: &[u8], longest: usize, cap: u64) -> Result<Vec<Vec<u8>>> {
        let mut reader = LinesReader::new("x", body, longest, cap)?;
        let (mut out, mut line) = (Vec::new(), Vec::new());
        while reader.read(&mut line)? {
            out.push(line.clone());
        }
        Ok(out)
    }

    #[test]
    fn streamed_lines_come_back_one_by_one_and_are_bounded() {
        let lines: Vec<Vec<u8>> = (0..300).map(|i| format!("{i} {}\n", "x".repeat(i)).into_bytes()).collect();
        let mut w = LinesWriter::new().unwrap();
        lines.iter().for_each(|l| w.write(l).unwrap());
        let body = w.finish().unwrap();
        let total = lines.iter().map(Vec::len).sum::<usize>();
        let longest = lines[299].len();
        assert!(read_all(&body, longest, total as u64 + 1).unwrap() == lines);
        assert!(decode_lines("x", &body, total).unwrap() == lines.concat());
        for (longest, cap) in [(longest - 2, 1 << 40), (longest, total as u64), (longest, 1000)] {
            assert_eq!(read_all(&body, longest, cap).unwrap_err().kind(), Kind::Corrupt, "{longest} {cap}");
        }
        for cut in [0, 1, 4, 9, body.len() / 2, body.len() - 1] {
            assert_eq!(read_all(&body[..cut], longest, 1 << 40).unwrap_err().kind(), Kind::Corrupt, "{cut}");
        }
        let twice = [&body[..], &body[..]].concat();
        assert_eq!(read_all(&twice, longest, 1 << 40).unwrap_err().kind(), Kind::Corrupt);
        let open = zstd::encode_all(&b"a\nb"[..], 3).unwrap();
        assert!(read_all(&open, 10, 100).unwrap_err().to_string().contains("cut off"));
        let mut seen = 0;
        for at in 0..body.len() {
            let mut damaged = body.to_vec();
            damaged[at] ^= 0x10;
            seen += usize::from(read_all(&damaged, longest, 1 << 40).is_ok_and(|l| l != lines));
        }
        assert_eq!(seen, 0, "damage passed for lines");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_never_a_panic(mut b in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
            if magic && b.len() >= 4 {
                b[..4].copy_from_slice(&[0x28, 0xB5, 0x2F, 0xFD]);
            }
            prop_assert!(decode(&Hash::ZERO, Some(1000), b.clone().into()).is_err());
            prop_assert!(decode(&Hash::ZERO, None, b.clone().into()).is_err());
            if let Ok(v) = decode_lines("x", &b, 1 << 20) { prop_assert!(v.len() <= 1 << 20); }
            let _ = read_all(&b, 1 << 10, 1 << 20);
        }

        #[test]
        fn a_flipped_bit_is_never_accepted(seed in 0u64..50, at in any::<proptest::sample::Index>(), bit in 0u8..8) {
            let chunk = text(seed, 3000);
            let mut body = encode(Bytes::from(chunk.clone())).to_vec();
            let i = at.index(body.len());
            body[i] ^= 1 << bit;
            // A flip in a part of the frame that does not matter may still give the right bytes.
            if let Ok(b) = decode(&Hash::of(&chunk), Some(3000), body.into()) { prop_assert!(b == chunk); }
        }
    }
}
