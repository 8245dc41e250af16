//! What a safetensors file says of its packed tensors, in its metadata.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::json;

use super::{Encoding, Stored, VERSION};

/// The packed tensors of a file.
#[derive(Deserialize)]
pub(crate) struct Description {
    /// Of the layout.
    pub version: u64,
    /// By their names in the file.
    pub tensors: HashMap<String, Described>,
}

/// A packed tensor.
#[derive(Deserialize)]
pub(crate) struct Described {
    encoding: String,
    group: Option<u64>,
    scale: Option<String>,
    /// Of the matrix that is packed.
    pub shape: Vec<usize>,
}

/// Scales are half precision.
const SCALE: &str = "f16";

impl Description {
    /// Its key in the metadata, whose values are strings: this one holds JSON.
    pub(crate) const KEY: &str = "voxtral.packed";

    /// Of these tensors: name, shape, how they are stored. `source` has the checksum of each file that they were made of.
    pub(crate) fn json<'a>(
        tensors: impl IntoIterator<Item = (&'a str, &'a [usize], Stored)>,
        source: &BTreeMap<String, String>,
    ) -> String {
        let mut packed = serde_json::Map::new();
        for (name, shape, stored) in tensors {
            let Stored::Packed(encoding) = stored else { continue };
            let mut described = json!({"encoding": encoding.name(), "shape": shape});
            if let Some(group) = encoding.group() {
                described["group"] = json!(group);
                described["scale"] = json!(SCALE);
            }
            packed.insert(name.to_owned(), described);
        }
        json!({"version": VERSION, "source_sha256": source, "tensors": packed}).to_string()
    }
}

impl Described {
    /// None where this program does not know it.
    pub(crate) fn encoding(&self) -> Option<Encoding> {
        let encoding = Encoding::named(&self.encoding, self.group)?;
        let known = match encoding.group() {
            Some(_) => self.group.is_some() && self.scale.as_deref() == Some(SCALE),
            None => true,
        };
        known.then_some(encoding)
    }
}
