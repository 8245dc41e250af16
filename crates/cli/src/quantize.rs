//! `voxtral quantize`.

use std::fmt::Write;

use voxtral::ModelRef;
use voxtral_model::{Deviation, Encoding, Group, Part, Plan, Quantised, quantise};

use crate::args::{
    BackendChoice, Compare, CompareFormat, DecodeChoice, IsaChoice, PrecisionChoice, Quantize, Setup, Sides,
};
use crate::output::{Output, say, unless_closed};
use crate::{compare, progress};

pub(crate) fn run(args: &Quantize) -> anyhow::Result<()> {
    let mut output = Output::open(None)?;
    let report = progress::writing("packing", |progress| quantise(&args.model, &args.out, &plan(args), progress))?;
    unless_closed(output.write(&table(&report)))?;
    output.finish()?;
    for (part, name) in [(Part::Encoder, "encoder"), (Part::Decoder, "decoder"), (Part::Head, "head")] {
        say(&sum(name, report.iter().filter(|matrix| matrix.part == part)));
    }
    if args.check.is_empty() { Ok(()) } else { compare::run(&check(args)) }
}

/// Which encoding goes where. With 4 bits the encoder and the head have 8 unless they are told: there the digits suffered most, and a step
/// of the decoder reads least.
fn plan(args: &Quantize) -> Plan {
    let careful = if args.bits == 4 { 8 } else { args.bits };
    let of = |bits: Option<u8>, default| encoding(bits.unwrap_or(default), args.group);
    Plan { encoder: of(args.encoder, careful), decoder: of(args.decoder, args.bits), head: of(args.head, careful) }
}

/// With a number of bits that the flags let through.
pub(crate) fn encoding(bits: u8, group: Group) -> Encoding {
    match bits {
        16 => Encoding::Bf16,
        12 => Encoding::Bf12,
        8 => Encoding::Int8(group),
        _ => Encoding::Int4(group),
    }
}

/// A line for each matrix.
fn table(report: &[Quantised]) -> String {
    let mut table = "matrix\tencoding\terror\n".to_owned();
    for Quantised { name, encoding, deviation, .. } in report {
        let encoding = encoding.map_or("as it was", Encoding::name);
        let _ = writeln!(table, "{name}\t{encoding}\t{:.5}", deviation.relative());
    }
    table
}

fn sum<'a>(part: &str, matrices: impl Iterator<Item = &'a Quantised> + Clone) -> String {
    let mut names: Vec<_> =
        matrices.clone().map(|matrix| matrix.encoding.map_or("as it was", Encoding::name)).collect();
    names.sort();
    names.dedup();
    let total = matrices.clone().fold(Deviation::default(), |sum, matrix| sum + matrix.deviation);
    let worst = matrices.map(|matrix| matrix.deviation.relative()).fold(0.0, f64::max);
    format!(
        "{part}: {}, weights off by {:.2} %, at most {:.2} %",
        names.join(" and "),
        total.relative() * 100.0,
        worst * 100.0
    )
}

/// The comparison of the source with what was made of it.
fn check(args: &Quantize) -> Compare {
    let models = [&args.model, &args.out].map(|dir| ModelRef::Folder(dir.clone())).to_vec();
    Compare {
        files: args.check.clone(),
        sides: Sides { models, ..Sides::default() },
        setup: Setup {
            model: None,
            delay: args.delay,
            backend: BackendChoice::Cpu,
            device: 0,
            precision: PrecisionChoice::Auto,
            isa: IsaChoice::Auto,
            threads: None,
            decode: DecodeChoice::Auto,
            lookahead: 1,
        },
        // What it comes to is told, not judged.
        tolerance: Some(1.0),
        max_wer: None,
        max_drift: None,
        format: CompareFormat::Text,
        output: None,
    }
}
