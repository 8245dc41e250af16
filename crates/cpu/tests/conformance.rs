//! The backend against the contract of its trait.

use voxtral_cpu::{CpuBackend, CpuOptions, Isa, Precision};
use voxtral_model::conformance::{Terms, run};

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
