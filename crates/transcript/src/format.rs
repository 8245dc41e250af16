//! How times and text are written in files that other programs read.

use std::borrow::Cow;

/// Text for a cell of a spreadsheet: with `'` in front, where it begins as a formula that would be computed on opening.
pub fn cell_text(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// `hours:minutes:seconds` and milliseconds; two digits of hours, or as many as it takes.
pub fn clock(seconds: f64, separator: char) -> String {
    let ms = millis(seconds);
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{h:02}:{m:02}:{s:02}{separator}{ms:03}")
}

/// Whole milliseconds. Rounded before they are taken apart, so that 59.9996 s is a minute and not 59.1000.
pub fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_carry_and_hours_go_on() {
        let cases = [
            (0.0, "00:00:00,000"),
            (0.0004, "00:00:00,000"),
            (59.9994, "00:00:59,999"),
            (59.9996, "00:01:00,000"),
            (3599.9996, "01:00:00,000"),
            (100.0 * 3600.0 + 61.5, "100:01:01,500"),
            (-1.0, "00:00:00,000"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(clock(seconds, ','), expected);
        }
    }

    #[test]
    fn text_in_a_cell_is_no_formula() {
        for text in ["=a", "+a", "-a", "@a", "\ta", "\ra"] {
            assert_eq!(cell_text(text), format!("'{text}"));
        }
        assert_eq!(["a=b", "", " -"].map(cell_text), ["a=b", "", " -"]);
    }
}
