//! A page with both transcripts side by side. It needs nothing but itself.

use voxtral_transcript::score::{Edit, align};

use super::report::{Compared, Report};

const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 0; }
p { margin: 0.3rem 0; }
table { width: 100%; border-collapse: collapse; table-layout: fixed; }
th, td { text-align: left; vertical-align: top; padding: 0.5rem; border: 1px solid #bbb; overflow-wrap: anywhere; }
del { background: #fbd5d5; }
ins { background: #d3f2d6; }
del, ins { text-decoration: none; color: #000; }
.past { color: #b00020; font-weight: bold; }
";

pub(super) fn page(report: &Report) -> String {
    let past: String = report.past.iter().map(|past| format!("<p class=\"past\">{}</p>\n", escape(past))).collect();
    let recordings: String = report.recordings.iter().map(|compared| section(report, compared)).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>voxtral compare</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Two transcripts</h1>\n\
         <p>{} recordings, voxtral {}</p>\n<p>{}</p>\n{past}{recordings}</body>\n</html>\n",
        report.recordings.len(),
        report.version,
        escape(&report.total.line()),
    )
}

fn section(report: &Report, compared: &Compared) -> String {
    let divergence = compared
        .first_divergence
        .as_ref()
        .map_or(String::new(), |divergence| format!("<p>{}</p>\n", escape(&divergence.line())));
    let [left, right] = marked(&compared.left, &compared.right);
    format!(
        "<h2>{}</h2>\n<p>{}</p>\n{divergence}<table>\n<tr><th>{}</th><th>{}</th></tr>\n\
         <tr><td>{left}</td><td>{right}</td></tr>\n</table>\n",
        escape(&compared.audio),
        escape(&compared.score.line()),
        escape(&report.left),
        escape(&report.right),
    )
}

/// Both texts, with what only one of them has marked.
fn marked(left: &str, right: &str) -> [String; 2] {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let only = |tag: &str, word: &str| format!("<{tag}>{}</{tag}>", escape(word));
    for edit in align(left, right) {
        match edit {
            Edit::Equal(word) => {
                a.push(escape(word));
                b.push(escape(word));
            }
            Edit::Substitute { reference, hypothesis } => {
                a.push(only("del", reference));
                b.push(only("ins", hypothesis));
            }
            Edit::Insert(word) => b.push(only("ins", word)),
            Edit::Delete(word) => a.push(only("del", word)),
        }
    }
    [a.join(" "), b.join(" ")]
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_marked_and_text_is_text() {
        let [left, right] = marked("a <b> c&d e", "a <i> c&d f g");
        assert_eq!(left, "a <del>&lt;b&gt;</del> c&amp;d <del>e</del>");
        assert_eq!(right, "a <ins>&lt;i&gt;</ins> c&amp;d <ins>f</ins> <ins>g</ins>");
        assert_eq!(escape("\"it's\""), "&quot;it&#39;s&quot;");
    }
}
