//! The backend against what an independent implementation computes, stage by stage.

use voxtral_cpu::{CpuBackend, CpuOptions, Isa, Precision};
use voxtral_model::testing::{array, cases, golden, ids, max_difference};
use voxtral_model::{Backend, DecodeSpan, Delay, EncodeSpan, Encoding, Group, MAX_DECODE_ROWS, Model, Plan, Stage};

fn model(layout: &str) -> Model {
    Model::open(&golden(layout).unwrap()).unwrap()
}

/// The golden log-mel of a case, `[frames, mel_bins]`.
fn mel(case: &str) -> Vec<f32> {
    let (shape, values) = array(&format!("{case}_logmel"));
    let (bins, frames) = (shape[0], shape[1]);
    (0..frames * bins).map(|i| values[i % bins * frames + i / bins]).collect()
}

#[test]
fn every_stage_equals_the_goldens() {
    for (layout, isa) in ["tiny", "tiny_hf"].into_iter().flat_map(|l| Isa::available().into_iter().map(move |i| (l, i)))
    {
        let model = model(layout);
        let token = model.config.frames_per_token() * model.config.audio.mel_bins;
        for case in cases() {
            let options = CpuOptions { threads: 2, precision: Precision::F32, isa };
            let mut backend = CpuBackend::new(&model, options).unwrap();
            let tokens = case.split_once("_d").unwrap().1.parse::<u32>().unwrap();
            let stream = backend.open(Delay::from_ms(tokens * 80).unwrap(), 21).unwrap();
            backend.grow(stream, usize::MAX).unwrap();
            let close = |what: &str, got: &[f32], want: &[f32], tolerance: f32| {
                let error = max_difference(got, want);
                assert!(error <= tolerance, "{case} {layout} {}: {what} differs by {error:e}", isa.name());
            };

            let (mut stem, mut encoder, mut adapter) = (Vec::new(), Vec::new(), Vec::new());
            for mel in mel(case).chunks(21 * token) {
                backend.encode(&[EncodeSpan { stream, mel }]).unwrap();
                stem.extend(backend.inspect(Stage::ConvStem).unwrap());
                encoder.extend(backend.inspect(Stage::Encoder).unwrap());
                adapter.extend(backend.inspect(Stage::Adapter).unwrap());
            }
            close("conv stem", &stem, &array(&format!("{case}_conv_stem")).1, 1e-4);
            close("encoder", &encoder, &array(&format!("{case}_encoder_out")).1, 1e-4);
            close("adapter", &adapter, &array(&format!("{case}_adapter_out")).1, 1e-4);

            for what in ["teacher", "random"] {
                let ids = ids(&format!("{case}_{what}_ids"));
                let mut logits = Vec::new();
                for (i, ids) in ids.chunks(MAX_DECODE_ROWS / 3).enumerate() {
                    // From the start again: what was decoded there before is overwritten.
                    let position = i * (MAX_DECODE_ROWS / 3);
                    backend.decode(&[DecodeSpan { stream, position, ids, runners_up: None }], &mut Vec::new()).unwrap();
                    logits.extend(backend.inspect(Stage::Logits).unwrap());
                }
                let name = if what == "teacher" { "logits" } else { "random_logits" };
                let want = array(&format!("{case}_{name}")).1;
                close(name, &logits[logits.len() - want.len()..], &want, 5e-4);
            }
        }
    }
}

/// The logits of a case's given ids.
fn logits(model: &Model, case: &str, options: CpuOptions) -> Vec<f32> {
    let token = model.config.frames_per_token() * model.config.audio.mel_bins;
    let mut backend = CpuBackend::new(model, options).unwrap();
    let tokens = case.split_once("_d").unwrap().1.parse::<u32>().unwrap();
    let stream = backend.open(Delay::from_ms(tokens * 80).unwrap(), 21).unwrap();
    backend.grow(stream, usize::MAX).unwrap();
    for mel in mel(case).chunks(21 * token) {
        backend.encode(&[EncodeSpan { stream, mel }]).unwrap();
    }
    let ids = ids(&format!("{case}_teacher_ids"));
    let mut logits = Vec::new();
    for (i, ids) in ids.chunks(MAX_DECODE_ROWS).enumerate() {
        backend
            .decode(&[DecodeSpan { stream, position: i * MAX_DECODE_ROWS, ids, runners_up: None }], &mut Vec::new())
            .unwrap();
        logits.extend(backend.inspect(Stage::Logits).unwrap());
    }
    logits
}

/// How far these logits point from where those do: 1 less the cosine of the angle.
fn astray(got: &[f32], want: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    1.0 - dot(got, want) / (dot(got, got) * dot(want, want)).sqrt()
}

/// The weights of this checkpoint are random, and it makes much of small differences. What rounding them turns the logits by is the same
/// on every CPU, to a millionth, and its limit is close. What rounding activations adds is noise, which is another draw on every CPU, and
/// with every change of the input by a ten thousandth. Its limit is half as much again as the mean of 16 draws, for the case and the CPU
/// with the largest; they are within a tenth of their mean.
#[test]
fn quantised_logits_point_where_the_goldens_do() {
    let model = model("tiny");
    let (int8, int4) = (Encoding::Int8(Group::Of32), Encoding::Int4(Group::Of32));
    // The plan, and the limits for its weights and for activations.
    let plans = [
        (Plan { encoder: Encoding::Bf16, ..Plan::all(int8) }, 1.5e-4, 4.6e-4),
        (Plan::all(int8), 8.5e-4, 1.6e-3),
        (Plan { head: int4, ..Plan::all(Encoding::Bf16) }, 3.9e-3, 1.6e-4),
        (Plan { decoder: int4, ..Plan::all(int8) }, 2.95e-2, 1.6e-3),
    ];
    for (plan, weights, activations) in plans {
        let model = model.packed(&plan);
        for (case, isa) in cases().into_iter().flat_map(|case| Isa::available().into_iter().map(move |isa| (case, isa)))
        {
            let run = |precision| logits(&model, case, CpuOptions { threads: 2, precision, isa });
            let (exact, rounded) = (run(Precision::F32), run(Precision::Auto));
            let want = array(&format!("{case}_logits")).1;
            let prompt = exact.len() - want.len();
            let off = [astray(&exact[prompt..], &want), astray(&rounded[prompt..], &exact[prompt..])];
            assert!(off[0] <= weights && off[1] <= activations, "{case} {plan:?} {}: {off:?}", isa.name());
        }
    }
}
