//! On Windows weights that are in use cannot be cut; what happens elsewhere is in `cut.rs`.

#![cfg(windows)]

mod common;

use std::fs::File;

use voxtral_model::Model;

use common::native;

#[test]
fn a_file_that_is_in_use_cannot_be_cut() {
    let dir = native();
    let file = File::options().write(true).open(dir.path().join("consolidated.safetensors")).unwrap();
    let model = Model::open(dir.path()).unwrap();
    assert_eq!(file.set_len(100).unwrap_err().raw_os_error(), Some(1224), "ERROR_USER_MAPPED_FILE");
    assert!(model.weights.embedding.as_bytes().iter().any(|&byte| byte != 0));
    drop(model);
    file.set_len(100).unwrap();
}
