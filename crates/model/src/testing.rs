//! For tests of this and other crates: where the goldens are, and reading them.

use std::path::{Path, PathBuf};

/// A file or folder of the goldens: of those that come with the sources (where these lay when this was built, or in the working
/// folder), or of a larger set beside them, which not everybody has.
pub fn golden(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = [root.join("goldens"), PathBuf::from("goldens"), root.join("../shared/goldens")];
    places.into_iter().map(|place| place.join(name)).find(|path| path.exists())
}

/// The array `name.npy` of the goldens, as f32, with its shape.
///
/// # Panics
/// When it is not there, or is no array of f32 or i32 in C order.
pub fn array(name: &str) -> (Vec<usize>, Vec<f32>) {
    let path = golden(&format!("{name}.npy")).unwrap_or_else(|| panic!("no golden {name}.npy"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = (String::from_utf8_lossy(&bytes[10..10 + header_len]), &bytes[10 + header_len..]);
    assert!(header.contains("'fortran_order': False"), "{name}: {header}");
    let shape = header.split(['(', ')']).nth(1).expect("a shape").split(',');
    let shape = shape.filter_map(|dim| dim.trim().parse().ok()).collect();
    let words = data.as_chunks::<4>().0.iter().copied();
    let values = match &header {
        h if h.contains("'<f4'") => words.map(f32::from_le_bytes).collect(),
        h if h.contains("'<i4'") => words.map(|word| i32::from_le_bytes(word) as f32).collect(),
        h => panic!("{name}: {h}"),
    };
    (shape, values)
}

/// The ids `name.npy` of the goldens.
///
/// # Panics
/// As [`array()`].
pub fn ids(name: &str) -> Vec<u32> {
    array(name).1.into_iter().map(|id| id as u32).collect()
}

/// The cases that are here: those that come with the sources, and those that do not.
pub fn cases() -> Vec<&'static str> {
    let (here, missing): (Vec<_>, Vec<_>) = ["synth_d1", "synth_d6", "speech_d6"]
        .into_iter()
        .partition(|case| golden(&format!("{case}_logits.npy")).is_some());
    for case in missing {
        eprintln!("skipped: the golden case {case} is not here");
    }
    here
}

/// The largest absolute difference.
///
/// # Panics
/// When the lengths differ, or a difference is not a number.
pub fn max_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let difference = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    difference.fold(0.0, |max, d| if d.is_nan() { panic!("NaN") } else { d.max(max) })
}
