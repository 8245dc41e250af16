//! What some bytes are, told by the bytes alone.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::frames::{Stream, find_chain};
use crate::input::Input;
use crate::mp4::{Atom, is_top_level};
use crate::mpeg::id3_len;

/// Where a chain of frames is looked for in what may be raw samples…
const REACH: usize = 64 << 10;
/// …but no longer than this after the first byte came: a live stream is not to be kept waiting, and what comes in this
/// time of a live stream of frames has a dozen of them.
const PATIENCE: Duration = Duration::from_millis(400);
/// A pipe that has given less than so much, an eighth of a second of plain samples, is slow and is waited for longer: what it
/// holds does not depend on how it comes.
const LEAST: usize = 4 << 10;
const LONG_PATIENCE: Duration = Duration::from_secs(3);
/// Text is told from samples by so much of it.
const TEXT: usize = 64;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content {
    Wav,
    Aiff,
    Au,
    Caf,
    Flac,
    Ogg,
    Mkv,
    Mp4,
    /// A chain of MPEG audio or ADTS frames.
    Frames,
    /// Sound that is not built in.
    NotBuiltIn(&'static str),
    /// Something else.
    Foreign(&'static str),
    /// Nothing that announces itself; raw samples look like this.
    Unknown,
}

/// Tells what `input` is, and reads over tags before it.
pub(crate) fn sniff(input: &mut Input) -> io::Result<Content> {
    let mut tagged = false;
    while let Some(len) = id3_len(input.peek_soon(10, LONG_PATIENCE)?) {
        tagged = true;
        input.skip(len)?;
    }
    let known = by_magic(input.peek_soon(24, LONG_PATIENCE)?);
    if known != Content::Unknown {
        return Ok(known);
    }
    // No more is waited for than it takes.
    for look in [LEAST, 16 << 10, REACH + (16 << 10)] {
        input.peek_soon(LEAST, LONG_PATIENCE)?;
        input.peek_soon(look, PATIENCE)?;
        let ended = input.has_ended();
        let bytes = input.peek(0)?;
        let content = by_look(bytes, ended);
        if content != Content::Unknown {
            return Ok(content);
        }
        if bytes.len() < look {
            break;
        }
    }
    // Where a tag was, MPEG audio is what it was for.
    Ok(if tagged { Content::Frames } else { Content::Unknown })
}

/// Whether a file is sound, or a video: one of a known kind, be it built in or not.
///
/// # Errors
/// Where it cannot be read.
pub fn is_audio(path: impl AsRef<Path>) -> io::Result<bool> {
    let content = sniff(&mut Input::open(path.as_ref())?)?;
    Ok(!matches!(content, Content::Foreign(_) | Content::Unknown))
}

/// What is told by more than the first bytes.
fn by_look(bytes: &[u8], ended: bool) -> Content {
    if is_transport_stream(bytes) {
        return Content::NotBuiltIn("MPEG-TS");
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Content::Foreign("a tar archive");
    }
    if let Some(text) = text(bytes) {
        return Content::Foreign(text);
    }
    // Readers of PDF take what is before it for nothing.
    if bytes[..bytes.len().min(1024)].windows(5).any(|magic| magic == b"%PDF-") {
        return Content::Foreign("PDF");
    }
    match find_chain(bytes, REACH, ended) {
        Some((_, frame)) => match frame.stream {
            Stream::Mpeg(_) | Stream::Adts => Content::Frames,
            Stream::Loas => Content::NotBuiltIn("AAC in LOAS"),
            Stream::Ac3 => Content::NotBuiltIn("AC-3"),
        },
        None if is_free_format(bytes) => Content::NotBuiltIn("MP3 of free format"),
        None => single_frame(bytes, ended),
    }
}

/// MP3 whose headers do not name their bit rate, and so not how far the next one is.
fn is_free_format(bytes: &[u8]) -> bool {
    const LENGTHS: std::ops::Range<usize> = 64..6000;
    const FRAMES: usize = 5;
    const MOST: usize = 64;
    let is_header = |head: &[u8]| matches!(head, &[0xff, 0xe2 | 0xe3 | 0xf2 | 0xf3 | 0xfa | 0xfb, rate, ..] if rate & 0xf0 == 0 && rate & 12 != 12);
    // But for the bit that says that a frame is a byte longer.
    let agree = |a: usize, b: usize| {
        let (Some(a), Some(b)) = (bytes.get(a..a + 4), bytes.get(b..b + 4)) else { return false };
        a[..2] == b[..2] && a[2] & !2 == b[2] & !2 && a[3] & 0xcf == b[3] & 0xcf
    };
    (0..bytes.len().min(REACH)).filter(|&at| is_header(&bytes[at..])).take(MOST).any(|first| {
        LENGTHS.filter(|len| agree(first, first + len)).any(|len| {
            let mut at = first + len;
            let chain = (2..FRAMES).all(|_| {
                let next = [at + len, at + len + 1, at + len - 1].into_iter().find(|&next| agree(first, next));
                at = next.unwrap_or(at);
                next.is_some()
            });
            // Samples of a period would all be alike.
            chain && bytes[first..first + len] != bytes[first + len..first + 2 * len]
        })
    })
}

/// A whole input of one frame.
fn single_frame(bytes: &[u8], ended: bool) -> Content {
    let frame = crate::frames::Frame::at(bytes).filter(|frame| ended && frame.len == bytes.len());
    if frame.is_some() { Content::Frames } else { Content::Unknown }
}

fn by_magic(head: &[u8]) -> Content {
    use Content::{Aiff, Au, Caf, Flac, Foreign, Mkv, Mp4, NotBuiltIn, Ogg, Unknown, Wav};
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(magic));
    const MAGICS: &[(&[u8], Content)] = &[
        (b"fLaC", Flac),
        (b"OggS", Ogg),
        (b"\x1a\x45\xdf\xa3", Mkv),
        (b"caff\0", Caf),
        (b".snd", Au),
        (b"dns.", Au),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", NotBuiltIn("ASF/WMA")),
        (b"riff\x2e\x91\xcf\x11", NotBuiltIn("Wave64")),
        (b"FLV\x01", NotBuiltIn("FLV")),
        (b"\0\0\x01\xba", NotBuiltIn("MPEG-PS")),
        (b"\0\0\x01\xb3", NotBuiltIn("MPEG video")),
        (b"\0\0\x01\xbb", NotBuiltIn("MPEG-PS")),
        (b"\0\0\x01\xc0", NotBuiltIn("MPEG-PES")),
        (b"\0\0\x01\xe0", NotBuiltIn("MPEG-PES")),
        (b"#!AMR-WB\n", NotBuiltIn("AMR-WB")),
        (b"#!AMR", NotBuiltIn("AMR")),
        (b"#!SILK_V3", NotBuiltIn("SILK")),
        (b"\x02#!SILK_V3", NotBuiltIn("SILK")),
        (b"wvpk", NotBuiltIn("WavPack")),
        (b"MAC ", NotBuiltIn("Monkey's Audio")),
        (b"TTA1", NotBuiltIn("TTA")),
        (b"TTA2", NotBuiltIn("TTA")),
        (b"MPCK", NotBuiltIn("Musepack")),
        (b"MP+", NotBuiltIn("Musepack")),
        (b".RMF", NotBuiltIn("RealMedia")),
        (b".ra\xfd", NotBuiltIn("RealAudio")),
        (b"ajkg", NotBuiltIn("Shorten")),
        (b"DSD ", NotBuiltIn("DSF")),
        (b"FRM8", NotBuiltIn("DSDIFF")),
        (b"Creative Voice File\x1a", NotBuiltIn("VOC")),
        (b"NIST_1A", NotBuiltIn("NIST SPHERE")),
        (b"\x7f\xfe\x80\x01", NotBuiltIn("DTS")),
        (b"\xfe\x7f\x01\x80", NotBuiltIn("DTS")),
        (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", NotBuiltIn("MXF")),
        (b"MThd", Foreign("MIDI")),
        (b"\x89PNG", Foreign("PNG")),
        (b"\xff\xd8\xff", Foreign("JPEG")),
        (b"GIF8", Foreign("GIF")),
        (b"II*\0", Foreign("TIFF")),
        (b"MM\0*", Foreign("TIFF")),
        (b"PK\x03\x04", Foreign("ZIP")),
        (b"PK\x05\x06", Foreign("ZIP")),
        (b"\x1f\x8b\x08", Foreign("gzip")),
        (b"BZh", Foreign("bzip2")),
        (b"\xfd7zXZ\0", Foreign("xz")),
        (b"\x28\xb5\x2f\xfd", Foreign("zstd")),
        (b"7z\xbc\xaf\x27\x1c", Foreign("7-Zip")),
        (b"Rar!\x1a\x07", Foreign("RAR")),
        (b"%PDF", Foreign("PDF")),
        (b"%!PS", Foreign("PostScript")),
        (b"{\\rtf", Foreign("RTF")),
        (b"\x7fELF", Foreign("a program (ELF)")),
        (b"\xcf\xfa\xed\xfe", Foreign("Mach-O")),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Foreign("an Office document")),
        (b"SQLite format 3\0", Foreign("SQLite")),
        (b"\0asm", Foreign("WebAssembly")),
        (b"wOFF", Foreign("WOFF")),
        (b"wOF2", Foreign("WOFF")),
        (b"OTTO", Foreign("OpenType")),
        (b"GGUF", Foreign("GGUF")),
        (b"\0\x01\0\0\0", Foreign("TrueType")),
        (b"\xca\xfe\xba\xbe", Foreign("a Java class or Mach-O")),
        (b"\xfe\xed\xfa", Foreign("Mach-O")),
        (b"\xce\xfa\xed\xfe", Foreign("Mach-O")),
        (b"!<arch>\n", Foreign("an ar archive")),
        (b"\xed\xab\xee\xdb", Foreign("RPM")),
        (b"\x04\x22\x4d\x18", Foreign("LZ4")),
        (b"LZIP\x01", Foreign("lzip")),
        (b"MSCF\0\0\0\0", Foreign("a cabinet")),
        (b"\0\0\0\x0cjP  ", Foreign("JPEG 2000")),
        (b"\0\0\0\x0cJXL ", Foreign("JPEG XL")),
        (b"8BPS\0", Foreign("Photoshop")),
        (b"\x76\x2f\x31\x01", Foreign("OpenEXR")),
        (b"\x89HDF\r\n", Foreign("HDF5")),
        (b"\x93NUMPY", Foreign("NumPy")),
        (b"PAR1", Foreign("Parquet")),
        (b"dex\n", Foreign("a program for Android")),
        (b"HTTP/1.", Foreign("an HTTP response")),
        (b"\xd4\xc3\xb2\xa1", Foreign("a packet capture")),
        (b"\x0a\x0d\x0d\x0a", Foreign("a packet capture")),
        (b"nut/multimedia container", NotBuiltIn("NUT")),
        (b".SoX", NotBuiltIn("SoX's own format")),
        (b"XoS.", NotBuiltIn("SoX's own format")),
        (b"\x64\xa3\x01\0\0", NotBuiltIn("IRCAM")),
        (b"\x64\xa3\x02\0\0", NotBuiltIn("IRCAM")),
        (b"CWS", NotBuiltIn("Flash")),
        (b"FWS", NotBuiltIn("Flash")),
        (b"DKIF\0\0", NotBuiltIn("IVF")),
        (b"YUV4MPEG2 ", NotBuiltIn("YUV4MPEG2")),
        (b"\0\0\0\x01\x67", NotBuiltIn("H.264")),
        (b"\0\0\0\x01\x40\x01", NotBuiltIn("H.265")),
    ];
    if at(0, b"RIFF") || at(0, b"RIFX") || at(0, b"RF64") || at(0, b"BW64") {
        return match head.get(8..12) {
            Some(b"WAVE") => Wav,
            Some(b"AVI " | b"AVIX") => NotBuiltIn("AVI"),
            Some(b"WEBP") => Foreign("WebP"),
            Some(b"CDXA") => NotBuiltIn("Video CD"),
            Some(b"RMID") => Foreign("MIDI"),
            Some(kind) if kind.iter().all(u8::is_ascii_graphic) => NotBuiltIn("RIFF of an unknown kind"),
            Some(_) => Unknown,
            // Cut off; what reads it says so.
            None => Wav,
        };
    }
    if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        return Aiff;
    }
    if at(4, b"\xf8\x72\x6f") {
        return NotBuiltIn("TrueHD or MLP");
    }
    if at(0, b"FORM") && at(8, b"8SVX") {
        return NotBuiltIn("8SVX");
    }
    if let Some((_, content)) = MAGICS.iter().find(|(magic, _)| at(0, magic)) {
        return *content;
    }
    if at(0, b"MZ") && head.get(2..4).is_some_and(|b| b[1] < 2) && at(4, b"\x03\0\0\0") {
        return Foreign("a Windows program");
    }
    // A bitmap says its own size, and that of its header.
    if at(0, b"BM")
        && at(6, &[0; 4])
        && at(15, &[0; 3])
        && matches!(head.get(14), Some(12 | 40 | 52 | 56 | 64 | 108 | 124))
    {
        return Foreign("BMP");
    }
    // The index of a file of tensors comes first, in JSON.
    if at(3, &[0; 5]) && at(8, b"{\"") {
        return Foreign("safetensors");
    }
    match Atom::read(head) {
        Some(atom) if atom.kind == *b"ftyp" => Mp4,
        // QuickTime before there was `ftyp`.
        Some(atom) if is_top_level(&atom.kind) && atom.size != Some(0) => Mp4,
        _ => Unknown,
    }
}

/// MPEG-TS: a sync byte every 188, 192 or 204 bytes, near the beginning.
fn is_transport_stream(bytes: &[u8]) -> bool {
    /// Fewer may be chance.
    const FEWEST: usize = 5;
    const MOST: usize = 64;
    // The sync byte, no error flag, and a payload or what stands for it.
    let is_head = |packet: &[u8]| matches!(packet, &[0x47, a, _, b, ..] if a & 0x80 == 0 && b & 0x30 != 0);
    [188, 192, 204].into_iter().any(|period| {
        (0..period.min(bytes.len())).any(|first| {
            let packets = bytes[first..].chunks_exact(period).take(MOST);
            let (count, good) = (packets.len(), packets.clone().filter(|packet| is_head(packet)).count());
            // One of ten may be damaged. The packets of a stream count up; samples of a period would all be alike.
            let alike = || packets.clone().all(|packet| packet[..16] == bytes[first..first + 16]);
            count >= FEWEST && is_head(&bytes[first..]) && good * 10 >= count * 9 && !alike()
        })
    })
}

/// The kind of text that the bytes are; `None` for what is none.
fn text(bytes: &[u8]) -> Option<&'static str> {
    let bytes = &bytes[..bytes.len().min(4096)];
    if let [first @ (0xff | 0xfe), second @ (0xff | 0xfe), rest @ ..] = bytes
        && first != second
        && rest.len() >= TEXT
    {
        // UTF-16: nearly all characters of most texts are below 256.
        let high = usize::from(*first == 0xff);
        let plain = rest.chunks_exact(2).filter(|unit| unit[high] == 0 && is_printable(unit[1 - high])).count();
        return (plain * 10 >= rest.len() / 2 * 9).then_some("text (UTF-16)");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let begin = bytes.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0);
    let start = &bytes[begin..];
    let begins =
        |prefix: &str| start.len() >= prefix.len() && start[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes());
    if begins("<!doctype html") || begins("<html") || begins("<head") || begins("<body") {
        return Some("HTML");
    }
    if begins("<?xml") || begins("<svg") || begins("<rss") {
        return Some("XML");
    }
    // A character may be cut off at the end of what is looked at.
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() && bytes.len() > 8 => {
            std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or("")
        }
        Err(_) => return is_latin1(bytes).then_some("text"),
    };
    let printable = valid.bytes().all(|b| b >= 0x80 || is_printable(b));
    let letters = valid.chars().any(|c| c.is_ascii_graphic() || c.is_alphabetic());
    let short_json = (begins("{") || begins("[")) && valid.trim_end().ends_with(['}', ']']);
    if !printable || !letters || valid.len() < 8 && !short_json {
        return None;
    }
    let different = different(valid.as_bytes());
    // Samples that happen to be printable are of one or two values, or they have no words. So has what is coded as text.
    let words = valid.bytes().any(|b| matches!(b, b' ' | b'\n' | b',' | b':')) || valid.len() < TEXT || different >= 16;
    if !(different >= 6 && words || short_json) {
        return None;
    }
    Some(match start.first() {
        _ if begins("#EXTM3U") || begins("[playlist]") => "a playlist",
        Some(b'{' | b'[') => "JSON",
        Some(b'<') => "HTML or XML",
        _ if begins("WEBVTT") => "WebVTT",
        _ => "text",
    })
}

/// How many values bytes have.
fn different(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    bytes.iter().for_each(|&b| seen[usize::from(b)] = true);
    seen.iter().filter(|&&seen| seen).count()
}

/// Text of one byte a character: nearly all of it plain, in words, and the rest letters with accents.
fn is_latin1(bytes: &[u8]) -> bool {
    let of = |kind: fn(u8) -> bool| bytes.iter().filter(|&&b| kind(b)).count();
    let (plain, accents) = (of(is_printable), of(|b| b >= 0xa0));
    let blanks = of(|b| matches!(b, b' ' | b'\n'));
    bytes.len() >= TEXT && plain + accents == bytes.len() && plain * 10 >= bytes.len() * 8 && blanks * 20 >= bytes.len()
}

fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn content(bytes: &[u8]) -> Content {
        sniff(&mut Input::stream(Cursor::new(bytes.to_vec())).unwrap()).unwrap()
    }

    #[test]
    fn documents_are_named() {
        let page = b"\n <!DOCTYPE HTML><html><body>404 Not Found</body></html>";
        assert_eq!(content(page), Content::Foreign("HTML"));
        assert_eq!(content(b"{\"error\": \"no such file\"}"), Content::Foreign("JSON"));
        assert_eq!(content(b"{}"), Content::Foreign("JSON"));
        assert_eq!(content(b"<?xml version=\"1.0\"?><a/>"), Content::Foreign("XML"));
        assert_eq!(content(b"404 page not found\n"), Content::Foreign("text"));
        let wide: Vec<u8> = "\u{feff}It was a dark and stormy night, and it rained."
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(content(&wide), Content::Foreign("text (UTF-16)"));
        for (text, name) in [
            ("\u{3053}\u{308c}\u{306f}\u{6587}\u{7ae0}\u{3067}\u{3059}\u{3002}\n".repeat(300), "text"),
            ("UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQ".repeat(100), "text"),
            ("[playlist]\nFile1=http://example.org/a.mp3\n".to_owned(), "a playlist"),
        ] {
            assert_eq!(content(text.as_bytes()), Content::Foreign(name), "{text:.20}");
        }
        let latin1: Vec<u8> = "Un \u{e9}t\u{e9} \u{e0} Paris.\n".repeat(20).chars().map(|c| c as u8).collect();
        assert_eq!(content(&latin1), Content::Foreign("text"));
        assert_eq!(content(b"\n%PDF-1.4\n\xe2\xe3\xcf\xd3"), Content::Foreign("PDF"));
        assert_eq!(content(b"HTTP/1.1 200 OK\r\n\r\nRIFF\0\0"), Content::Foreign("an HTTP response"));
        let mut bitmap = b"BM\x36\x84\x03\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bitmap.resize(3000, 0x5a);
        assert_eq!(content(&bitmap), Content::Foreign("BMP"));
        let mut tar = vec![0; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(content(&tar), Content::Foreign("a tar archive"));
    }

    #[test]
    fn free_format_is_named() {
        let frame = |n: u8| [&[0xff, 0xfb, 0x00, 0xc4][..], &[n.wrapping_mul(37); 309]].concat();
        let stream: Vec<u8> = (0..40).flat_map(frame).collect();
        assert_eq!(content(&stream), Content::NotBuiltIn("MP3 of free format"));
        assert_eq!(content(&frame(1).repeat(40)), Content::Unknown);
    }

    #[test]
    fn samples_are_no_documents() {
        let repeated =
            |values: &[i16]| values.iter().cycle().take(9000).flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        for values in [
            &[0i16][..],
            &[-1],
            &[-1, 1, 0, -2],
            &[0x2020],
            &[0x4141, 0x2041],
            &[i16::MAX, i16::MIN],
            &[-5, -5, -112, 0x64],
            &[0x770b],
        ] {
            assert_eq!(content(&repeated(values)), Content::Unknown, "{values:?}");
        }
        assert_eq!(content(&[0x55; 5000]), Content::Unknown);
        // A tone whose period is that of a transport stream's packets, and of frames.
        for (period, header) in [(188, &[0x47u8][..]), (72, &[0xff, 0xe3]), (417, &[0xff, 0xfb])] {
            let mut wave: Vec<u8> = (0..period).map(|i| (i * 7) as u8 | 1).collect();
            wave[..header.len()].copy_from_slice(header);
            assert_eq!(content(&wave.repeat(100)), Content::Unknown, "{period}");
        }
    }
}
