//! Every error text of the program has a row in the tables of `docs/errors.md`, and every row is of a text that there still is.
//!
//! The texts are read from the sources: the `#[error("…")]` of every crate, and the sentences among what makes an error (see
//! [`Collector::makes_errors`]). What a value stands for is `…` in both, and one that a text begins with, such as the name of a file,
//! is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use syn::parse::ParseStream;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, LitStr, Macro};

use crate::support::root;

const GUIDE: &str = "docs/errors.md";
const SECTION: &str = "## Messages";

/// Texts, as the tables show them, and the file that each comes from.
type Texts = BTreeMap<String, PathBuf>;

#[test]
fn every_error_has_a_row_and_every_row_an_error() {
    let texts = texts_of_the_program();
    let rows = rows(&fs::read_to_string(root().join(GUIDE)).unwrap());
    let missing: String = texts
        .iter()
        .filter(|(text, _)| !rows.contains(*text))
        .map(|(text, file)| format!("{}:\n| {} | CAUSE | REMEDY |\n", file.display(), quoted(text)))
        .collect();
    let stale: String = rows.iter().filter(|row| !texts.contains_key(*row)).map(|row| format!("{row}\n")).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "section \"{SECTION}\" of {GUIDE}\n\nrows to add:\n{missing}\ntexts to delete, since no error has them:\n{stale}"
    );
}

#[test]
fn texts_are_found_wherever_errors_are_made() {
    let source = r#"
        const CUT: &str = "cut in the middle";
        #[derive(thiserror::Error)]
        enum Error {
            #[error("{path}: no {what:?} of {{3}}", path.display())]
            Variant { path: PathBuf, what: String },
            #[error("{}: {source}", path.display())]
            Wrapper { path: PathBuf, source: io::Error },
            #[error(transparent)]
            Io(#[from] io::Error),
        }
        impl From<Other> for Error {
            fn from(other: Other) -> Self {
                match other {
                    Other::Is("in a pattern") => Self::Corrupt(CUT),
                    _ => Self::Corrupt("by its own type"),
                }
            }
        }
        fn sentence(path: &Path) -> String { format!("from a function, {}", path.display()) }
        fn all(n: usize) -> Result<(), String> {
            let what = format!("in a {} before", "variable of another name");
            tracing::debug!("told to nobody");
            tracing::warn!("{}: a warning", n);
            bail!("bailed out {n} times");
            ensure!(n > 0, "not ensured");
            one().context("in context")?;
            two().with_context(|| sentence(path))?;
            three().ok_or_else(|| Error::new("kind", what))?;
            usage(ErrorKind::Io, "a wrong usage");
            return Err(format!("given back at {n}"));
        }
        #[cfg(test)]
        mod tests { fn test() { bail!("only in tests"); } }
    "#;
    let mut collector = Collector::default();
    collector.add(Path::new("here.rs"), &syn::parse_file(source).unwrap());
    let found: Vec<&str> = collector.texts.keys().map(String::as_str).collect();
    let expected = [
        "a warning",
        "a wrong usage",
        "bailed out … times",
        "by its own type",
        "cut in the middle",
        "from a function, …",
        "given back at …",
        "in a … before",
        "in context",
        "no … of {3}",
        "not ensured",
    ];
    assert_eq!(found, expected);
}

#[test]
fn rows_are_read_from_the_section_alone() {
    let guide = "| `before` | a | b |\n## Messages\n### Group\n| message | cause | remedy |\n|---|---|---|\n\
                 | `…: one`<br>`` run `two` `` | c | use `d` |\n## After\n| `after` | a | b |\n";
    assert_eq!(rows(guide), BTreeSet::from(["…: one".to_owned(), "run `two`".to_owned()]));
}

/// Collects from every crate of the workspace, `xtask` not being part of the program.
fn texts_of_the_program() -> Texts {
    let mut collector = Collector::default();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let src = entry.unwrap().path().join("src");
        for start in ["lib.rs", "main.rs"].map(|name| src.join(name)) {
            if start.exists() {
                collector.add_file(&start, &src);
            }
        }
    }
    collector.texts
}

#[derive(Default)]
struct Collector {
    file: PathBuf,
    texts: Texts,
    /// The texts of the file's constants and functions, and of the variables so far: what an error is made of may be named before.
    named: HashMap<String, Vec<String>>,
    /// Whether `Self` is an error here.
    self_is_error: bool,
    /// Whether what is visited becomes part of an error.
    in_error: bool,
}

impl Collector {
    /// A file and the modules that it declares, which lie in `folder`; not those of tests.
    fn add_file(&mut self, path: &Path, folder: &Path) {
        let source = fs::read_to_string(path).unwrap();
        let file = syn::parse_file(&source).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.add(path.strip_prefix(root()).unwrap(), &file);
        for item in &file.items {
            let Item::Mod(module) = item else { continue };
            if module.content.is_some() || is_for_tests(&module.attrs) {
                continue;
            }
            let folder_of_module = folder.join(module.ident.to_string());
            let beside = folder_of_module.with_extension("rs");
            let path = if beside.exists() { beside } else { folder_of_module.join("mod.rs") };
            self.add_file(&path, &folder_of_module);
        }
    }

    fn add(&mut self, path: &Path, file: &syn::File) {
        self.file = path.to_owned();
        self.named.clear();
        for item in &file.items {
            match item {
                Item::Const(item) => {
                    drop(self.named.insert(item.ident.to_string(), Literals::of(|v| v.visit_item_const(item))))
                }
                Item::Fn(item) => {
                    drop(self.named.insert(item.sig.ident.to_string(), Literals::of(|v| v.visit_block(&item.block))))
                }
                _ => {}
            }
        }
        self.visit_file(file);
    }

    fn take(&mut self, literal: &str) {
        let text = shown(literal);
        if text.contains(char::is_alphabetic) {
            self.texts.entry(text).or_insert_with(|| self.file.clone());
        }
    }

    /// Where other strings may be: fewer than three words are the name of something that a sentence is about.
    fn take_sentence(&mut self, literal: &str) {
        if shown(literal).split(' ').filter(|word| word.contains(char::is_alphabetic)).count() > 2 {
            self.take(literal);
        }
    }

    /// Whether the arguments of `callee` are of an error: `Err`, `Error::Variant` and `Self::Variant` in an error's own functions,
    /// and functions that do nothing else.
    fn makes_errors(&self, callee: &syn::Path) -> bool {
        let names: Vec<String> = callee.segments.iter().map(|segment| segment.ident.to_string()).collect();
        match &names[..] {
            [.., of, _] if of.ends_with("Error") => true,
            [of, _] if of == "Self" => self.self_is_error,
            [.., name] => matches!(name.as_str(), "Err" | "broken" | "contract" | "usage"),
            [] => false,
        }
    }

    fn within(&mut self, in_error: bool, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.in_error, in_error);
        visit(self);
        self.in_error = before;
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        let attrs = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_for_tests(attrs) {
            visit::visit_item(self, item);
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("error")
            && let Ok(text) = attribute.parse_args_with(first_literal)
        {
            self.take(&text);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let before = self.self_is_error;
        self.self_is_error = matches!(&*item.self_ty, syn::Type::Path(of)
            if of.path.segments.last().is_some_and(|segment| segment.ident.to_string().ends_with("Error")));
        visit::visit_item_impl(self, item);
        self.self_is_error = before;
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let syn::Pat::Ident(name) = &local.pat {
            self.named.insert(name.ident.to_string(), Literals::of(|v| v.visit_local(local)));
        }
        self.within(false, |v| visit::visit_local(v, local));
    }

    fn visit_pat(&mut self, _: &'ast syn::Pat) {}

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let makes = matches!(&*call.func, Expr::Path(path) if self.makes_errors(&path.path));
        self.within(makes || self.in_error, |v| visit::visit_expr_call(v, call));
    }

    fn visit_expr_struct(&mut self, made: &'ast syn::ExprStruct) {
        self.within(self.makes_errors(&made.path) || self.in_error, |v| visit::visit_expr_struct(v, made));
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let method = call.method.to_string();
        let makes = matches!(method.as_str(), "context" | "with_context" | "map_err" | "ok_or" | "ok_or_else");
        self.visit_expr(&call.receiver);
        if let ("context", Some(Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }))) =
            (method.as_str(), call.args.first())
        {
            self.take(&text.value());
        }
        self.within(makes || self.in_error, |v| call.args.iter().for_each(|argument| v.visit_expr(argument)));
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if self.in_error
            && let Some(texts) = path.path.get_ident().and_then(|name| self.named.get(&name.to_string())).cloned()
        {
            texts.iter().for_each(|text| self.take_sentence(text));
        }
    }

    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        if self.in_error {
            self.take_sentence(&literal.value());
        }
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        let name = called.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        let makes = matches!(name.as_str(), "bail" | "anyhow" | "ensure" | "warn");
        match called.parse_body_with(first_literal) {
            Ok(text) if makes => self.take(&text),
            Ok(text) if self.in_error && name == "format" => self.take_sentence(&text),
            _ => {}
        }
    }
}

/// The literals of a piece of source.
#[derive(Default)]
struct Literals(Vec<String>);

impl Literals {
    fn of(visit: impl FnOnce(&mut Self)) -> Vec<String> {
        let mut literals = Self::default();
        visit(&mut literals);
        literals.0
    }
}

impl<'ast> Visit<'ast> for Literals {
    /// Documentation is a literal, too.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.0.push(literal.value());
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.0.extend(called.parse_body_with(first_literal));
    }
}

fn first_literal(input: ParseStream) -> syn::Result<String> {
    let mut first = None;
    while !input.is_empty() {
        if first.is_none() && input.peek(LitStr) {
            first = Some(input.parse::<LitStr>()?.value());
        } else {
            input.step(|at| at.token_tree().map(|(_, rest)| ((), rest)).ok_or_else(|| at.error("a token")))?;
        }
    }
    first.ok_or_else(|| input.error("no literal"))
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |a: &Attribute| a.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test");
    attributes.iter().any(|a| a.path().is_ident("cfg") && is_test(a))
}

/// A text as the tables show it.
fn shown(literal: &str) -> String {
    let mut shown = String::new();
    let mut rest = literal;
    while let Some(at) = rest.find(['{', '}']) {
        shown += &rest[..at];
        let brace = &rest[at..=at];
        if rest[at + 1..].starts_with(brace) {
            shown += brace;
            rest = &rest[at + 2..];
        } else {
            shown += "…";
            rest = rest[at..].split_once('}').map_or("", |(_, after)| after);
        }
    }
    shown += rest;
    let mut text = shown.as_str();
    while let Some(after) = text.strip_prefix("…: ") {
        text = after;
    }
    text.to_owned()
}

/// What the rows of the section quote in their first cell.
fn rows(guide: &str) -> BTreeSet<String> {
    let section = guide.lines().skip_while(|line| *line != SECTION).skip(1).take_while(|line| !line.starts_with("## "));
    let mut rows = BTreeSet::new();
    for line in section.filter(|line| line.starts_with('|')) {
        let line = line.replace(r"\|", "\u{0}");
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "not three cells: {line}");
        rows.extend(code_spans(cells[0]).map(|span| span.replace('\u{0}', "|")));
    }
    rows
}

fn code_spans(cell: &str) -> impl Iterator<Item = &str> {
    let mut rest = cell;
    std::iter::from_fn(move || {
        rest = &rest[rest.find('`')?..];
        let fence = &rest[..rest.find(|c| c != '`')?];
        let (span, after) = rest[fence.len()..].split_once(fence)?;
        rest = after;
        Some(if fence.len() > 1 { span.trim() } else { span })
    })
}

/// The inverse of [`code_spans`], of one text.
fn quoted(text: &str) -> String {
    let text = text.replace('|', r"\|");
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}
