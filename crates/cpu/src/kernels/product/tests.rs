//! Every product against its scalar twin, at awkward sizes.

use half::{bf16, f16};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use voxtral_model::{Encoding, Group, Packed, Tensor, TensorData, Weight};

use super::*;
use crate::parallel::Team;

fn values(rng: &mut SmallRng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn run(isa: Isa, x: Activations<'_>, w: TensorData<'_>, shape: (usize, usize, usize)) -> Vec<f32> {
    run_with(isa, x, Weights::Rows(w), shape)
}

fn run_with(isa: Isa, x: Activations<'_>, w: Weights<'_>, (m, n, k): (usize, usize, usize)) -> Vec<f32> {
    let mut y = vec![f32::NAN; m * n];
    let out = Output { y: SharedColumns::new(&mut y, n), bias: None, accumulate: false };
    // Two ranges, so that a range that starts in the middle is seen too.
    // SAFETY: there is no other thread.
    unsafe {
        let middle = (n / 3).next_multiple_of(LANES).min(n);
        product_columns(isa, x, w, k, &out, 0..middle);
        product_columns(isa, x, w, k, &out, middle..n);
    }
    y
}

fn bf16s(isa: Isa, x: &[f32], k: usize) -> Rounded {
    let mut rounded = Rounded::default();
    rounded.set(isa, &Team::new(1).unwrap(), x, k);
    rounded
}

fn bytes(isa: Isa, x: &[f32], k: usize) -> Quantised {
    let mut quantised = Quantised::default();
    quantised.set(isa, &Team::new(1).unwrap(), x, k);
    quantised
}

/// The scalar twin, in f64.
fn twin(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    (0..m * n).map(|i| dot(&x[i / n * k..][..k], &w[i % n * k..][..k])).collect()
}

/// k terms below 1, each rounded and added with a relative error of `ulp`.
fn assert_close(isa: Isa, what: &str, got: &[f32], want: &[f64], k: usize, ulp: f64) {
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs();
        assert!(error <= ulp * (k as f64).sqrt() * 4.0, "{} {what} [{i}]: {g} for {w}", isa.name());
    }
}

proptest! {
    #[test]
    fn equals_its_twin_on_every_instruction_set(m in 1usize..15, n in 1usize..23, k in 1usize..150, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (x, w) = (values(&mut rng, m * k), values(&mut rng, n * k));
        let halves: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
        let f16s: Vec<f16> = w.iter().map(|&v| f16::from_f32(v)).collect();
        let widen = |v: &[bf16]| v.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        let shape = (m, n, k);
        for isa in Isa::available() {
            let ulp = f64::from(f32::EPSILON);
            assert_close(isa, "f32", &run(isa, Activations::F32(&x), TensorData::F32(&w), shape), &twin(&x, &w, shape), k, ulp);
            let want = twin(&x, &widen(&halves), shape);
            assert_close(isa, "bf16", &run(isa, Activations::F32(&x), TensorData::Bf16(&halves), shape), &want, k, ulp);
            let wide: Vec<f32> = f16s.iter().map(|v| v.to_f32()).collect();
            assert_close(isa, "f16", &run(isa, Activations::F32(&x), TensorData::F16(&f16s), shape), &twin(&x, &wide, shape), k, ulp);
            if isa.has_bf16_dot() {
                let want = twin(&widen(&x.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>()), &widen(&halves), shape);
                assert_close(isa, "dot", &run(isa, Activations::Bf16(&bf16s(isa, &x, k)), TensorData::Bf16(&halves), shape), &want, k, ulp);
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_company(m in 2usize..15, n in 1usize..23, k in 1usize..150, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (x, w) = (values(&mut rng, m * k), values(&mut rng, n * k));
        let w: Vec<bf16> = w.into_iter().map(bf16::from_f32).collect();
        for isa in Isa::available() {
            let together = run(isa, Activations::F32(&x), TensorData::Bf16(&w), (m, n, k));
            let last = run(isa, Activations::F32(&x[(m - 1) * k..]), TensorData::Bf16(&w), (1, n, k));
            prop_assert_eq!(&together[(m - 1) * n..], &last[..], "{}", isa.name());
            if isa.has_bf16_dot() {
                let together = run(isa, Activations::Bf16(&bf16s(isa, &x, k)), TensorData::Bf16(&w), (m, n, k));
                let last = run(isa, Activations::Bf16(&bf16s(isa, &x[(m - 1) * k..], k)), TensorData::Bf16(&w), (1, n, k));
                prop_assert_eq!(&together[(m - 1) * n..], &last[..], "{}", isa.name());
            }
        }
    }
}

#[test]
fn adds_bias_and_what_was_there() {
    let mut y = vec![1.0, 2.0];
    let out = Output { y: SharedColumns::new(&mut y, 2), bias: Some(&[10.0, 20.0]), accumulate: true };
    let (x, w) = (Activations::F32(&[3.0]), Weights::Rows(TensorData::F32(&[1.0, 2.0])));
    // SAFETY: there is no other thread.
    unsafe { product_columns(Isa::detect(), x, w, 1, &out, 0..2) };
    assert_eq!(y, [14.0, 28.0]);
}

/// Every encoding, over the same bf16 weights.
fn packed(w: &[f32], n: usize, k: usize) -> Vec<Packed> {
    let groups = [Group::Of32, Group::Of64, Group::Of128];
    let scaled = groups.into_iter().flat_map(|group| [Encoding::Int8(group), Encoding::Int4(group)]);
    let all = scaled.chain([Encoding::Bf16, Encoding::Bf12]);
    all.filter_map(|encoding| Packed::of(&Tensor::from_f32_as_bf16(w, &[n, k]), encoding)).collect()
}

proptest! {
    #[test]
    fn packed_weights_are_the_weights(m in 1usize..20, n in 1usize..40, k in 1usize..300, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (x, w) = (values(&mut rng, m * k), values(&mut rng, n * k));
        let halves: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
        let shape = (m, n, k);
        for packed in packed(&w, n, k) {
            let want = twin(&x, &Weight::Packed(packed.clone()).to_f32(), shape);
            let lossless = packed.encoding().group().is_none();
            for isa in Isa::available() {
                let got = run_with(isa, Activations::F32(&x), Weights::Panels(&packed), shape);
                assert_close(isa, &format!("{packed:?}"), &got, &want, k, f64::from(f32::EPSILON));
                if lossless {
                    let dense = run(isa, Activations::F32(&x), TensorData::Bf16(&halves), shape);
                    prop_assert_eq!(&got, &dense, "{} {:?}", isa.name(), packed);
                }
                if lossless && isa.has_bf16_dot() {
                    let rounded = bf16s(isa, &x, k);
                    let got = run_with(isa, Activations::Bf16(&rounded), Weights::Panels(&packed), shape);
                    let dense = run(isa, Activations::Bf16(&rounded), TensorData::Bf16(&halves), shape);
                    prop_assert_eq!(&got, &dense, "{} {:?}, rounded", isa.name(), packed);
                }
                let last = run_with(isa, Activations::F32(&x[(m - 1) * k..]), Weights::Panels(&packed), (1, n, k));
                prop_assert_eq!(&got[(m - 1) * n..], &last[..], "{} {:?}", isa.name(), packed);
            }
        }
    }

    #[test]
    fn eight_bit_products_are_exact_in_a_block(m in 1usize..20, n in 1usize..70, k in 1usize..300, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (x, w) = (values(&mut rng, m * k), values(&mut rng, n * k));
        let shape = (m, n, k);
        for packed in packed(&w, n, k).into_iter().filter(|packed| packed.encoding().group().is_some()) {
            let weights = Weight::Packed(packed.clone()).to_f32();
            let want = twin(&rounded(&x, k), &weights, shape);
            for isa in Isa::available() {
                let quantised = bytes(isa, &x, k);
                let got = run_with(isa, Activations::Int8(&quantised), Weights::Panels(&packed), shape);
                assert_close(isa, &format!("{packed:?}"), &got, &want, k, f64::from(f32::EPSILON));
                let alone = bytes(isa, &x[(m - 1) * k..], k);
                let last = run_with(isa, Activations::Int8(&alone), Weights::Panels(&packed), (1, n, k));
                prop_assert_eq!(&got[(m - 1) * n..], &last[..], "{} {:?}", isa.name(), packed);
            }
        }
    }
}

/// The scalar twin of rounding to 8 bits: the largest of 32 comes to 127.
fn rounded(x: &[f32], k: usize) -> Vec<f32> {
    let block = |x: &[f32]| {
        let largest = x.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        x.iter().map(|v| (v * scale).round_ties_even() * (largest / 127.0)).collect::<Vec<_>>()
    };
    x.chunks(k).flat_map(|row| row.chunks(32).flat_map(block).collect::<Vec<_>>()).collect()
}

#[test]
fn the_largest_codes_do_not_overflow() {
    // Every weight and every activation at the end of its range, in all signs.
    let k = 64;
    for (sign_x, sign_w) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
        let (x, w) = (vec![sign_x * 127.0; k], vec![sign_w * 127.0; 20 * k]);
        for packed in packed(&w, 20, k).into_iter().filter(|packed| packed.encoding().group().is_some()) {
            let want = twin(&x, &Weight::Packed(packed.clone()).to_f32(), (1, 20, k));
            for isa in Isa::available() {
                let quantised = bytes(isa, &x, k);
                let got = run_with(isa, Activations::Int8(&quantised), Weights::Panels(&packed), (1, 20, k));
                assert!(
                    got.iter().zip(&want).all(|(&g, w)| (f64::from(g) - w).abs() < 1.0),
                    "{} {packed:?}",
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn what_is_no_number_shows() {
    let packed = &packed(&[0.5; 16 * 96], 16, 96)[0];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; 2 * 96];
        x[40] = bad;
        for isa in Isa::available() {
            let quantised = bytes(isa, &x, 96);
            let got = run_with(isa, Activations::Int8(&quantised), Weights::Panels(packed), (2, 16, 96));
            assert!(got[..16].iter().all(|y| y.is_nan()) && got[16..].iter().all(|y| y.is_finite()), "{bad}: {got:?}");
        }
    }
}

#[test]
fn exponents_outside_the_table_are_not_lost() {
    let shape = (3, 40, 300);
    let (m, n, k) = shape;
    let mut rng = SmallRng::seed_from_u64(1);
    let (x, mut w) = (values(&mut rng, m * k), values(&mut rng, n * k));
    // Large ones, whose loss shows, at all places within a block and a panel.
    (0..40).for_each(|i| w[i * 299] = 2f32.powi(20 + i as i32));
    let halves: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
    let packed = Packed::of(&Tensor::from_f32_as_bf16(&w, &[n, k]), Encoding::Bf12).unwrap();
    assert!((0..n.div_ceil(LANES)).all(|panel| !packed.panel(panel).escapes.is_empty()));
    for isa in Isa::available() {
        let rounded = bf16s(isa, &x, k);
        let all = [Some(Activations::F32(&x)), isa.has_bf16_dot().then_some(Activations::Bf16(&rounded))];
        for x in all.into_iter().flatten() {
            let got = run_with(isa, x, Weights::Panels(&packed), shape);
            assert_eq!(got, run(isa, x, TensorData::Bf16(&halves), shape), "{}", isa.name());
        }
    }
}
