//! The backend against the contract of its trait.

use voxtral_cpu::{CpuBackend, CpuOptions, Isa, Precision};
use voxtral_model::Backend;
use voxtral_model::conformance::{Terms, batch_does_not_matter, run, spans_do_not_matter};
use voxtral_model::{DecodeSpan, Delay, EncodeSpan, Encoding, Group, Model, ModelConfig, Plan, Stage};

#[test]
fn f32_has_the_same_bits_however_it_is_called() {
    let options = CpuOptions { threads: 2, precision: Precision::F32, ..CpuOptions::default() };
    run(&|model| Box::new(CpuBackend::new(model, options).unwrap()), &Terms::EXACT);
}

#[test]
fn bf16_has_the_same_bits_however_it_is_called() {
    let options = CpuOptions { threads: 3, precision: Precision::Auto, ..CpuOptions::default() };
    if !options.isa.has_bf16_dot() {
        return eprintln!("skipped: no bf16 dot products on this CPU");
    }
    run(&|model| Box::new(CpuBackend::new(model, options).unwrap()), &Terms::EXACT);
}

#[test]
fn any_cpu_has_the_same_bits_however_it_is_called() {
    let options = CpuOptions { threads: 1, precision: Precision::F32, isa: Isa::PORTABLE };
    run(&|model| Box::new(CpuBackend::new(model, options).unwrap()), &Terms { head_dims: &[24], ..Terms::EXACT });
}

#[test]
fn eight_bits_have_the_same_bits_however_it_is_called() {
    let plan = Plan::all(Encoding::Int8(Group::Of32));
    let options = CpuOptions { threads: 2, ..CpuOptions::default() };
    let terms = Terms { head_dims: &[16, 24], ..Terms::EXACT };
    run(&|model| Box::new(CpuBackend::new(&model.packed(&plan), options).unwrap()), &terms);
}

#[test]
fn four_bits_have_the_same_bits_however_it_is_called() {
    let plan = Plan::all(Encoding::Int4(Group::Of32));
    let options = CpuOptions { threads: 3, ..CpuOptions::default() };
    let terms = Terms { head_dims: &[16, 24], ..Terms::EXACT };
    run(&|model| Box::new(CpuBackend::new(&model.packed(&plan), options).unwrap()), &terms);
}

#[test]
fn every_instruction_set_has_the_same_bits_with_packed_weights() {
    for isa in Isa::available() {
        let plan = Plan { head: Encoding::Bf12, ..Plan::all(Encoding::Int4(Group::Of64)) };
        let options = CpuOptions { threads: 2, precision: Precision::Auto, isa };
        let make =
            |model: &Model| -> Box<dyn Backend> { Box::new(CpuBackend::new(&model.packed(&plan), options).unwrap()) };
        let terms = Terms { head_dims: &[24], ..Terms::EXACT };
        spans_do_not_matter(&make, &terms);
        batch_does_not_matter(&make, &terms);
    }
}

/// All logits of a few tokens.
fn logits(model: &Model, options: CpuOptions) -> Vec<u32> {
    let mut backend = CpuBackend::new(model, options).unwrap();
    let stream = backend.open(Delay::from_ms(480).unwrap(), 12).unwrap();
    backend.grow(stream, 12).unwrap();
    let mel: Vec<f32> =
        (0..12 * model.config.frames_per_token() * model.config.audio.mel_bins).map(|i| (i as f32).sin()).collect();
    backend.encode(&[EncodeSpan { stream, mel: &mel }]).unwrap();
    let ids = [1, 32, 32, 1000, 33, 7];
    backend.decode(&[DecodeSpan { stream, position: 0, ids: &ids, runners_up: None }], &mut Vec::new()).unwrap();
    backend.inspect(Stage::Logits).unwrap().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn threads_change_no_bit_and_packing_without_loss_neither() {
    let fields = ["vocab=1300", "decoder.layers=1", "decoder.ffn_dim=300", "encoder.layers=1", "encoder.ffn_dim=200"];
    let model = Model::synthetic(&ModelConfig::synthetic("small", &fields).unwrap(), 4).unwrap();
    let encodings = [Encoding::Bf16, Encoding::Bf12, Encoding::Int8(Group::Of32), Encoding::Int4(Group::Of128)];
    for isa in Isa::available() {
        for precision in [Precision::Auto, Precision::F32] {
            let options = |threads| CpuOptions { threads, precision, isa };
            let dense = logits(&model, options(1));
            assert_eq!(dense, logits(&model, options(3)), "{}", isa.name());
            for encoding in encodings {
                let packed = model.packed(&Plan::all(encoding));
                let alone = logits(&packed, options(1));
                assert_eq!(alone, logits(&packed, options(3)), "{} {encoding:?}", isa.name());
                let lossless = matches!(encoding, Encoding::Bf16 | Encoding::Bf12);
                assert_eq!(alone == dense, lossless, "{} {precision:?} {encoding:?}", isa.name());
            }
        }
    }
}
