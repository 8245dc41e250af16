//! The demo model, as part of the program that uses it: it writes down spoken English digits and knows nothing else.
//!
//! Its README says what it was trained on and how well it does. The crate has a recording to try it with, too.

#![forbid(unsafe_code)]

use voxtral_model::{Embedded, Model};

/// Aligns the bytes of a file for every element type, so that no tensor is copied.
#[repr(C, align(8))]
struct Aligned<Bytes: ?Sized>(Bytes);

static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../consolidated.safetensors"));

/// Somebody saying what the model understands: a WAV file.
pub static SAMPLE: &[u8] = include_bytes!("../sample.wav");

/// The model "digits". Its weights stay where the program has them.
pub fn model() -> Model {
    let files = Embedded {
        name: "digits",
        params: include_bytes!("../params.json"),
        tekken: include_bytes!("../tekken.json"),
        weights: &WEIGHTS.0,
    };
    // They are part of the program, and a test opens them.
    Model::embedded(&files).expect("the built-in model is whole")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use voxtral_model::Kind;

    use super::*;

    #[test]
    fn the_built_in_model_opens_and_is_the_files() {
        let digits = model();
        assert_eq!(digits.name, "digits");
        assert_eq!((digits.config.decoder.dim, digits.config.vocab), (256, 1280));
        assert_eq!(digits.tokenizer.kind(1256), Kind::Text(b" zero"));
        let files = Model::open(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert_eq!((files.config, files.tokenizer), (digits.config, digits.tokenizer));
        let norms = |model: &voxtral_model::Weights| [model.encoder_norm.to_f32(), model.decoder_norm.to_f32()];
        assert_eq!(norms(&files.weights), norms(&digits.weights));
        assert!(files.weights.embedding.as_bytes() == digits.weights.embedding.as_bytes());
    }

    #[test]
    fn the_sample_is_the_one_that_people_are_told_to_try() {
        let tried = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/digits.wav")).unwrap();
        assert!(tried == SAMPLE);
    }

    #[test]
    fn no_tensor_is_copied() {
        let inside = WEIGHTS.0.as_ptr_range();
        assert!(inside.contains(&model().weights.embedding.as_bytes().as_ptr()));
        assert!(inside.contains(&model().weights.decoder[2].down.weight.as_bytes().as_ptr()));
    }
}
